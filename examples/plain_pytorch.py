"""Cells in a plain PyTorch loop.

    python examples/plain_pytorch.py

The objective takes cell ids, so a batch packs many cells, and a sample's negatives are those of its own cell.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from overtone import CellBatchSampler, NTXent, next_partition
from overtone.contracts import Ids

EPOCHS = 2


def main() -> None:
    torch.manual_seed(0)
    samples = torch.randn(1000, 16)
    with torch.no_grad():
        embeddings = nn.Linear(16, 4)(samples).numpy()  # of the encoder that you have
    partition, _ = next_partition("concat", [embeddings], cell_size=30, seed=0)
    sampler = CellBatchSampler(partition, batch_size=128, seed=0)
    print(sampler.coverage())

    loader = DataLoader(TensorDataset(samples, torch.arange(len(samples))), batch_sampler=sampler)
    cells = torch.from_numpy(partition.pseudo_labels)
    encoder = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))  # the next one
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    objective = NTXent(temperature=0.2)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)  # or sampler.seek(step): the step is all the state there is
        for x, index in loader:
            z = torch.cat([encoder(x + 0.1 * torch.randn_like(x)) for _ in range(2)])
            ids = Ids(cell=cells[index].repeat(2), identity=index.repeat(2))
            loss = objective(z, z, torch.arange(len(z)).roll(len(x)), ids, ids)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
