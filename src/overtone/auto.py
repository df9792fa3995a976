"""A recipe for a folder of images when nobody wrote one: size, encoder and epochs by data and time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from overtone import rng
from overtone.calibrating import WAYS, Way, fastest, speeds
from overtone.datasets import Source, arrays, open_source
from overtone.datasets.decoding import FORMATS, Framing
from overtone.datasets.opening import KINDS_OF_FILES, places
from overtone.errors import DataError
from overtone.methods import SimCLR
from overtone.progress import duration
from overtone.recipe import Recipe, parse
from overtone.recipe.building import encoder_for
from overtone.recipe.origin import override
from overtone.recipe.schema import device_name
from overtone.views import ImageViews

SIZES = (32, 48, 64, 96)  # on CPUs; larger pictures cost time that goes further in epochs
PRESENTATIONS = 400_000  # samples shown a stage when no time is given
FEWEST = 64  # two cells of thirty, and a few to spare for files that cannot be read
SHARE = 0.85  # of the time goes into training; decoding, embedding and clustering take the rest


def recipe_for(
    data: Path,
    overrides: Sequence[str],
    minutes: float | None,
    *,
    seeds: int,
    baselines: bool,
    line: Callable[[str], None],
) -> Recipe:
    """Chooses a recipe around the overrides, and says what was chosen and how long it will take.

    Args:
        data: A folder of images, or another source that `open_dataset` knows.
        overrides: `key.path=value`; they come before anything that is chosen or measured.
        minutes: About how long everything may take, one run after the other; None chooses the epochs by
            the data.
        seeds: How often everything is run.
        baselines: Whether what the same cost buys without stages is trained too.
        line: Takes what to tell the person.

    Raises:
        DataError: Nothing there can be read, or there are too few images.
        RecipeError: An override is wrong.
    """
    source = _opened(data, overrides)
    count = len(source.ids)
    if count < FEWEST:
        raise DataError(f"{data}: {count} images; expected at least {FEWEST} to learn what tells them apart.")
    values = _values(data, source)
    for assignment in overrides:
        override(values, assignment)
    way, speed = _fastest(parse(values), channels=values["data"].get("channels") or 3)
    values |= {"precision": way.precision, **({"layout": way.layout} if way.layout else {})}
    recipe = parse(values)
    an_epoch = count / speed / SHARE
    if "epochs" not in values["train"]:
        wanted = minutes * 60 / an_epoch / _trainings(recipe, seeds, baselines) if minutes else None
        epochs = int(min(200, max(1, wanted or PRESENTATIONS / count)))
        recipe = parse({**values, "train": {**values["train"], "epochs": epochs}})
    first = recipe.stage_specs()[0]
    size, taken = values["data"].get("image_size"), an_epoch * _epochs(recipe, seeds, baselines)
    line(f"{data}: {count:,} images, read at {size} pixels; encoder {recipe.encoder['name']}, {way}.")
    stages = f"{'up to ' if recipe.stages == 'auto' else ''}{len(recipe.stage_specs())}"
    line(
        f"{stages} stages of {first.epochs} epochs at about {speed:,.0f} samples/s: about "
        f"{duration(taken)}. Set --minutes or train.epochs=... to change it."
    )
    return recipe


def _opened(data: Path, overrides: Sequence[str]) -> Source:
    """The pictures, where the overrides say that they lie; whether all else is right, the recipe says."""
    values: dict[str, Any] = {"data": {}}
    for assignment in overrides:
        override(values, assignment)
    component = values["data"] if isinstance(values["data"], dict) else {}
    kind = component.get("source")
    where = places({name: value for name, value in component.items() if name not in ("source", "path")})
    return open_source(data, kind if kind in KINDS_OF_FILES else None, **where)


def _values(data: Path, source: Source) -> dict[str, Any]:
    return {
        "data": {"source": "path", "path": str(data), "image_size": _working_size(source)},
        "encoder": {"name": "resnet18_cifar" if torch.cuda.is_available() else "small_cnn"},
        "views": {"name": "image"},
        "train": {"batch_size": min(256, max(8, len(source.ids) // 8))},
        "stages": 3,
    }


def _trainings(recipe: Recipe, seeds: int, baselines: bool) -> int:
    """Stages trained in all: with baselines, a plain one beside each but the first, and one as long."""
    stages = len(recipe.stage_specs())
    return seeds * (3 * stages - 1 if baselines else stages)


def _epochs(recipe: Recipe, seeds: int, baselines: bool) -> float:
    mean = sum(stage.epochs for stage in recipe.stage_specs()) / len(recipe.stage_specs())
    return mean * _trainings(recipe, seeds, baselines)


def _working_size(source: Source) -> int:
    """The largest of a few sizes that does not enlarge a typical picture."""
    chosen = rng.numpy_generator(0, "sizes").choice(len(source.ids), min(64, len(source.ids)), replace=False)
    sides = [side for row in chosen if (side := _shorter_side(source, int(row))) is not None]
    if not sides:
        raise DataError(
            f"{source.name}: none of {len(chosen)} images looked at can be read as {', '.join(FORMATS)}."
        )
    typical = float(np.median(sides))
    return max((size for size in SIZES if size <= typical), default=SIZES[0])


def _shorter_side(source: Source, row: int) -> int | None:
    """From the header alone; None for what is no picture, which the reading pass will name."""
    try:
        content = source.read(row)
        if isinstance(content, np.ndarray):
            return int(min(content.shape[-2:]))
        with (
            Image.open(BytesIO(content), formats=FORMATS) if isinstance(content, bytes) else content as image
        ):
            return min(image.size)
    except Exception:  # as in the reading pass: a damaged file raises anything
        return None


def _fastest(recipe: Recipe, channels: int) -> tuple[Way, float]:
    """The fastest way on this machine, or the one asked for, and its samples per second."""
    device, size = torch.device(device_name(recipe.device)), recipe.data.get("image_size")
    batch_size = recipe.stage_specs()[0].batch_size
    height, width = Framing.of(size, channels, "crop").image_size or (SIZES[-1], SIZES[-1])
    pixels = rng.numpy_generator(0, "calibration").integers(
        0, 256, (batch_size, height, width, channels), dtype=np.uint8
    )
    dataset = arrays(pixels, channels_last=True)
    batch = dataset.collate([dataset[row] for row in range(batch_size)])
    asked = "precision" in recipe.model_fields_set and recipe.precision != "auto"
    ways = [Way(recipe.precision, recipe.layout)] if asked else WAYS

    def method() -> SimCLR:
        return SimCLR(encoder_for(recipe.encoder, dataset, trained=False))

    found = speeds(method, ImageViews(), batch, device, ways)
    way = next(iter(found)) if asked else fastest(found)
    return way, found[way]
