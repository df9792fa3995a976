"""One door to whatever lies at a path."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from overtone.datasets.arrays import arrays, arrays_source
from overtone.datasets.folder import EXTENSIONS, folder_source, image_folder
from overtone.datasets.images import ImageDataset, Source
from overtone.datasets.parquet import parquet, parquet_source
from overtone.errors import DataError


def open_dataset(path: str | os.PathLike[str], **options: Any) -> ImageDataset:
    """The dataset at a path: a .parquet, .npy or .npz file, or a folder of .parquet files or of images.

    Args:
        path: Where it lies.
        **options: Those of `parquet`, `arrays` or `image_folder`, whichever reads it.

    Raises:
        DataError: Nothing there is known.

    >>> open_dataset("nowhere.parquet")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    overtone.errors.DataError: nowhere.parquet: no such file ...
    """
    place = Path(path)
    readers: dict[str, Callable[..., ImageDataset]] = {
        "parquet": parquet,
        "arrays": arrays,
        "folder": image_folder,
    }
    return readers[_kind(place)](place, **options)


def open_source(path: str | os.PathLike[str], *, follow_links: bool = False) -> Source:
    """The pictures at a path, not yet read: how many there are, and the content of each."""
    place = Path(path)
    sources: dict[str, Callable[..., Source]] = {
        "parquet": partial(parquet_source, follow_links=follow_links),
        "arrays": arrays_source,
        "folder": partial(folder_source, follow_links=follow_links),
    }
    return sources[_kind(place)](place)


def _kind(place: Path) -> str:
    if place.suffix == ".parquet" or (place.is_dir() and next(place.rglob("*.parquet"), None)):
        return "parquet"
    if place.suffix in (".npy", ".npz"):
        return "arrays"
    if place.is_dir():
        return "folder"
    what = "is no such file" if place.exists() else "does not exist"
    raise DataError(
        f"{place} {what} (in folder {Path.cwd()}); expected a .parquet, .npy or .npz file, "
        f"a folder of .parquet files, or a folder of images (*{', *'.join(EXTENSIONS)})"
    )
