"""Folders that are there whole or not at all: how everything a run keeps gets onto the disk.

A folder is written beside its final place, every file and the folder are synced, a manifest with
SHA-256 is written last, then the folder is renamed. So a folder with its name is complete, and
`verify` can tell whether it still is what was written.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from multiprocessing.util import register_after_fork
from pathlib import Path
from typing import Any

from overtone.errors import DiskError, RunError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_DISK = (*_FULL, errno.EACCES, errno.EIO)


@contextmanager
def writing(folder: Path, inputs: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Gives an empty folder to write into, which takes its final name only when the block succeeds.

    Args:
        folder: The final place; what stood there is replaced.
        inputs: Name -> digest of what this artifact was made from, kept in the manifest.

    Raises:
        DiskError: The disk is full or cannot be written; nothing is left behind.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "encoder"
    >>> with writing(place) as folder:
    ...     _ = (folder / "note.txt").write_text("hello")
    >>> sorted(p.name for p in place.iterdir()), sorted(verify(place)["files"])
    (['manifest.json', 'note.txt'], ['note.txt'])
    """
    beside = folder.with_name(f".{folder.name}.writing")
    with disk_errors(folder):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    try:
        with disk_errors(folder, _FULL):  # the block may read elsewhere, and fail at that
            yield beside
        with disk_errors(folder):
            _seal(beside, dict(inputs or {}))
            _replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose files are all as they were written.

    Raises:
        RunError: The folder or a file is missing, or a file has changed; the message names it.
    """
    if not (folder / MANIFEST).is_file():
        raise RunError(f"{folder}: no {MANIFEST}; this folder is missing or was not written to its end.")
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    try:
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
        dict(manifest["inputs"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise RunError(f"{folder / MANIFEST}: damaged: it does not list files and inputs.") from None
    for name, (n_bytes, sha256) in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise RunError(f"{folder / MANIFEST}: damaged: it names {name!r}, outside its folder.")
        if not path.is_file():
            raise RunError(f"{path}: missing, although {MANIFEST} lists it.")
        if path.stat().st_size != n_bytes or _sha256(path) != sha256:
            raise RunError(f"{path}: damaged: its SHA-256 is not the one in {MANIFEST}.")
    return manifest


def require_inputs(folder: Path, manifest: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Refuses an artifact that was made from something else than `inputs`.

    Raises:
        RunError: The message names the first input that differs, then and now.
    """
    for name, value in inputs.items():
        if (before := manifest["inputs"].get(name)) != value:
            raise RunError(
                f"{folder}: was made from another {name}: {before or 'none'}, now {value}. The data, the "
                "recipe or an earlier stage has changed since. Choose another folder with --out, or remove "
                "this one."
            )


def is_complete(folder: Path) -> bool:
    """Whether a folder was written to its end (its content is not checked)."""
    if not folder.exists() and (old := _old(folder)).exists():  # interrupted while it was replaced
        old.rename(folder)
    return (folder / MANIFEST).is_file()


def digest(folder: Path) -> str:
    """What names this artifact among the inputs of the next: the SHA-256 of its manifest."""
    return _sha256(folder / MANIFEST)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    beside = path.with_name(f".{path.name}.writing")
    with disk_errors(path):
        beside.write_text(text, encoding="utf-8")
        _sync(beside)
        beside.replace(path)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        RunError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: missing.") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not readable as JSON ({error}).") from None


@contextmanager
def timed(place: Path) -> Iterator[None]:
    """Adds the seconds of the block to those in a file: what something has cost, interruptions included."""
    make_folder(place.parent)
    before, began = read_json(place) if place.exists() else 0.0, time.monotonic()
    try:
        yield
    finally:
        write_json(place, round(before + time.monotonic() - began, 2))


class Lines:
    """A file of JSON lines that is only ever appended to, each line on the disk at once.

    A full disk must not end a training for the sake of its log: it is said once, and lines are lost.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lost = path, False
        _end_last_line(path)
        with disk_errors(path):
            # Without a buffer, so that a record is there at once and closing cannot fail.
            self._handle = path.open("ab", buffering=0)

    def add(self, record: Mapping[str, Any]) -> None:
        """Appends a record."""
        line, end = json.dumps(record).encode() + b"\n", os.fstat(self._handle.fileno()).st_size
        try:
            if self._handle.write(line) != len(line):  # the last bytes of a disk take what they can
                self._handle.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._lost:
                logger.warning("%s: lines are lost: %s. %s", self.path, error.strerror, _free(self.path))
            self._lost = True

    def close(self) -> None:
        """Closes the file."""
        self._handle.close()


def _end_last_line(path: Path) -> None:
    """Removes the half of a line that a killed process may have left at the end."""
    if path.is_file():
        with disk_errors(path), path.open("r+b") as handle:
            handle.truncate(handle.read().rfind(b"\n") + 1)


def make_folder(folder: Path) -> None:
    """Makes a folder to write into, if it is not there.

    Raises:
        RunError: A file is in its way.
        DiskError: It cannot be written.
    """
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise RunError(f"{folder}: is a file, or lies in one; choose another folder with --out.") from None


@contextmanager
def locked(folder: Path, name: str = "lock") -> Iterator[None]:
    """Holds a lock of a folder: the one of its run, or another by name.

    Raises:
        RunError: Another process holds it; the message names its pid.
    """
    make_folder(folder)
    with disk_errors(folder):
        handle = (folder / name).open("a+")
    with handle:
        # A worker process that outlives a killed run must not hold its lock.
        register_after_fork(handle, TextIOWrapper.close)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise RunError(
                f"{folder}: locked by process {handle.read().strip() or 'unknown'}, which is working in it. "
                "Wait for it, stop it, or choose another folder with --out."
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


@contextmanager
def disk_errors(place: Path, kinds: tuple[int, ...] = _DISK) -> Iterator[None]:
    """Turns a full or read-only disk into a `DiskError` that names the place."""
    try:
        yield
    except OSError as error:
        # Of a short write NumPy tells the two sizes alone.
        short_write = error.errno is None and "requested and" in str(error)
        if error.errno not in kinds and not short_write:
            raise
        raise DiskError(
            f"{place}: cannot be written: {error.strerror or error}. {_free(place)} What was complete before "
            "is intact; free some space or choose another folder, then run `overtone resume`."
        ) from error


def _free(place: Path) -> str:
    existing = next(p for p in (place, *place.parents) if p.exists())
    return f"{shutil.disk_usage(existing).free / 1e6:,.0f} MB are free there."


def _seal(folder: Path, inputs: dict[str, str]) -> None:
    paths = sorted(folder.rglob("*"))
    for path in paths:
        _sync(path)
    entries = {
        p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": _sha256(p)}
        for p in paths
        if p.is_file()
    }
    write_json(folder / MANIFEST, {"files": entries, "inputs": inputs})
    _sync(folder)


def _replace(beside: Path, folder: Path) -> None:
    old = _old(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    _sync(folder.parent)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    total = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            total.update(block)
    return total.hexdigest()
