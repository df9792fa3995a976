"""A folder of pictures with a text file beside each, as img2dataset writes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from overtone.datasets.captioned import Captioned, read_captioned
from overtone.datasets.folder import EXTENSIONS, files_in, read_file, read_picture, stamp_of
from overtone.datasets.images import Source
from overtone.datasets.reading import Reading
from overtone.datasets.texts import MOST_BYTES, Captions, field_of, where
from overtone.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

MOST_JSON = 1 << 20


def pairs(
    root: str | os.PathLike[str],
    *,
    text: str = "txt",
    follow_links: bool = False,
    **options: Unpack[Reading],
) -> Captioned:
    """A dataset from `a/1.jpg` beside `a/1.txt` or `a/1.json`, in a folder and its subfolders.

    A picture and its text share folder and name up to the last dot; extensions count in any case. Ids are
    paths from the folder without extension, as those of the tars of `webdataset`.

    Args:
        root: The folder.
        text: `txt`, or a field of the `.json` file, as `json:caption`.
        follow_links: Take links that leave the folder, and enter linked subfolders.
        **options: See `Reading`; a picture without text, and a text without picture, count as bad.

    Raises:
        DataError: No such folder, no pairs in it, too many bad ones, or a link that leaves it.
        RecipeError: An option is wrong.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (8, 8)).save(f"{folder}/1.png")
    ...     _ = Path(folder, "1.txt").write_text("a black square")
    ...     dataset = pairs(folder)
    >>> dataset.ids, list(dataset.texts)
    (['1'], ['a black square'])
    """
    return read_captioned(*pairs_source(root, text, follow_links=follow_links), **options)


def pairs_source(
    root: str | os.PathLike[str], text: str = "txt", *, follow_links: bool = False
) -> tuple[Source, Captions]:
    """The pictures of `pairs`, not yet read, and their texts."""
    folder, (kind, field) = Path(root), where(text)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder (in folder {Path.cwd()}); expected pictures and texts in it"
        )
    names = files_in(folder, (*EXTENSIONS, f".{kind}"), follow_links)
    ids: list[str] = []
    pictures: list[str | None] = []
    texts: list[str | None] = []
    remarks = []
    for key, group in groupby(sorted(names, key=lambda name: (_key(name), name)), _key):
        of_key = list(group)
        found = [name for name in of_key if name.lower().endswith(EXTENSIONS)]
        written = [name for name in of_key if name not in found]
        if not found and kind == "json":
            continue  # a shard's statistics, not a text
        ids.append(key)
        pictures.append(found[0] if found else None)
        texts.append(written[0] if written else None)
        remarks += [(name, "a second file of its name") for name in (*found[1:], *written[1:])]
    if not any(one and other for one, other in zip(pictures, texts, strict=True)):
        raise DataError(
            f"{folder}: no pairs; looked in it and its subfolders for a picture (*{', *'.join(EXTENSIONS)}) "
            f"and a .{kind} file of one name"
        )
    with ThreadPoolExecutor(8) as pool:  # a wait each where files lie on a network
        captions = Captions.of(pool.map(partial(_written, folder, field), texts), remarks)
    missing = {row: "no picture" for row, name in enumerate(pictures) if name is None}
    stamp = stamp_of(folder, [name for name in pictures if name is not None])
    source = Source(folder.resolve().name, ids, partial(_bytes, folder, pictures), stamp=stamp)
    return source, captions._replace(bad={**captions.bad, **missing})


def _key(name: str) -> str:
    return os.path.splitext(name)[0]


def _bytes(folder: Path, names: Sequence[str | None], row: int) -> bytes:
    return read_picture(folder / (names[row] or ""))


def _written(folder: Path, field: str, name: str | None) -> bytes | str | None:
    if name is None:
        return None
    try:
        return field_of(read_file(folder / name, MOST_JSON if field else MOST_BYTES), field)
    except (OSError, ValueError):
        return None
