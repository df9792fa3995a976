"""Arrays in .npy files: mapped only after their header has been checked, created only where they fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from overtone.artifacts import disk_errors

_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
_READERS: dict[tuple[int, int], Callable[[IO[bytes]], _Header]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def mapped(path: Path) -> NDArray[Any]:
    """The array in a .npy file, read-only.

    Raises:
        ValueError: It is none, holds objects (which would be unpickled), or promises more than the file has.
        OSError: The file cannot be read.

    >>> import tempfile
    >>> np.save(path := Path(tempfile.mkdtemp()) / "a.npy", np.arange(3))
    >>> mapped(path).tolist()
    [0, 1, 2]
    """
    with path.open("rb") as file:
        check_header(file, path.stat().st_size)
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def created(path: Path, shape: tuple[int, ...], dtype: Any = np.float32) -> np.memmap[Any, Any]:
    """A new .npy file, mapped for writing, whose room on the disk is taken at once.

    Raises:
        DiskError: There is none.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):
            # A map over a sparse file on a full disk dies of SIGBUS at some later page; this is an error now.
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def check_header(file: IO[bytes], n_bytes: int) -> None:
    """Refuses objects, and headers that do not fit the size of the file, before anything is allocated.

    Raises:
        ValueError: What is wrong.
    """
    version = np.lib.format.read_magic(file)
    if version not in _READERS:
        raise ValueError(f".npy version {version}; expected 1.0 or 2.0")
    shape, _, dtype = _READERS[version](file)
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are never loaded; save numbers")
    promised = dtype.itemsize * int(np.prod(shape, dtype=object))
    if promised != n_bytes - file.tell():
        raise ValueError(
            f"the header says {shape} {dtype}, {promised:,} bytes, "
            f"but {n_bytes - file.tell():,} follow; the file is damaged"
        )
