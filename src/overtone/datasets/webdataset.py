"""Pairs in tar shards, as webdataset and img2dataset write them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from functools import partial
from glob import glob
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from overtone.datasets.captioned import Captioned, read_captioned
from overtone.datasets.folder import files_in, refuse_leaving, undisguised
from overtone.datasets.images import Source
from overtone.datasets.labels import labelled
from overtone.datasets.pairs import MOST_JSON
from overtone.datasets.reading import Reading
from overtone.datasets.tar_index import KINDS, PICTURES, TarIndex, read_member, tar_index
from overtone.datasets.texts import MOST_BYTES, Captions, field_of, where
from overtone.errors import DataError, RecipeError

if TYPE_CHECKING:
    from typing_extensions import Unpack

_MOST_SHARDS = 1_000_000


def webdataset(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    text: str = "txt",
    follow_links: bool = False,
    **options: Unpack[Reading],
) -> Captioned:
    """A dataset from tar files in which `0001.jpg` and `0001.txt` are a pair, read in any order.

    Where every member lies is found once and kept beside the shards, or in `cache_dir` (see `tar_index`).
    Members of one key, their name up to its first dot, belong together, wherever in the shard. Read are
    jpg, jpeg, png, webp, txt, json, and cls, whose whole numbers are the attribute `class`. Ids are
    `shard/key`.

    Args:
        path: A folder with .tar files, one file, a pattern (`{00000..00099}.tar`, `*.tar`), or a list.
        text: `txt`, or a field of `json`, as `json:caption`.
        follow_links: Take links that leave the folder (of a pattern, the one before its first wildcard), and
            enter linked subfolders.
        **options: See `Reading`; a picture without text, a text without picture, and damaged shards
            count as bad.

    Raises:
        DataError: A shard is missing, none has pairs, or too much of them cannot be used.
        RecipeError: An option is wrong.

    >>> import tarfile, tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (8, 8)).save(f"{folder}/1.png")
    ...     _ = Path(folder, "1.txt").write_text("a black square")
    ...     with tarfile.open(f"{folder}/00000.tar", "w") as tar:
    ...         for name in ("1.png", "1.txt"):
    ...             tar.add(f"{folder}/{name}", name)
    ...     dataset = webdataset(f"{folder}/{{00000..00000}}.tar")
    >>> dataset.ids, list(dataset.texts)
    (['00000/1'], ['a black square'])
    """
    source = webdataset_source(path, text, options.get("cache_dir"), follow_links=follow_links)
    return read_captioned(*source, **options)


def webdataset_source(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    text: str = "txt",
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    follow_links: bool = False,
) -> tuple[Source, Captions]:
    """The pictures of `webdataset`, not yet read, and their texts."""
    kind, field = where(text)
    index = tar_index(shards_of(path, follow_links), cache_dir)
    pictures = _first_of(index, PICTURES)
    texts = _first_of(index, (kind,))
    # A key with neither, or with a json alone, is something else than half a pair.
    rows = np.flatnonzero((pictures >= 0) | ((texts >= 0) if kind == "txt" else False))
    if not np.any((pictures >= 0) & (texts >= 0)):
        said = "".join(f"; {what}: {why}" for what, why in index.remarks[:3])
        raise DataError(
            f"{index.paths[0]}: no pairs in {len(index.paths):,} tars; expected members KEY.jpg (or "
            f".{', .'.join(PICTURES[1:])}) and KEY.{kind}{said}"
        )
    most = MOST_JSON if field else MOST_BYTES
    found = (_read(index, int(member), most) for member in texts[rows])
    captions = Captions.of(field_of(content, field) for content in found)
    missing = {int(row): "no picture" for row in np.flatnonzero(pictures[rows] < 0)}
    labels = labelled(_classes(index, rows), {}, len(rows), index.paths[0].name)
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in index.paths]
    source = Source(
        index.paths[0].name if len(index.paths) == 1 else f"{len(index.paths):,} tars",
        [index.ids[row] for row in rows.tolist()],
        partial(_picture, index.paths, index.members[pictures[rows]]),
        labels.codes,
        labels.names,
        repr(stats),
    )
    return source, captions._replace(
        bad={**captions.bad, **missing},
        remarks=index.remarks + _second(index, pictures),
        parts=len(index.paths),
        damaged=index.damaged,
    )


def shards_of(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], follow_links: bool = False
) -> list[Path]:
    """The tar files that a path, a pattern or a list stands for.

    Raises:
        DataError: There are none, or one that was not named leads out of the folder by a link.
        RecipeError: It is a command or an address, or stands for too many.
    """
    if not isinstance(path, (str, os.PathLike)):
        return [shard for one in path for shard in shards_of(one, follow_links)]
    text = os.fspath(path)
    if re.match(r"pipe:|[a-z0-9]+:/", text, re.IGNORECASE):
        raise RecipeError(f"path={text!r}: commands and addresses are not opened; download the shards first")
    if Path(text).is_dir():
        shards = sorted(Path(text, name) for name in files_in(Path(text), (".tar",), follow_links))
    elif re.search(r"[*?\[]", text) and not Path(text).exists():
        shards = sorted(file for one in expanded(text) for file in _matching(one, follow_links))
    else:
        shards = [Path(one) for one in expanded(text)]
    if not shards:
        raise DataError(f"{text}: no .tar file there (in folder {Path.cwd()})")
    return shards


def _matching(pattern: str, follow_links: bool) -> list[Path]:
    files = [Path(file) for file in glob(pattern, recursive=True)]
    if not follow_links:
        folder = Path(os.path.dirname(re.split(r"[*?\[]", pattern)[0]))
        on_the_way = {place for file in files for place in (file, *file.parents) if folder in place.parents}
        refuse_leaving(sorted(on_the_way), folder)
    return files


def expanded(pattern: str) -> list[str]:
    """What the braces of a pattern stand for, as in a shell.

    Raises:
        RecipeError: More than a million.

    >>> expanded("{a,b}-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = [_choices(part, pattern) if number % 2 else [part] for number, part in enumerate(parts)]
    if math.prod(map(len, choices)) > _MOST_SHARDS:
        raise RecipeError(f"path={pattern!r}: stands for more than {_MOST_SHARDS:,} files")
    return list(map("".join, product(*choices)))


def _choices(braced: str, pattern: str) -> Sequence[str]:
    ends = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", braced)
    if ends is None:
        return braced.split(",") if "," in braced else [f"{{{braced}}}"]
    numbers = range(int(ends[1]), int(ends[2]) + 1)
    if not 0 < len(numbers) <= _MOST_SHARDS:
        raise RecipeError(f"path={pattern!r}: {{{braced}}} stands for no number, or for more than a million")
    return [str(number).zfill(len(ends[1])) for number in numbers]


def _first_of(index: TarIndex, kinds: Sequence[str]) -> NDArray[np.int64]:
    """For each id the first of its members that is of one of the kinds, -1 where there is none."""
    members = np.flatnonzero(np.isin(index.members["kind"], [KINDS.index(kind) for kind in kinds]))[::-1]
    first = np.full(len(index.ids), -1, np.int64)
    first[index.members["sample"][members]] = members  # of several the last one written stays
    return first


def _second(index: TarIndex, pictures: NDArray[np.int64]) -> list[tuple[str, str]]:
    kinds = [KINDS.index(kind) for kind in PICTURES]
    more = int(np.isin(index.members["kind"], kinds).sum() - (pictures >= 0).sum())
    return [("tars", f"{more:,} x a second picture of its key")] if more else []


def _read(index: TarIndex, member: int, most: int) -> bytes | None:
    if member < 0:
        return None
    place = index.members[member]
    return read_member(index.paths[place["shard"]], int(place["offset"]), min(int(place["size"]), most))


def _picture(paths: Sequence[Path], places: NDArray[Any], row: int) -> bytes:
    place = places[row]
    content = read_member(paths[place["shard"]], int(place["offset"]), int(place["size"]))
    return undisguised(content, f".{KINDS[place['kind']]}")


def _classes(index: TarIndex, rows: NDArray[np.int64]) -> dict[str, list[int | None]]:
    members = _first_of(index, ("cls",))[rows]
    if not np.any(members >= 0):
        return {}
    return {"class": [_whole(_read(index, int(member), 32)) for member in members]}


def _whole(content: bytes | None) -> int | None:
    try:
        return None if content is None else int(content)
    except ValueError:
        return None
