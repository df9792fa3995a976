"""Pictures that are already an array, in memory or in a .npy or .npz file."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from overtone.datasets.cache import available_memory
from overtone.datasets.images import ImageDataset, Source
from overtone.datasets.labels import labelled
from overtone.datasets.reading import Reading, read_images
from overtone.errors import DataError, RecipeError
from overtone.npy import check_header, mapped

if TYPE_CHECKING:
    from typing_extensions import Unpack


def arrays(
    images: NDArray[Any] | Tensor | str | os.PathLike[str],
    labels: Mapping[str, Sequence[Any] | NDArray[Any] | Tensor] | None = None,
    ids: Sequence[str] | None = None,
    *,
    channels_last: bool | None = None,
    **options: Unpack[Reading],
) -> ImageDataset:
    """A dataset from one array of pictures.

    Args:
        images: (N, H, W), (N, C, H, W) or (N, H, W, C); uint8, uint16, bool or floating point. Or the path
            of a .npy file, or of a .npz file with one such array, whose 1-D arrays become attributes.
        labels: Attribute -> N numbers or strings; None, blank or -1 where there is none.
        ids: N names; by default the row numbers.
        channels_last: Where the channels are; by default the axis with at most 4, if only one has.
        **options: See `Reading`.

    Raises:
        RecipeError: The channels cannot be told.
        DataError: Labels or ids do not match the pictures, or a file is not what it says.

    >>> dataset = arrays(np.zeros((2, 8, 8), np.uint8), {"side": ["left", ""]})
    >>> dataset.image_shape, dataset.labels["side"].tolist()
    ((1, 8, 8), [0, -1])
    """
    source = arrays_source(images, labels, ids, channels_last=channels_last)
    if options.get("cache_dir") is not None:
        source = replace(source, stamp=_stamp(source))
    return read_images(source, **options)


def arrays_source(
    images: NDArray[Any] | Tensor | str | os.PathLike[str],
    labels: Mapping[str, Sequence[Any] | NDArray[Any] | Tensor] | None = None,
    ids: Sequence[str] | None = None,
    *,
    channels_last: bool | None = None,
) -> Source:
    """The pictures of `arrays`, not yet brought to one size."""
    name, found = "arrays", dict(labels or {})
    if isinstance(images, (str, os.PathLike)):
        name = Path(images).name
        images, more = _opened(Path(images))
        found = {**more, **found}
    array = np.asarray(images)
    array = _channels_first(array, channels_last) if array.ndim == 4 else array
    if array.ndim not in (3, 4):
        raise DataError(f"{name}: shape {array.shape}; expected (N, H, W), (N, C, H, W) or (N, H, W, C)")
    coded = labelled({k: np.asarray(v).tolist() for k, v in found.items()}, {}, len(array), name)
    if ids is not None and len(ids) != len(array):
        raise DataError(f"{name}: {len(ids):,} ids for {len(array):,} images; give one each")
    return Source(
        name,
        list(map(str, range(len(array)) if ids is None else ids)),
        partial(_row, array),
        coded.codes,
        coded.names,
    )


def _row(array: NDArray[Any], row: int) -> NDArray[Any]:
    image: NDArray[Any] = array[row]
    return image


def _stamp(source: Source) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for row in range(len(source.ids)):
        image = np.asarray(source.read(row))
        digest.update(repr((image.shape, str(image.dtype))).encode() + image.tobytes())
    return digest.hexdigest()


def _channels_first(array: NDArray[Any], channels_last: bool | None) -> NDArray[Any]:
    if channels_last is None:
        first, last = array.shape[1] <= 4, array.shape[3] <= 4
        if first == last:
            raise RecipeError(
                f"channels_last: cannot tell for the shape {array.shape}; "
                "give True for (N, H, W, C) or False for (N, C, H, W)"
            )
        channels_last = last
    return array.transpose(0, 3, 1, 2) if channels_last else array


def _opened(path: Path) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a .npy or .npz file")
    try:
        return (mapped(path), {}) if path.suffix == ".npy" else _unzipped(path)
    except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable .npy or .npz file: {error}") from error


def _unzipped(path: Path) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > available_memory():
                raise DataError(f"{path}: {member.filename} unpacks to {member.file_size:,} bytes: too large")
            with archive.open(member) as file:
                check_header(file, member.file_size)
    with np.load(path, allow_pickle=False) as file:
        found = {key: file[key] for key in file.files}
    pictures = [key for key, array in found.items() if array.ndim >= 3]
    if len(pictures) != 1:
        shapes = ", ".join(f"{key} {array.shape}" for key, array in found.items())
        raise DataError(f"{path}: expected one array of images (3 or 4 axes), found {shapes or 'nothing'}")
    images = found.pop(pictures[0])
    return images, {key: array for key, array in found.items() if array.shape == (len(images),)}
