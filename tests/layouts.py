"""Pairs of pictures and texts, written in each of the layouts that are read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Members = Mapping[str, bytes]


def png(value: int, size: tuple[int, int] = (4, 4)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value % 256, value // 256, 0)).save(file, "PNG")
    return file.getvalue()


def write_files(root: Path, members: Members) -> Path:
    for name, content in members.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_tar(path: Path, members: Members, form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def write_parquet(path: Path, columns: Mapping[str, list[object]]) -> Path:
    pq.write_table(pa.table(dict(columns)), path, row_group_size=3)
    return path


def pairs_of(n: int, shard: str = "") -> dict[str, bytes]:
    """`shard` + 0000.png and .txt, and so on: picture i is of red i, its text says so."""
    members = {}
    for i in range(n):
        members[f"{shard}{i:04}.png"] = png(i)
        members[f"{shard}{i:04}.txt"] = f"red {i}".encode()
    return members
