"""`precision: auto`: a few steps in each precision and layout, measured once, before a run begins."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from overtone import rng
from overtone.contracts import Address, Batch, Views
from overtone.embedding import to_device
from overtone.errors import RecipeError
from overtone.gradients import gradients_of
from overtone.optim import build_optimizer
from overtone.run_folder import Parts
from overtone.training import place

STEPS = 3  # of each way, after one to warm up
AT_MOST = 64  # samples a step, so that a large network takes seconds


class Way(NamedTuple):
    """How to compute: see `Parts.precision` and `Parts.layout`."""

    precision: str
    layout: str | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, self))


# With how much faster each has to be than what stands before it: rounding less is worth something.
WAYS = {Way("fp32"): 1.0, Way("fp32", "channels_last"): 1.05, Way("bf16"): 1.1}


def calibrated(parts: Parts, line: Callable[[str], None]) -> Way:
    """The fastest way to train stage 0 of a run on this machine; `line` takes what it measured.

    Raises:
        RecipeError: There are several processes, which might disagree.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            "precision: auto measures with one process; with several say precision=fp32 or bf16."
        )
    dataset, stage = parts.dataset, parts.stages[0]
    rows = range(min(AT_MOST, stage.batch_size, len(dataset)))
    batch = dataset.collate([dataset[row] for row in rows])

    def method() -> nn.Module:
        return parts.method(parts.encoder(0))

    found = speeds(method, parts.views, batch, parts.device)
    way = fastest(found)
    told = ", ".join(f"{each} {speed:,.0f}" for each, speed in found.items())
    line(f"precision: auto takes {way} (samples/s, {len(rows)} at a time: {told}).")
    return way


def fastest(found: Mapping[Way, float]) -> Way:
    """The way to take, by the samples per second of each.

    >>> fastest({Way("fp32"): 100.0, Way("fp32", "channels_last"): 104.0, Way("bf16"): 109.0})
    Way(precision='fp32', layout=None)
    """
    return max(found, key=lambda way: found[way] / WAYS[way])


def speeds(
    method: Callable[[], nn.Module],
    views: Views,
    batch: Batch,
    device: torch.device,
    ways: Collection[Way] = WAYS,
) -> dict[Way, float]:
    """Samples per second of whole steps in each way; they take turns.

    Without convolutions layouts are left out.

    Args:
        method: Makes what is trained; see `overtone.gradients.Method`.
        views: Makes the views of the batch.
        batch: The samples of every step.
        device: Where to compute.
        ways: Which to measure.
    """
    n = len(batch["index"])
    batch = {**batch, "cell": torch.zeros(n, dtype=torch.int64), "identity": torch.arange(n)}
    with rng.seeded(0, "calibration"):
        made = {way: method() for way in ways}
        if not any(p.ndim == 4 for one in made.values() for p in one.parameters()):
            made = {way: one for way, one in made.items() if way.layout is None or len(ways) == 1}
        steps = {way: _step(one, way, views, batch, device) for way, one in made.items()}
        taken: dict[Way, list[float]] = {way: [] for way in steps}
        for number in range(STEPS + 1):
            for way, step in steps.items():
                began = time.perf_counter()
                step(number)
                taken[way].append(time.perf_counter() - began)
    return {way: n / float(np.median(seconds[1:])) for way, seconds in taken.items()}


def _step(
    method: nn.Module, way: Way, views: Views, batch: Batch, device: torch.device
) -> Callable[[int], float]:
    place(method, way.precision, device, way.layout)
    optimizer = build_optimizer(method, name="adamw", lr=1e-3, weight_decay=0.0)
    gradients = gradients_of(method.train(), way.precision, device)

    def step(number: int) -> float:
        optimizer.zero_grad()
        loss, _ = gradients(views(to_device(batch, device), Address(0, 0, number)))
        optimizer.step()
        return float(loss)  # which waits for the device

    return step
