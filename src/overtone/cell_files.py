"""Cells on the disk: three vectors as .npy, which are mapped, not read, and can be made without holding them.

`pseudo_labels.npy` is the cell of each sample, `order.npy` the samples grouped by cell, `offsets.npy` where
each cell begins in it and is written last: without it the folder holds labels alone. All are int32 where
their values fit, else int64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone import npy
from overtone.artifacts import disk_errors
from overtone.errors import DataError

Vector = NDArray[np.integer[Any]]
Ids = NDArray[np.int64]

_LABELS, _ORDER, _OFFSETS = "pseudo_labels.npy", "order.npy", "offsets.npy"
_CHUNK = 1 << 23  # samples in memory at once


class Rows(NamedTuple):
    """Samples by cell; see the attributes of a `Partition`."""

    pseudo_labels: Ids
    order: Ids
    offsets: Ids


def narrow(top: int) -> np.dtype[Any]:
    """The narrower of int32 and int64 that holds values up to `top`.

    >>> narrow(2**31 - 1), narrow(2**31)
    (dtype('int32'), dtype('int64'))
    """
    return np.dtype(np.int32 if top <= np.iinfo(np.int32).max else np.int64)


def chunks(labels: Vector | Path) -> Iterator[tuple[int, Vector]]:
    """(place, labels from there on) for stretch after stretch; a file is mapped for one stretch at a time."""
    n = len(labels) if isinstance(labels, np.ndarray) else len(mapped(labels))
    for begin in range(0, n, _CHUNK):
        vector = labels if isinstance(labels, np.ndarray) else mapped(labels)
        yield begin, vector[begin : begin + _CHUNK]


def mapped(file: Path) -> Vector:
    """A vector of integers in a .npy file, mapped read-only.

    The header must promise exactly what the file holds, so none can make it allocate or reach beyond.

    Raises:
        DataError: The file is missing, is no .npy of that kind, or is shorter or longer than its header says.
    """
    try:
        vector = npy.mapped(file)
        require_vector(vector.dtype, vector.shape, "the header")
    except (OSError, ValueError, DataError) as error:
        raise DataError(f"{file}: cannot be read as labels ({error}); build the cells again") from error
    return vector.view(np.ndarray)


def require_vector(dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> None:
    """Refuses what is not a vector of one integer or more."""
    if len(shape) != 1 or shape[0] < 1 or not np.issubdtype(dtype, np.integer):
        raise DataError(f"{name}: {dtype} of shape {shape}, expected a vector of integers, a label a sample")


def save(rows: Rows, folder: Path) -> None:
    """Writes all three files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _OFFSETS).unlink(missing_ok=True)
    n = len(rows.pseudo_labels)
    for name, vector, top in (
        (_LABELS, rows.pseudo_labels, len(rows.offsets)),
        (_ORDER, rows.order, n),
        (_OFFSETS, rows.offsets, n),
    ):
        _save(folder / name, vector.astype(narrow(top), copy=False))


def load(folder: Path) -> Rows | Vector:
    """Maps what `save` or `sort` wrote; labels alone where that is all there is.

    What costs O(n_cells) is checked here. What would read every sample is not: each batch checks the ids that
    it takes from `order` (`Partition.at`), and that labels and order agree is what the digests in the
    manifest of a run's artifact vouch for.

    Raises:
        DataError: A file cannot be mapped, or they do not fit together.
    """
    labels = mapped(folder / _LABELS)
    if not (folder / _OFFSETS).exists():
        return labels
    rows = Rows(labels, mapped(folder / _ORDER), mapped(folder / _OFFSETS))  # type: ignore[arg-type]
    n, offsets = len(labels), rows.offsets
    if len(rows.order) != n:
        raise DataError(
            f"{folder}: {len(rows.order):,} samples in {_ORDER} but {n:,} in {_LABELS}; build the cells again"
        )
    if offsets[0] != 0 or offsets[-1] != n or not (offsets[1:] > offsets[:-1]).all():
        raise DataError(
            f"{folder}: {_OFFSETS} does not ascend from 0 to {n:,}, the labels; build the cells again"
        )
    return rows


def sort(labels: Vector | Path, folder: Path) -> None:
    """Groups samples by label by counting, stretch by stretch; memory is O(labels that differ).

    Args:
        labels: (N,) integers >= 0, or the .npy file that holds them.
        folder: Where the files go.

    Raises:
        DataError: They are not a vector of integers >= 0.
        DiskError: The disk is full.
    """
    if isinstance(labels, np.ndarray):
        require_vector(labels.dtype, labels.shape, "labels")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _OFFSETS).unlink(missing_ok=True)
        offsets = _write_labels(labels, folder / _LABELS)
        _write_order(folder / _LABELS, offsets[:-1].copy(), folder / _ORDER)
        _save(folder / _OFFSETS, offsets)


def _numbering(labels: Vector | Path) -> tuple[int, Callable[[Vector], Vector], int]:
    """How many labels there are, what numbers them anew in ascending order, and how many differ."""
    n, top = 0, 0
    for begin, chunk in chunks(labels):
        if chunk.min() < 0:
            first = int(np.argmax(chunk < 0))
            raise DataError(
                f"labels: {chunk[first]} of sample {begin + first:,}, expected integers >= 0; give unlabelled"
                " samples a label of their own"
            )
        n, top = begin + len(chunk), max(top, int(chunk.max()))
    if top < max(n, 1 << 20):
        seen = np.zeros(top + 1, bool)
        for _, chunk in chunks(labels):
            seen[chunk] = True
        number = np.cumsum(seen, dtype=narrow(top)) - 1
        return n, lambda chunk: number[chunk], int(number[-1]) + 1
    values = reduce(np.union1d, (np.unique(chunk) for _, chunk in chunks(labels)))
    return n, lambda chunk: np.searchsorted(values, chunk), len(values)


def _write_labels(labels: Vector | Path, file: Path) -> Vector:
    """Writes the labels numbered anew; gives the offsets of the cells."""
    n, number, n_cells = _numbering(labels)
    sizes, dtype = np.zeros(n_cells, np.int64), narrow(n_cells)
    with _replacing(file) as handle:
        _write_header(handle, dtype, n)
        for _, chunk in chunks(labels):
            numbered = number(chunk).astype(dtype, copy=False)
            sizes += np.bincount(numbered, minlength=n_cells)
            numbered.tofile(handle)
    offsets = np.zeros(n_cells + 1, narrow(n))
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def _write_order(labels: Path, free: Vector, file: Path) -> None:
    """Writes the samples grouped by cell; `free` is the next free place of each cell, and moves on."""
    n = len(mapped(labels))
    dtype = narrow(n)
    with _replacing(file) as handle:
        _write_header(handle, dtype, n)
        begin = handle.tell()
        for _, chunk in chunks(labels):  # a full disk is an error here, but kills who writes to a map
            handle.write(bytes(len(chunk) * dtype.itemsize))
    order = np.memmap(file, dtype, "r+", begin, (n,))
    for first, chunk in chunks(labels):
        # Sorted by (cell, place) in one number of 64 bits: stable, and what NumPy sorts fastest.
        keyed = chunk.astype(np.int64) * _CHUNK + np.arange(len(chunk))
        keyed.sort()
        cell, place = keyed // _CHUNK, keyed % _CHUNK
        starts = np.flatnonzero(np.diff(cell, prepend=-1))
        counts = np.diff(starts, append=len(cell))
        there = np.arange(len(cell)) + np.repeat(free[cell[starts]] - starts, counts)
        order[there] = first + place
        free[cell[starts]] += counts.astype(free.dtype)


@contextmanager
def _replacing(file: Path) -> Iterator[BinaryIO]:
    """Writes beside the file: what reads or maps the old one, even to write this one, keeps it."""
    beside = file.with_name(f".{file.name}.writing")
    with beside.open("wb") as handle:
        yield handle
    beside.replace(file)


def _save(file: Path, vector: Vector) -> None:
    with _replacing(file) as handle:
        np.save(handle, vector, allow_pickle=False)


def _write_header(handle: BinaryIO, dtype: np.dtype[Any], n: int) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (n,)}
    np.lib.format.write_array_header_1_0(handle, header)
