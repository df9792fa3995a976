"""Candidates for blind pairs in pictures of one's own: `overtone data blind-pairs`."""

from __future__ import annotations

import csv
import logging
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from overtone import artifacts
from overtone.datasets import open_dataset
from overtone.datasets.decoding import Framing, decoded
from overtone.datasets.images import Source
from overtone.datasets.opening import open_source
from overtone.embedding import embed
from overtone.errors import DataError, RecipeError
from overtone.evaluation.blind_spots import ALIKE, DIFFERENT, BlindSpot, blind_spots
from overtone.evaluation.pairs_csv import COLUMNS
from overtone.npy import mapped
from overtone.progress import Display
from overtone.readers import PIXELS, reader_of
from overtone.recipe.schema import device_name
from overtone.report.sheet import picture, sheet
from overtone.text import utf8

logger = logging.getLogger(__name__)

SHOWN = 20


class Found(NamedTuple):
    """The pairs of `n` pictures, and where they were written; nothing is written without any."""

    n: int
    pairs: list[BlindSpot]
    sheet: Path


def find_pairs(
    data: Path,
    encoder: str,
    out: Path,
    display: Display,
    *,
    other: str = PIXELS,
    alike: float = ALIKE,
    different: float = DIFFERENT,
    most: int = 300,
    per_picture: int = 1,
    trust: bool = False,
) -> Found:
    """Finds pairs and writes them for `overtone evaluate --task pairs`, all but what they say.

    Args:
        data: Pictures, any source of `open_dataset`.
        encoder: That may be blind: a run folder; "open_clip:MODEL:TAG", "hf:MODEL",
            "timm:MODEL" or "torchvision:MODEL" with published weights; or a .npy file with a row a picture.
        out: A new CSV file; the first pairs are shown in a .png file of its name.
        display: Shows how far it is.
        other: That tells the pictures apart: the same, or "pixels", the correlation of small pictures.
        alike: See `blind_spots`.
        different: See `blind_spots`.
        most: The most pairs.
        per_picture: The most pairs with the same picture.
        trust: Whether code that a run's recipe names may be imported.

    Raises:
        RecipeError: An encoder is unknown, or `out` is there already.
        DataError: The data cannot be read, or a .npy file has other rows.
    """
    if out.suffix != ".csv" or not out.parent.is_dir():
        raise RecipeError(f"--out {out}: expected a .csv file in an existing folder.")
    if out.exists():
        raise RecipeError(f"--out {out}: is there already, perhaps filled in; choose another name.")
    source, device = open_source(data), torch.device(device_name("auto"))
    readers = [None if name.endswith(".npy") else reader_of(name, trust) for name in (encoder, other)]
    ids = source.ids
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".blind-pairs-") as beside:
        embedded: list[NDArray[Any]] = []
        for number, (name, reader) in enumerate(zip((encoder, other), readers, strict=True)):
            if reader is None:
                embedded.append(_mapped(Path(name)))
                continue
            dataset = open_dataset(data, cache="none", **reader.options)
            ids = dataset.ids
            advance = partial(display.advance, f"embeds with {utf8(name)}")
            place = Path(beside) / f"{number}.npy"
            embedded.append(embed(reader.module, dataset, device=device, out=place, progress=advance))
        for name, array in zip((encoder, other), embedded, strict=True):
            if len(array) != len(ids):
                raise DataError(
                    f"{name}: {len(array):,} rows, but {data} holds {len(ids):,} pictures that can be read; "
                    "make it with `overtone embed`, a row a picture."
                )
        found = blind_spots(
            *embedded,
            alike=alike,
            different=different,
            most=most,
            per_sample=per_picture,
            device=device,
            progress=partial(display.advance, "compares"),
        )
    rows = {name: row for row, name in enumerate(source.ids)}  # without those that cannot be read
    pairs = [pair._replace(first=rows[ids[pair.first]], second=rows[ids[pair.second]]) for pair in found]
    if pairs:
        _write(out, pairs, source, data)
        _shown(pairs, source).save(out.with_suffix(".png"))
    return Found(len(ids), pairs, out.with_suffix(".png"))


def _mapped(path: Path) -> NDArray[Any]:
    try:
        return mapped(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an array: {error}") from None


def _write(out: Path, pairs: Sequence[BlindSpot], source: Source, data: Path) -> None:
    with artifacts.disk_errors(out), out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, "cosine", "other_cosine"))
        for pair in pairs:
            images = [_file_of(row, source, data, out) for row in (pair.first, pair.second)]
            writer.writerow((*images, "", "", "", f"{pair.cosine:.4f}", f"{pair.other_cosine:.4f}"))


def _file_of(row: int, source: Source, data: Path, out: Path) -> str:
    """A picture's path from the folder of the CSV file; one that is no file of its own is written to one."""
    name = source.ids[row]
    for folder in (data, data.parent):
        found = os.path.relpath(folder / name, out.parent)
        if (folder / name).is_file() and utf8(found) == found.strip():
            return found
    place = out.with_name(f"{out.stem}-pictures") / f"{row}.png"
    place.parent.mkdir(exist_ok=True)
    picture(_picture(source, row), scale=1).save(place)
    return str(place.relative_to(out.parent))


def _picture(source: Source, row: int) -> Tensor:
    return torch.tensor(decoded(source.read(row), Framing.of(None, None, "crop")))


def _shown(pairs: Sequence[BlindSpot], source: Source) -> Any:
    """A sheet of the first pairs, numbered by their lines in the file."""
    texts = [
        [f"line {line}", f"cosine {pair.cosine:.2f}", f"other {pair.other_cosine:.2f}"]
        for line, pair in enumerate(pairs[:SHOWN], 2)
    ]
    tiles = [[picture(_picture(source, row)) for row in pair[:2]] for pair in pairs[:SHOWN]]
    return sheet("Alike for one encoder, different for the other", texts, tiles)
