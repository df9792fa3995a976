"""What a loop adds to each step: ours and Lightning's over a bare one, on a network that takes a millisecond.

    python benchmarks/speed/overhead.py            # 1 minute
    python benchmarks/speed/overhead.py --smoke    # tiny, a few seconds

All three read the same data set through torch's loader, ours by a partition's cells, the others shuffled.
Lightning's loggers, progress bar and checkpoints are off; ours keeps its ledger, its
seeds and its checks, which it cannot do without.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import measuring
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from overtone.contracts import Batch, Sample
from overtone.partition import Partition
from overtone.rng import seeded
from overtone.sampling import CellBatchSampler
from overtone.training import Material, Pace, train

BATCH, CELL, WIDTH = 64, 32, 128


class Rows:
    """A data set in memory."""

    modality, labels, label_names, fingerprint = "row", {}, {}, ""  # type: ignore[var-annotated]

    def __init__(self, n: int) -> None:
        self.values = torch.rand(n, WIDTH)
        self.ids = list(map(str, range(n)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return {"index": index, "row": self.values[index]}

    def collate(self, samples: list[Sample]) -> Batch:
        return {
            "index": torch.tensor([sample["index"] for sample in samples]),
            "row": torch.stack([sample["row"] for sample in samples]),
        }


class Autoencoder(nn.Module):
    """Takes about a millisecond a step."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(0, "overhead"):
            self.encoder = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH))

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        rows = views[0]["row"]
        z = self.encoder(rows)
        return (z - rows).square().mean(), z


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    steps = 4 if options.smoke else options.steps
    dataset = Rows(BATCH * steps)
    works: dict[str, Callable[[], object]] = {"": lambda: _ours(dataset), "bare": lambda: _bare(dataset)}
    try:
        works["Lightning"] = _lightning(dataset)
    except ImportError as error:
        print(f"Lightning is left out: {error}")
    taken = {name: seconds / steps for name, seconds in measuring.in_turn(works).items()}
    over = {name: 1e6 * (seconds - taken["bare"]) for name, seconds in taken.items() if name != "bare"}
    note = "over the bare loop: " + ", ".join(
        f"{name or 'ours'} {added:.0f} us" for name, added in over.items()
    )
    case = f"a step of {measuring.seconds_text(taken['bare'])}"
    row = measuring.Row(
        case, taken.pop(""), taken, taken["bare"], "< 3 % or 50 us; a tenth of Lightning's", note
    )
    if options.smoke:
        print(row)
    else:
        measuring.keep("overhead", [row], measuring.ceilings())


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def _shuffled(dataset: Rows) -> DataLoader[Batch]:
    return DataLoader(dataset, BATCH, shuffle=True, collate_fn=dataset.collate)  # type: ignore[arg-type]


def _bare(dataset: Rows) -> None:
    method = Autoencoder()
    optimizer = _optimizer(method)
    for batch in _shuffled(dataset):
        optimizer.zero_grad()
        loss, _ = method.step([batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _ours(dataset: Rows) -> None:
    method = Autoencoder()
    rows = np.arange(len(dataset))
    sampler = CellBatchSampler(Partition(rows // CELL), BATCH)
    material = Material(dataset, sampler, lambda batch, address: [batch], rows)
    with tempfile.TemporaryDirectory() as folder:
        train(
            method,
            _optimizer(method),
            material,
            Pace(epochs=1, checkpoint_seconds=1e9),
            device=torch.device("cpu"),
            folder=Path(folder),
            inputs={},
            log=lambda record, z: None,
            on_epoch=lambda done: None,
        )


def _lightning(dataset: Rows) -> Callable[[], None]:
    import logging

    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.method = Autoencoder()

        def training_step(self, batch: Batch) -> Tensor:
            return self.method.step([batch])[0]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return _optimizer(self)

    def fit() -> None:
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(Module(), _shuffled(dataset))

    return fit


if __name__ == "__main__":
    main()
