"""A recipe for a folder of images when nobody wrote one: size, encoder and epochs by the data and the time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from overtone import rng
from overtone.contracts import Address
from overtone.datasets import Source, arrays, open_source
from overtone.datasets.decoding import FORMATS
from overtone.errors import DataError
from overtone.methods import SimCLR
from overtone.optim import build_optimizer
from overtone.recipe import Recipe, parse
from overtone.recipe.building import encoder_for
from overtone.recipe.origin import override
from overtone.training import one_step, place
from overtone.views import ImageViews

SIZES = (32, 48, 64, 96)  # on CPUs; larger pictures cost time that goes further in epochs
PRESENTATIONS = 400_000  # samples shown a stage when no time is given
FEWEST = 32
STEPS = 5  # of calibration, after one to warm up
SHARE = 0.85  # of the time goes into training; decoding, embedding and clustering take the rest


class Plan(NamedTuple):
    """What was chosen, and what it is expected to take.

    Attributes:
        recipe: The values of a recipe.
        samples_per_second: Measured on this machine, on one process.
        seconds: Expected for all runs together, one after the other.
    """

    recipe: dict[str, Any]
    samples_per_second: float
    seconds: float


def recipe_for(
    data: Path,
    overrides: Sequence[str],
    minutes: float | None,
    *,
    presentations: int,
    line: Callable[[str], None],
) -> Recipe:
    """Chooses a recipe, says what was chosen and how long it will take, then applies the overrides.

    Args:
        data: A folder of images, or another source that `open_dataset` knows.
        overrides: `key.path=value`.
        minutes: About how long everything may take; None chooses the epochs by the data.
        presentations: How many trainings of one stage the whole command stands for, one after the other.
        line: Takes what to tell the person.

    Raises:
        DataError: Nothing there can be read, or there are too few images.
    """
    source = open_source(data)
    count = len(source.ids)
    if count < FEWEST:
        raise DataError(f"{data}: {count} images; expected at least {FEWEST} to learn what tells them apart.")
    plan = _plan(data, source, minutes, presentations)
    for assignment in overrides:
        override(plan.recipe, assignment)
    recipe = parse(plan.recipe)
    size, epochs = plan.recipe["data"].get("image_size"), recipe.stage_specs()[0].epochs
    line(
        f"{data}: {count:,} images, read at {size} pixels; encoder {recipe.encoder['name']}, {recipe.precision}."
    )
    line(
        f"{len(recipe.stage_specs())} stages of {epochs} epochs at about {plan.samples_per_second:,.0f} samples/s: "
        f"about {max(1, round(plan.seconds / 60))} min. Set --minutes or train.epochs=... to change it."
    )
    return recipe


def _plan(data: Path, source: Source, minutes: float | None, presentations: int) -> Plan:
    count, size = len(source.ids), _working_size(source)
    batch_size = min(256, max(8, count // 8))
    encoder = {"name": "resnet18_cifar" if torch.cuda.is_available() else "small_cnn"}
    precision, speed = _fastest(encoder, size, batch_size)
    per_epoch = presentations * count / speed / SHARE
    epochs = (minutes * 60 / per_epoch) if minutes else PRESENTATIONS / count
    epochs = int(min(200, max(1, epochs)))
    recipe: dict[str, Any] = {
        "data": {"source": "path", "path": str(data), "image_size": size},
        "encoder": encoder,
        "views": {"name": "image"},
        "train": {"epochs": epochs, "batch_size": batch_size},
        "stages": 3,
        "precision": precision,
    }
    return Plan(recipe, speed, epochs * per_epoch)


def _working_size(source: Source) -> int:
    """The largest of a few sizes that does not enlarge a typical picture."""
    chosen = rng.numpy_generator(0, "sizes").choice(len(source.ids), min(64, len(source.ids)), replace=False)
    sides = [side for row in chosen if (side := _shorter_side(source.read(int(row)))) is not None]
    if not sides:
        raise DataError(
            f"{source.name}: none of {len(chosen)} images looked at can be read as {', '.join(FORMATS)}."
        )
    typical = float(np.median(sides))
    return max((size for size in SIZES if size <= typical), default=SIZES[0])


def _shorter_side(content: Any) -> int | None:
    """From the header alone; None for what is no picture, which the reading pass will name."""
    if isinstance(content, np.ndarray):
        return min(content.shape[-2:])
    try:
        with (
            Image.open(BytesIO(content), formats=FORMATS) if isinstance(content, bytes) else content as image
        ):
            width, height = image.size
            return int(min(width, height))
    except (OSError, Image.DecompressionBombError):
        return None


def _fastest(encoder: dict[str, Any], size: int, batch_size: int) -> tuple[str, float]:
    """The faster precision on this machine and its samples per second, from a few steps of each."""
    speeds = {precision: _speed(encoder, size, batch_size, precision) for precision in ("fp32", "bf16")}
    fastest = max(speeds, key=lambda precision: speeds[precision] * (1.1 if precision == "fp32" else 1))
    return fastest, speeds[fastest]


def _speed(encoder: dict[str, Any], size: int, batch_size: int, precision: str) -> float:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pixels = rng.numpy_generator(0, "calibration").integers(
        0, 256, (batch_size, size, size, 3), dtype=np.uint8
    )
    dataset = arrays(pixels, channels_last=True)
    batch = dataset.collate([dataset[row] for row in range(batch_size)])
    batch |= {"cell": torch.zeros(batch_size, dtype=torch.int64), "identity": batch["index"]}
    with rng.seeded(0, "calibration"):
        method = SimCLR(encoder_for(encoder, dataset, trained=False))
    place(method, precision, device)
    optimizer = build_optimizer(method, name="adamw", lr=1e-3, weight_decay=0.0)
    views, taken = ImageViews(), []
    for step in range(STEPS + 1):
        began = time.perf_counter()
        one_step(method, optimizer, views(batch, Address(0, 0, step)), precision, device)
        taken.append(time.perf_counter() - began)
    return batch_size / float(np.median(taken[1:]))
