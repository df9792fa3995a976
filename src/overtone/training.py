"""The step loop: batches in, weights out. It knows no image, no cell and no recipe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from overtone import artifacts, checkpoints, distributed, interrupts, rng
from overtone.contracts import Address, Batch, Dataset, Views
from overtone.embedding import to_device
from overtone.errors import NumericalError
from overtone.gradients import gradients_of
from overtone.ledger import Ledger
from overtone.loading import loaded
from overtone.optim import Rates
from overtone.sampling import CellBatchSampler
from overtone.skipping import noted
from overtone.text import utf8

Log = Callable[[dict[str, Any], Tensor], None]


@dataclass(frozen=True)
class Pace:
    """How long, how exactly and how carefully a stage trains.

    Before the first step, `warm_start_steps` others compute gradients from which the optimiser takes its
    statistics while the weights, and buffers such as those of a batch norm, stay as they are (Mehta et al.,
    "Breaking the Limits of Open-Weight CLIP", arXiv 2601.09859). Their numbers are negative: step 0 is the
    first that moves the weights, and the same with and without them.
    """

    epochs: int
    warmup_epochs: float = 0.0
    schedule: str = "cosine"
    precision: str = "fp32"
    micro_batch_size: int | None = None
    num_workers: int = 0
    log_every: int = 20
    checkpoint_seconds: float = 60.0
    checkpoints_kept: int = 2
    warm_start_steps: int = 0
    layout: str | None = None


class Material(NamedTuple):
    """What a stage trains on.

    Attributes:
        dataset: Where the samples come from.
        sampler: Which of them make up each step, and in which cells they are.
        views: Makes the views of a batch.
        identities: (N,) int64; samples of one identity are never negatives.
    """

    dataset: Dataset
    sampler: CellBatchSampler
    views: Views
    identities: NDArray[np.int64]


def train(
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    material: Material,
    pace: Pace,
    *,
    device: torch.device,
    folder: Path,
    inputs: Mapping[str, str],
    log: Log,
    on_epoch: Callable[[int], bool | None],
) -> None:
    """Trains a method to the end of its epochs, from its newest checkpoint if there is one.

    Step s of a stage is a pure function of (seed, stage, s) and the weights before it, so a run that
    was interrupted ends in the same weights as one that was not. The ledger tells whether it did.

    Args:
        method: See `overtone.gradients.Method`.
        optimizer: Holds the peak rates.
        material: Samples, batches and views.
        pace: Lengths and precision.
        device: Where to train.
        folder: Takes `checkpoints/` and a ledger of each process.
        inputs: What the training is made of; a checkpoint made of something else is refused.
        log: Takes a record and the z of its step, every `log_every` steps.
        on_epoch: Called after each epoch with the number of epochs done; True ends the training there.

    Raises:
        NumericalError: A loss or the weights are not finite; the last good checkpoint stays.
        RunError: The checkpoints are all damaged, or made from something else.
        Stopped: A signal came, to any process; the step in hand is saved.
    """
    sampler = material.sampler
    seed, stage, per_epoch = sampler.seed, sampler.stage, len(sampler)
    total = pace.epochs * per_epoch
    warmup = round(pace.warmup_epochs * per_epoch)
    rates = Rates(optimizer, total=total, warmup=warmup, schedule=pace.schedule)
    place(method, pace.precision, device, pace.layout)
    start = checkpoints.restore(folder / "checkpoints", method, optimizer, inputs) - pace.warm_start_steps
    method.train()
    begin_step: Callable[[int, int, int], object] = getattr(method, "begin_step", lambda *_: None)
    said: Callable[[], dict[str, float]] = getattr(method, "said", dict)
    gradients = gradients_of(method, pace.precision, device, pace.micro_batch_size)
    clock, timer = Clock(), _Timer(pace.checkpoint_seconds)
    with (
        rng.seeded(seed, "training", stage),
        Ledger(folder, stage) as ledger,
        _read(material, (_turn(step, total) for step in range(start, total)), pace.num_workers) as batches,
    ):
        for step in range(start, total):
            batch = next(batches)
            rng.reseed(seed, "step", stage, step, distributed.rank())  # after a loader may have drawn
            lr = rates.set(step)
            begin_step(max(step, 0), per_epoch, total)
            optimizer.zero_grad(set_to_none=True)
            with _buffers_kept(method) if step < 0 else nullcontext():
                loss, z = gradients(_made(material, to_device(batch, device), _turn(step, total)))
            ledger(step, batch["index"], float(loss))
            done = step + 1
            # One exchange a step: what ends or saves a step on one process does so on all.
            broken, stop, late = distributed.largest(
                [not math.isfinite(float(loss)), interrupts.received(), timer.due()], device
            )
            if broken:
                raise _not_finite(folder, material.dataset, stage, step, batch, float(loss))
            optimizer.step()
            clock.count(len(batch["index"]) * distributed.world_size())
            epoch_ends, due = done > 0 and done % per_epoch == 0, bool(late or stop)
            if done % pace.log_every == 0 or epoch_ends or due:
                shown = distributed.mean(float(loss), device)
                log(_record(step, per_epoch, shown, lr, clock) | said(), z)
            last = (epoch_ends and on_epoch(done // per_epoch)) or done == total
            if due or last:
                _check_weights(method, stage, step)
            if last:
                break
            if due:
                number, keep = done + pace.warm_start_steps, pace.checkpoints_kept
                with timer:
                    checkpoints.save(folder / "checkpoints", number, method, optimizer, inputs, keep=keep)
                interrupts.stop(int(stop))


def _turn(step: int, total: int) -> int:
    """Which of the sampler's batches a step takes; those before step 0 take some that no other comes to."""
    return step if step >= 0 else total - 1 - step


@contextmanager
def _buffers_kept(method: nn.Module) -> Iterator[None]:
    """Statistics that a forward pass updates are afterwards what they were."""
    before = [(buffer, buffer.clone()) for buffer in method.buffers()]
    yield
    for buffer, value in before:
        buffer.copy_(value)


@contextmanager
def _read(material: Material, turns: Iterable[int], num_workers: int) -> Iterator[Iterator[Batch]]:
    """The batches of some turns. The loop owns the step, so prefetching loses none."""
    sampler = material.sampler
    with loaded(
        material.dataset,
        (sampler.batch(*divmod(turn, len(sampler))).tolist() for turn in turns),
        generator=rng.generator(sampler.seed, "training", sampler.stage, "loader"),
        num_workers=num_workers,
    ) as read:
        yield noted(read, material.dataset)


def _made(material: Material, batch: Batch, turn: int) -> list[Batch]:
    """The views of a batch, whose samples know their cell and their identity."""
    sampler = material.sampler
    known = with_ids(batch, sampler.partition.pseudo_labels, material.identities)
    return material.views(known, Address(sampler.seed, sampler.stage, turn))


def place(method: nn.Module, precision: str, device: torch.device, layout: str | None = None) -> None:
    """Moves a method to a device; with bf16, convolutions get the layout in which they are fastest.

    With fp32 the layout is left alone unless `channels_last` is asked for: the gain is small, and sums in
    another order round differently.
    """
    method.to(device)
    if (layout == "channels_last" or precision == "bf16") and any(
        parameter.ndim == 4 for parameter in method.parameters()
    ):
        method.to(memory_format=torch.channels_last)


def with_ids(batch: Batch, cells: NDArray[np.int64], identities: NDArray[np.int64]) -> Batch:
    """The batch with the cell and the identity of its samples."""
    index, device = batch["index"].cpu().numpy(), batch["index"].device
    return {
        **batch,
        "cell": torch.from_numpy(cells[index].astype(np.int64, copy=False)).to(device),
        "identity": torch.from_numpy(identities[index]).to(device),
    }


class _Timer:
    """When the next checkpoint is due; saving takes no more than a twentieth of the time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._least, self._saved = seconds, seconds, time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._saved > self.seconds

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._saved = time.monotonic()
        self.seconds = max(self._least, 20 * (self._saved - self._began) if self._least else 0.0)


class Clock:
    """Samples, and samples a second, of the last stretch."""

    def __init__(self) -> None:
        self._samples, self._since = 0, time.monotonic()

    def count(self, samples: int) -> None:
        """Adds the samples of a step."""
        self._samples += samples

    def lap(self) -> dict[str, float]:
        """What was counted since it was last asked."""
        now = time.monotonic()
        rate = self._samples / max(now - self._since, 1e-9)
        found = {"samples": self._samples, "samples_per_second": round(rate, 1)}
        self._samples, self._since = 0, now
        return found


_REMEDY = (
    "The last good checkpoint is kept; try a lower lr or a longer warm-up (warmup_epochs), or precision=fp32."
)


def _not_finite(
    folder: Path, dataset: Dataset, stage: int, step: int, batch: Batch, loss: float
) -> NumericalError:
    """The error of all processes; what each of them had in hand is written down, to be looked at."""
    index = batch["index"].tolist()
    samples = [utf8(dataset.ids[i]) for i in index]
    found = {"stage": stage, "step": step, "loss": str(loss), "samples": samples}
    place = folder / f"failed-step-{distributed.rank()}.json"
    artifacts.write_json(place, found)
    if math.isfinite(loss):
        return NumericalError(f"stage {stage}, step {step}: the loss of another process is not finite.")
    some = ", ".join(map(str, index[:8]))
    return NumericalError(
        f"stage {stage}, step {step}: the loss is {loss}. The batch held samples {some}, ... (all of them: "
        f"{place}). {_REMEDY}"
    )


def _check_weights(method: nn.Module, stage: int, step: int) -> None:
    """A finite loss may have had a gradient that is not."""
    bad = [name for name, value in method.state_dict().items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise NumericalError(f"stage {stage}, step {step}: {', '.join(bad[:5])} not finite. {_REMEDY}")


def _record(step: int, per_epoch: int, loss: float, lr: float, clock: Clock) -> dict[str, Any]:
    return {
        "step": step + 1,
        "epoch": round((step + 1) / per_epoch, 3),
        "loss": loss,
        "lr": lr,
        **clock.lap(),
    }
