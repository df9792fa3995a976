"""The step loop: batches in, weights out. It knows no image, no cell and no recipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from overtone import checkpoints, interrupts, optim, rng
from overtone.contracts import Address, Batch, Dataset, Views
from overtone.embedding import to_device
from overtone.errors import NumericalError
from overtone.sampling import CellBatchSampler

Log = Callable[[dict[str, Any], Tensor], None]


class Method(Protocol):
    """What the loop trains: a module with an `encoder` and a `step`."""

    encoder: nn.Module

    def step(self, views: list[Batch], /) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and z, (n, d), for the statistics."""


@dataclass(frozen=True)
class Pace:
    """How long, how exactly and how carefully a stage trains."""

    epochs: int
    warmup_epochs: float = 0.0
    precision: str = "fp32"
    num_workers: int = 0
    log_every: int = 20
    checkpoint_seconds: float = 60.0


def train(
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset,
    views: Views,
    sampler: CellBatchSampler,
    pace: Pace,
    *,
    cells: NDArray[np.int64],
    identities: NDArray[np.int64],
    seed: int,
    stage: int,
    device: torch.device,
    folder: Path,
    inputs: Mapping[str, str],
    log: Log,
    on_epoch: Callable[[int], None],
) -> None:
    """Trains a method to the end of its epochs, from its newest checkpoint if there is one.

    Step s of a stage is a pure function of (seed, stage, s) and the weights before it, so a run that
    was interrupted ends in the same weights as one that was not.

    Args:
        method: See `Method`.
        optimizer: Holds the peak rates.
        dataset: Where the batches come from.
        views: Makes the views of a batch.
        sampler: Which samples make up step s.
        pace: Lengths and precision.
        cells: (N,) int64, the cell of each sample.
        identities: (N,) int64; samples of one identity are never negatives.
        seed: The run's seed.
        stage: The number of the stage.
        device: Where to train.
        folder: Where the checkpoints go.
        inputs: What the training is made of; a checkpoint made of something else is refused.
        log: Takes a record and the z of its step, every `log_every` steps.
        on_epoch: Called after each epoch with the number of epochs done.

    Raises:
        NumericalError: A loss or the weights are not finite; the last good checkpoint stays.
        RunError: The checkpoints are all damaged, or made from something else.
        Stopped: A signal came; the step in hand is saved.
    """
    total = pace.epochs * len(sampler)
    peaks = [group["lr"] for group in optimizer.param_groups]
    place(method, pace.precision, device)
    start = checkpoints.restore(folder, method, optimizer, inputs)
    method.train()
    clock, saved = Clock(), time.monotonic()
    with rng.seeded(seed, "training", stage):
        batches = iter(loader(dataset, sampler, start, total, pace))
        for step in range(start, total):
            rng.reseed(seed, "step", stage, step)
            batch = next(batches)
            share = optim.rate(step, total=total, warmup=round(pace.warmup_epochs * len(sampler)))
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            made = views(with_ids(to_device(batch, device), cells, identities), Address(seed, stage, step))
            loss, z = one_step(method, optimizer, made, pace.precision, device)
            _check_loss(loss, stage, step, batch)
            done = step + 1
            clock.count(len(batch["index"]))
            last, epoch_ends = done == total, done % len(sampler) == 0
            due = time.monotonic() - saved > pace.checkpoint_seconds or interrupts.requested()
            if done % pace.log_every == 0 or epoch_ends or due:
                log(_record(step, len(sampler), float(loss), share * max(peaks), clock), z)
            if epoch_ends:
                on_epoch(done // len(sampler))
            if due or last:
                _check_weights(method, stage, step)
            if due and not last:
                checkpoints.save(folder, done, method, optimizer, inputs)
                saved = time.monotonic()
                interrupts.raise_if_requested()


def place(method: nn.Module, precision: str, device: torch.device) -> None:
    """Moves a method to a device; with bf16, convolutions get the layout in which they are fastest."""
    method.to(device)
    if precision == "bf16" and any(parameter.ndim == 4 for parameter in method.parameters()):
        method.to(memory_format=torch.channels_last)


def one_step(
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    views: list[Batch],
    precision: str,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Forward, backward and update; gives the loss and z, both detached."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss, z = cast(Method, method).step(views)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach(), z.detach()


def loader(
    dataset: Dataset, sampler: CellBatchSampler, start: int, total: int, pace: Pace
) -> DataLoader[Batch]:
    """The batches of steps start..total. The loop owns the step, so prefetching loses none."""

    def steps() -> Iterator[list[int]]:
        for step in range(start, total):
            yield sampler.batch(*divmod(step, len(sampler))).tolist()

    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=steps(),
        collate_fn=dataset.collate,
        num_workers=pace.num_workers,
        timeout=300 if pace.num_workers else 0,
    )


def with_ids(batch: Batch, cells: NDArray[np.int64], identities: NDArray[np.int64]) -> Batch:
    """The batch with the cell and the identity of its samples."""
    index, device = batch["index"].cpu().numpy(), batch["index"].device
    return {
        **batch,
        "cell": torch.from_numpy(cells[index]).to(device),
        "identity": torch.from_numpy(identities[index]).to(device),
    }


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


def _check_loss(loss: Tensor, stage: int, step: int, batch: Batch) -> None:
    if not torch.isfinite(loss):
        some = ", ".join(map(str, batch["index"][:8].tolist()))
        raise NumericalError(
            f"stage {stage}, step {step}: the loss is {float(loss)}. The batch held samples {some}, ... "
            f"{_REMEDY}"
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
