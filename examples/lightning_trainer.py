"""Cells in a Trainer of Lightning (`pip install lightning`).

    python examples/lightning_trainer.py

The objective takes cell ids, so a batch packs many cells. `use_distributed_sampler=False` keeps the Trainer
from putting a sampler of its own in the place of this one, which is told its rank instead. The Trainer calls
`set_epoch`; it cannot go on inside an epoch, so resume from a checkpoint taken at the end of one.
"""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from overtone import CellBatchSampler, NTXent, Partition, next_partition
from overtone.contracts import Ids

EPOCHS = 2


def main() -> None:
    import lightning

    class NextStage(lightning.LightningModule):
        def __init__(self, samples: Tensor, partition: Partition) -> None:
            super().__init__()
            self.samples, self.partition = samples, partition
            self.cells = torch.from_numpy(partition.pseudo_labels)
            self.encoder = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))
            self.objective = NTXent(temperature=0.2)

        def train_dataloader(self) -> DataLoader:
            sampler = CellBatchSampler(
                self.partition,
                batch_size=128,  # over all processes
                seed=0,
                rank=self.trainer.global_rank,
                world_size=self.trainer.world_size,
            )
            print(sampler.coverage())
            indexed = TensorDataset(self.samples, torch.arange(len(self.samples)))
            return DataLoader(indexed, batch_sampler=sampler)

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            x, index = batch
            z = torch.cat([self.encoder(x + 0.1 * torch.randn_like(x)) for _ in range(2)])
            cell = self.cells[index.cpu()].to(index.device)
            ids = Ids(cell=cell.repeat(2), identity=index.repeat(2))
            return self.objective(z, z, torch.arange(len(z), device=z.device).roll(len(x)), ids, ids)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    lightning.seed_everything(0)
    samples = torch.randn(1000, 16)
    with torch.no_grad():
        embeddings = nn.Linear(16, 4)(samples).numpy()  # of the encoder that you have
    partition, _ = next_partition("concat", [embeddings], cell_size=30, seed=0)
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        use_distributed_sampler=False,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(NextStage(samples, partition))


if __name__ == "__main__":
    main()
