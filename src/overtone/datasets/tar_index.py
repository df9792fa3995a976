"""Where in tar shards each member lies, found once, so that any sample is read directly.

A shard is read as data: nothing is extracted, names serve as labels alone, and what is no plain file of
a known kind is left out and counted.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone.datasets.cache import beside
from overtone.errors import DataError
from overtone.links import leaves
from overtone.npy import mapped

PICTURES = ("jpg", "jpeg", "png", "webp")
KINDS = (*PICTURES, "txt", "json", "cls")
MOST_MEMBERS = 1_000_000  # of a shard; writers put some thousand samples into one
MOST_BYTES = 1 << 28  # of a member
_MOST_HEADER = 1 << 20  # long names and extended headers

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard

_FOLDER = ".overtone-index"
_VERSION = 1
_MEMBER = np.dtype([("sample", "<i8"), ("shard", "<i4"), ("kind", "<i4"), ("offset", "<i8"), ("size", "<i8")])

logger = logging.getLogger(__name__)


class Scan(NamedTuple):
    """What one shard holds.

    Attributes:
        members: (key, kind, offset, size) of each that is used, in their order.
        refused: Reason -> how many members were left out for it.
        ignored: How many members are of other kinds than `KINDS`.
        damage: Why the rest of the shard could not be read; blank where all was.
    """

    members: list[tuple[str, int, int, int]]
    refused: Counter[str]
    ignored: int
    damage: str


class TarIndex(NamedTuple):
    """The members of all shards.

    Attributes:
        paths: The shards.
        ids: N strings `shard/key`, in the order of the shards.
        members: (M,) with the fields sample, shard, kind (a place in `KINDS`), offset and size.
        remarks: (shard, reason) of everything that was left out.
        damaged: How many shards could not be read to their end.
        ignored: How many members are of other kinds than `KINDS`.
    """

    paths: Sequence[Path]
    ids: Sequence[str]
    members: NDArray[Any]
    remarks: list[tuple[str, str]]
    damaged: int
    ignored: int

    def kinds(self) -> dict[str, int]:
        """How many members there are of each kind."""
        counts = np.bincount(self.members["kind"], minlength=len(KINDS)).tolist()
        return {kind: count for kind, count in zip(KINDS, counts, strict=True) if count}


def tar_index(
    shards: Sequence[Path],
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TarIndex:
    """The index of some shards: the one kept beside them or in `cache_dir`, or made and kept there.

    It is made again, with a warning, when the size or the time of a shard has changed.

    Args:
        shards: The tar files.
        cache_dir: Where to keep it; None: in a folder `.overtone-index` beside the shards.
        progress: Called after each shard with the shards done and their number.

    Raises:
        DataError: A shard is missing or compressed, or the index kept is damaged or a link elsewhere.
    """
    names = _names(shards)
    states = [[name, *_state(path)] for name, path in zip(names, shards, strict=True)]
    which, state = _digest(names), _digest(states)
    homes = [_shared_folder(shards) / _FOLDER]
    if leaves(homes[0], homes[0].parent):
        raise DataError(f"{homes[0]}: is a link that leaves its folder; remove it")
    homes += [Path(cache_dir)] if cache_dir is not None else []
    for home in homes:
        if (home / f"tars-{which}-{state}").is_dir():
            return _opened(home / f"tars-{which}-{state}", shards)
    for stale in [old for home in homes for old in home.glob(f"tars-{which}-*") if old.suffix != ".partial"]:
        logger.warning("%s: %s; the index is made again", stale, _changed(stale, states))
        shutil.rmtree(stale, ignore_errors=True)
    logger.info("%s: looks for the members of %s tars, once", homes[-1], f"{len(shards):,}")
    index = _made(names, shards, progress)
    try:
        with beside(homes[-1] / f"tars-{which}-{state}") as folder:
            _write(folder, index, states)
    except OSError as error:
        logger.warning(
            "%s: the index of the tars cannot be kept (%s) and will be made again; give cache_dir",
            homes[-1],
            error.strerror or error,
        )
    return index


def read_member(path: Path, offset: int, size: int) -> bytes:
    """The bytes of a member.

    Raises:
        DataError: The shard ends before.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)
    if len(content) < size:
        raise DataError(
            f"{path.name} ends before byte {offset + size:,}: it has changed since it was indexed"
        )
    return content


def scan(path: Path) -> Scan:
    """Goes through the headers of a shard.

    Raises:
        DataError: It is compressed.
    """
    found = Scan([], Counter(), 0, "")
    seen: set[tuple[str, int]] = set()
    ignored, damage = 0, ""
    try:
        for member in _members(path):
            if member.isdir():
                continue
            key, extension = _label(member.name)
            kind = KINDS.index(extension) if extension in KINDS else -1
            if why := _refusal(member):
                found.refused[why] += 1
            elif kind < 0 or not key:
                ignored += 1
            elif (key, kind) in seen:
                found.refused["a second member of its name"] += 1
            else:
                seen.add((key, kind))
                found.members.append((key, kind, member.offset_data, member.size))
    except _Damaged as error:
        damage = str(error)
    return found._replace(ignored=ignored, damage=damage)


class _Damaged(Exception):
    pass


class _Headers(io.BufferedReader):
    """A file of which only small parts are read: a header may promise anything."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file up to where it is damaged."""
    n_bytes = path.stat().st_size
    with _Headers(io.FileIO(path)) as file:
        if file.peek(4).startswith(_COMPRESSED):
            raise DataError(f"{path}: a compressed tar, whose members cannot be read directly; uncompress it")
        position, count = -1, 0
        try:
            tar = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would grow with the shard
                count += 1
                if count > MOST_MEMBERS:
                    raise _Damaged(f"more than {MOST_MEMBERS:,} members; the others are not read")
                if member.size < 0 or member.offset_data <= position:
                    raise _Damaged(f"a header that points backwards, at byte {member.offset:,}")
                if member.isreg() and not member.issparse() and member.offset_data + member.size > n_bytes:
                    raise _Damaged(f"cut short within {member.name!r}")
                position = member.offset_data
                yield member
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                at_end = tar.offset >= n_bytes
                raise _Damaged("cut short: no end mark" if at_end else f"damaged at byte {tar.offset:,}")
        except _Damaged:
            raise
        except Exception as error:  # tarfile raises half a dozen kinds on damaged headers
            raise _Damaged(f"damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


def _refusal(member: tarfile.TarInfo) -> str:
    """Why a member is not used; blank if it may be."""
    if member.issym() or member.islnk():
        return "a link"
    if not member.isreg() or member.issparse():
        return "no plain file"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "a name that leads out of the archive"
    if "\0" in member.name:
        return "a name with NUL in it"
    if member.size > MOST_BYTES:
        return f"more than {MOST_BYTES:,} bytes"
    return ""


def _label(name: str) -> tuple[str, str]:
    """Key and extension: a key ends at the first dot of the last part, as webdataset has it."""
    folder, slash, last = name.removeprefix("./").rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem if stem else "", extension.lower()


def _names(shards: Sequence[Path]) -> list[str]:
    """Each shard's path without extension, from the folder they share."""
    for path in shards:
        if not path.is_file():
            raise DataError(f"{path}: no such file (in folder {Path.cwd()}); expected a .tar file")
    root = _shared_folder(shards)
    return [Path(os.path.abspath(path)).relative_to(root).with_suffix("").as_posix() for path in shards]


def _shared_folder(shards: Sequence[Path]) -> Path:
    # Links are not followed: what they lead to may have no name of its own, as in a hub's cache.
    return Path(os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in shards]))


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _digest(value: Any) -> str:
    return hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _made(
    names: Sequence[str], shards: Sequence[Path], progress: Callable[[int, int], None] | None
) -> TarIndex:
    ids: list[str] = []
    tables, remarks, damaged, ignored = [], [], 0, 0
    for number, (name, path) in enumerate(zip(names, shards, strict=True)):
        found = scan(path)
        row_of: dict[str, int] = {}
        rows = [
            (row_of.setdefault(key, len(ids) + len(row_of)), number, kind, offset, size)
            for key, kind, offset, size in found.members
        ]
        ids += [f"{name}/{key}" for key in row_of]
        tables.append(np.array(rows, _MEMBER))
        said = [f"{count:,} x {why}" for why, count in found.refused.items()]
        remarks += [(path.name, what) for what in [*said, found.damage] if what]
        damaged += bool(found.damage)
        ignored += found.ignored
        if progress is not None:
            progress(number + 1, len(shards))
    return TarIndex(shards, ids, np.concatenate(tables), remarks, damaged, ignored)


def _write(folder: Path, index: TarIndex, states: list[list[Any]]) -> None:
    np.save(folder / "members.npy", index.members, allow_pickle=False)
    keys = "\0".join(index.ids).encode("utf-8", "surrogateescape")
    np.save(folder / "ids.npy", np.frombuffer(keys, np.uint8), allow_pickle=False)
    rest = {
        "version": _VERSION,
        "shards": states,
        "remarks": index.remarks,
        "damaged": index.damaged,
        "ignored": index.ignored,
    }
    (folder / "index.json").write_text(json.dumps(rest))


def _opened(folder: Path, shards: Sequence[Path]) -> TarIndex:
    try:
        rest = json.loads((folder / "index.json").read_text())
        if rest["version"] != _VERSION:
            raise ValueError(f"version {rest['version']}")
        members = mapped(folder / "members.npy")
        keys = mapped(folder / "ids.npy").tobytes()
        ids = keys.decode("utf-8", "surrogateescape").split("\0") if keys else []
        if members.dtype != _MEMBER or members.ndim != 1:
            raise ValueError(f"members of {members.dtype}")
        # It may have come with the shards: nothing in it may point outside of them.
        ends = {"sample": len(ids), "shard": len(shards), "kind": len(KINDS), "size": MOST_BYTES + 1}
        for field, end in {**ends, "offset": 1 << 62}.items():
            if len(members) and not 0 <= int(members[field].min()) <= int(members[field].max()) < end:
                raise ValueError(f"a {field} out of range")
        remarks = [(str(what), str(why)) for what, why in rest["remarks"]]
        return TarIndex(shards, ids, members, remarks, int(rest["damaged"]), int(rest["ignored"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: this index of tars is damaged: {error}; delete it") from error


def _changed(stale: Path, states: list[list[Any]]) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        before = json.loads((stale / "index.json").read_text())["shards"]
        changed = [new[0] for old, new in zip(before, states, strict=True) if old != new]
        return f"{len(changed):,} of {len(states):,} shards have changed since, first {changed[0]}.tar"
    return "shards have changed since"
