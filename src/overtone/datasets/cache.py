"""Where decoded pictures are kept: in memory, in a file that is mapped, or nowhere."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from multiprocessing.util import register_after_fork
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from overtone.artifacts import disk_errors
from overtone.errors import DataError, DiskError, RecipeError
from overtone.npy import mapped

logger = logging.getLogger(__name__)

Cache: TypeAlias = Literal["auto", "memory", "disk", "none"]


class Contents(NamedTuple):
    """A finished cache folder: the pictures, their fingerprints, and which rows could not be read."""

    images: NDArray[Any]
    fingerprint: str
    digests: NDArray[np.uint64]
    bad: dict[int, str]


def place(cache: Cache, n_bytes: int, folder: Path | None) -> Cache:
    """Decides where `n_bytes` of decoded pictures are kept.

    Args:
        cache: The user's choice; `auto` is memory below a quarter of what is available, else the disk
            where a folder is given and has room, else none.
        n_bytes: How much there is to keep.
        folder: The cache folder to be, or None.

    Raises:
        DiskError: `disk` was asked for and has no room, or the folder cannot be made.
        RecipeError: A file is in the way of the folder.
    """
    if fits_memory(cache, n_bytes):
        return "memory"
    if cache in ("memory", "none") or folder is None:
        return "none" if cache == "auto" else cache
    _make(folder.parent)
    free = shutil.disk_usage(folder.parent).free
    if n_bytes < 0.95 * free:
        return "disk"
    if cache == "auto":
        return "none"
    raise DiskError(
        f"cache_dir={folder.parent}: the decoded images take {n_bytes:,} bytes and {free:,} are free; "
        "make room, choose another cache_dir, a smaller image_size, or cache='none'"
    )


def _make(cache_dir: Path) -> None:
    try:
        with disk_errors(cache_dir):
            cache_dir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise RecipeError(
            f"cache_dir={cache_dir}: is a file, or lies in one; choose another folder"
        ) from None


def fits_memory(cache: Cache, n_bytes: int) -> bool:
    """Whether `auto` keeps so much in memory."""
    return cache == "auto" and n_bytes < available_memory() / 4


def available_memory() -> int:
    """Bytes that can be taken without swapping, within the limits of a Linux container."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux: half of what is built in
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no limit
        return available
    return min(available, limit - used)


def opened(folder: Path) -> Contents | None:
    """A finished cache folder, or None. Only whole ones exist: they are renamed into place."""
    if not folder.is_dir():
        return None
    try:
        index = json.loads((folder / "index.json").read_text())
        images, digests = mapped(folder / "images.npy"), mapped(folder / "digests.npy")
        bad = {int(row): why for row, why in index["bad"].items()}
        return Contents(images, index["fingerprint"], digests, bad)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: this cache of decoded images is damaged: {error}; delete it") from error


def closed(
    partial: Path,
    images: np.memmap[Any, Any],
    fingerprint: str,
    digests: NDArray[np.uint64],
    bad: dict[int, str],
) -> None:
    """Brings the pictures to the disk and writes what must be known of them beside.

    Raises:
        DiskError: There is no room, or the disk fails.
    """
    with disk_errors(partial):
        images.flush()
        np.save(partial / "digests.npy", digests, allow_pickle=False)
        with (partial / "index.json").open("w") as file:
            json.dump({"fingerprint": fingerprint, "bad": bad}, file)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Waits until no other process fills `folder`: of several that start together one decodes for all.

    Raises:
        DiskError: The folder around it cannot be written.
    """
    lock = folder.with_name(f"{folder.name}.lock")
    _make(lock.parent)
    with disk_errors(lock):
        handle = lock.open("a")
    with handle:
        register_after_fork(handle, TextIOWrapper.close)  # as in `artifacts.locked`
        with suppress(OSError):  # no locks on this disk: each decodes by itself, and the first one's stays
            _wait(handle, folder)
        try:
            yield
        finally:
            # Who opened it before waits on and then finds the folder; a new one costs a second copy at most.
            lock.unlink(missing_ok=True)


def _wait(handle: TextIOWrapper, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("%s: waits for another process that decodes the same images", folder)
        fcntl.flock(handle, fcntl.LOCK_EX)


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place when the block ends well and vanishes otherwise.

    Raises:
        DiskError: It cannot be made or renamed.
    """
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    with disk_errors(partial):
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed and had the same number
        partial.mkdir(parents=True)
    try:
        yield partial
        try:
            with disk_errors(folder):
                partial.rename(folder)
        except (OSError, DiskError):
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
