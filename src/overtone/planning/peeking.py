"""As much of a recipe's data as a plan needs: how many samples there are, and a few to try an encoder on."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from overtone import rng
from overtone.contracts import Batch, Dataset, Sample
from overtone.datasets import Captioned, Source, arrays, read_captioned, read_images
from overtone.datasets.cache import available_memory
from overtone.datasets.decoding import Framing
from overtone.datasets.opening import KINDS_OF_FILES, open_captions, places
from overtone.datasets.reading import Reading
from overtone.datasets.subset import drawn
from overtone.errors import RecipeError
from overtone.recipe import Recipe
from overtone.recipe.building import build_dataset
from overtone.recipe.components import KINDS, Component

FEW = 16  # samples that are read


class Peek(NamedTuple):
    """What is known of a data set without reading it.

    Attributes:
        dataset: As long as the real one; its samples are a few of it, or stand-ins, over and over.
        opened: Whether the count and the samples are those of the recipe's data.
        stored: Mean bytes of a sample where the data lie; 0 where they are drawn or given in memory, None
            where nobody knows.
        kept: Where decoded samples are kept after the first pass: "memory", "disk" or "none".
        names: Bytes of a file with all ids, a JSON string a line; None where they are not known.
    """

    dataset: Dataset
    opened: bool
    stored: float | None
    kept: str
    names: int | None


def peek(recipe: Recipe, samples: int | None = None) -> Peek:
    """Looks at the training data of a recipe; files are listed and a few of them read.

    Args:
        recipe: Names the data.
        samples: How many there would be, of data that are not here; pictures, and their texts, are then
            stood in for. Data of another kind are opened all the same, for an example.

    Raises:
        DataError: There is nothing at the path.
        RecipeError: `samples` without `data.image_size`.

    >>> from overtone.recipe import parse
    >>> found = peek(parse({"data": {"source": "path", "path": "far", "image_size": 32}}), samples=10**9)
    >>> len(found.dataset), found.dataset[0]["image"].shape
    (1000000000, torch.Size([3, 32, 32]))
    """
    if samples is not None and recipe.views["name"] in ("image", "image_text"):
        few = _stand_in(recipe)
        kept = _kept(recipe.data.get("cache", "auto"), samples, few)
        return Peek(_Repeated(few, samples), False, None, kept, None)
    found = _looked_at(recipe.data)
    if samples is None:
        return found
    return found._replace(dataset=_Repeated(found.dataset, samples), opened=False, names=None)


def count(component: Component) -> int:
    """How many samples a component of a recipe names; see `peek`."""
    return len(_looked_at(component).dataset)


class _Repeated:
    """A data set of n samples, which are a few, over and over."""

    labels: dict[str, Any] = {}  # noqa: RUF012
    label_names: dict[str, Any] = {}  # noqa: RUF012
    ids: Sequence[str] = ()
    fingerprint = ""

    def __init__(self, few: Dataset, n: int) -> None:
        self._few, self._n, self.modality = few, n, few.modality

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> Sample:
        return {**self._few[index % len(self._few)], "index": index}

    def collate(self, samples: list[Sample]) -> Batch:
        return self._few.collate(samples)


def _looked_at(component: Component) -> Peek:
    kind = component["source"]
    if kind != "path" and kind not in KINDS_OF_FILES:
        dataset = build_dataset(component)
        return Peek(dataset, True, 0.0, "memory", _names(dataset.ids))
    place = next(iter(inspect.signature(KINDS["data"].names[kind]).parameters))
    reading: Any = {name: value for name, value in component.items() if name in Reading.__annotations__}
    where = places({name: value for name, value in component.items() if name not in ("source", place)})
    source, texts = open_captions(component[place], kind=None if kind == "path" else kind, **where)
    n = min(len(source.ids), reading.pop("limit", None) or len(source.ids))
    rows = drawn(n, min(FEW, n), 0)
    few = source.take(rows)
    options = {**reading, "cache": "none", "max_bad_fraction": 1.0}
    dataset = (
        read_images(few, **options) if texts is None else read_captioned(few, texts.take(rows), **options)
    )
    kept = _kept(reading.get("cache", "auto"), n, dataset)
    return Peek(_Repeated(dataset, n), True, _stored(few), kept, _names(source.ids[:n]))


def _stored(source: Source) -> float:
    found = [source.read(row) for row in range(len(source.ids))]
    sizes = [len(each) if isinstance(each, bytes) else np.asarray(each).nbytes for each in found]
    return float(np.mean(sizes))


def _names(ids: Sequence[str]) -> int:
    return sum(len(json.dumps(name)) + 1 for name in ids)


def _kept(cache: str, n: int, few: Dataset) -> str:
    """Where a run that is started here would keep what it decodes; see `overtone.datasets.cache`."""
    if cache != "auto":
        return cache
    size = n * content_bytes(few)
    if size < available_memory() / 4:
        return "memory"
    return "disk" if size < 0.95 * shutil.disk_usage(".").free else "none"


def content_bytes(dataset: Dataset) -> int:
    """Bytes of the content of a sample, decoded."""
    return int(dataset[0][dataset.modality].nbytes)


def _stand_in(recipe: Recipe) -> Dataset:
    size = recipe.data.get("image_size")
    framing = Framing.of(size, recipe.data.get("channels"), "crop")
    if framing.image_size is None:
        raise RecipeError(
            "data.image_size: needed with --samples, since no picture is looked at; add "
            "data.image_size=224, or leave --samples out."
        )
    shape = (FEW, *framing.image_size, recipe.data.get("channels") or 3)
    pixels = rng.numpy_generator(0, "stand-in").integers(0, 256, shape, dtype=np.uint8)
    pictures = arrays(pixels, channels_last=True)
    if recipe.views["name"] == "image":
        return pictures
    return Captioned(pictures, [f"a photograph of thing number {n} beside another one" for n in range(FEW)])
