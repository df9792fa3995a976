"""Cells in a loop like open_clip's.

    python examples/open_clip_loop.py

Its loss takes no cell ids: everything in a batch is a negative. So each batch comes from one cell,
`cells_per_batch=1`, which needs cells of some batches each; what a cell has left over makes a shorter batch
or waits for another epoch (`min_batch_size`). In several processes each rank takes its slice of such a batch,
and the features that the loss gathers are one cell's again. With `overtone.NTXent`, which takes ids, batches
could pack cells.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from overtone import CellBatchSampler, next_partition

EPOCHS = 2


def clip_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """In the place of `open_clip.ClipLoss()`, which is called alike."""
    logits = logit_scale * image_features @ text_features.T
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class TwoTowers(nn.Module):
    """In the place of `open_clip.create_model(...)`."""

    def __init__(self) -> None:
        super().__init__()
        self.visual, self.text = nn.Linear(16, 8), nn.Linear(12, 8)
        self.logit_scale = nn.Parameter(torch.tensor(2.6))

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = (F.normalize(tower, dim=-1) for tower in (self.visual(image), self.text(text)))
        return *features, self.logit_scale.exp()


def main() -> None:
    torch.manual_seed(0)
    images, texts, model = torch.randn(1000, 16), torch.randn(1000, 12), TwoTowers()
    with torch.no_grad():
        embeddings = model.visual(images).numpy()  # of the model that you have
    partition, _ = next_partition("concat", [embeddings], n_clusters=8, seed=0)
    # In several processes also rank and world_size; batch_size is that of all of them together.
    sampler = CellBatchSampler(partition, batch_size=64, seed=0, cells_per_batch=1)
    print(sampler.coverage())

    loader = DataLoader(TensorDataset(images, texts), batch_sampler=sampler)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)  # open_clip's DataInfo does so for a DistributedSampler alone
        for image, text in loader:
            loss = clip_loss(*model(image, text))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
