"""One door to whatever lies at a path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from overtone.datasets.arrays import arrays
from overtone.datasets.folder import EXTENSIONS, image_folder
from overtone.datasets.images import ImageDataset
from overtone.datasets.parquet import parquet
from overtone.errors import DataError


def open_dataset(path: str | os.PathLike[str], **options: Any) -> ImageDataset:
    """The dataset at a path: a .parquet, .npy or .npz file, or a folder of .parquet files or of images.

    Args:
        path: Where it lies.
        **options: Those of `parquet`, `arrays` or `image_folder`, whichever reads it.

    Raises:
        DataError: Nothing there is known.
    """
    place = Path(path)
    if place.suffix == ".parquet" or (place.is_dir() and next(place.rglob("*.parquet"), None)):
        return parquet(place, **options)
    if place.suffix in (".npy", ".npz"):
        return arrays(place, **options)
    if place.is_dir():
        return image_folder(place, **options)
    what = "is no such file" if place.exists() else "does not exist"
    raise DataError(
        f"{place} {what} (in folder {Path.cwd()}); expected a .parquet, .npy or .npz file, "
        f"a folder of .parquet files, or a folder of images (*{', *'.join(EXTENSIONS)})"
    )
