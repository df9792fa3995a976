"""A table of image paths and captions: CSV, TSV or parquet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from overtone.datasets.captioned import Captioned, read_captioned
from overtone.datasets.folder import read_picture, stamp_of
from overtone.datasets.images import Source
from overtone.datasets.parquet import columns_of, parquet_file, raw_texts
from overtone.datasets.reading import Reading
from overtone.datasets.tables import csv_rows
from overtone.datasets.texts import Captions
from overtone.errors import DataError, RecipeError

if TYPE_CHECKING:
    from typing_extensions import Unpack

IMAGE_COLUMNS = ("filepath", "file_name", "path")  # the first as open_clip's csv files
TEXT_COLUMNS = ("title", "caption", "text")


def captions(
    path: str | os.PathLike[str],
    *,
    image: str | None = None,
    text: str | None = None,
    root: str | os.PathLike[str] | None = None,
    follow_links: bool = False,
    **options: Unpack[Reading],
) -> Captioned:
    """A dataset from a table with a row a pair: the path of a picture, and its caption.

    Other columns are not looked at. Ids are the paths as written; where a picture has several captions, the
    second is `PATH#2`, and so on.

    Args:
        path: A CSV file with a header, separated by commas or tabs, or a .parquet file.
        image: The column of paths; None: the first there is of `filepath`, `file_name`, `path`.
        text: The column of captions; None: the first there is of `title`, `caption`, `text`.
        root: The folder that paths start from, and that none may leave; None: that of the table.
        follow_links: Take links that leave that folder.
        **options: See `Reading`; a picture without caption counts as bad.

    Raises:
        DataError: The table cannot be read, or too many pairs cannot be used.
        RecipeError: There is no such column, or another option is wrong.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (8, 8)).save(f"{folder}/1.png")
    ...     _ = Path(folder, "all.csv").write_text("filepath,title\\n1.png,a black square\\n")
    ...     dataset = captions(f"{folder}/all.csv")
    >>> dataset.ids, list(dataset.texts)
    (['1.png'], ['a black square'])
    """
    return read_captioned(*captions_source(path, image, text, root, follow_links=follow_links), **options)


def captions_source(
    path: str | os.PathLike[str],
    image: str | None = None,
    text: str | None = None,
    root: str | os.PathLike[str] | None = None,
    *,
    follow_links: bool = False,
) -> tuple[Source, Captions]:
    """The pictures of `captions`, not yet read, and their texts."""
    table, folder = Path(path), Path(path if root is None else root)
    if not table.is_file():
        raise DataError(f"{table}: no such file (in folder {Path.cwd()}); expected .csv, .tsv or .parquet")
    folder = folder.parent if root is None else folder
    if not folder.is_dir():
        raise DataError(
            f"root={folder}: no such folder (in folder {Path.cwd()}); expected that of the pictures"
        )
    read = _from_parquet if table.suffix.lower() == ".parquet" else _from_csv
    names, found = read(table, image, text)
    content = partial(_bytes, folder.resolve(), names, follow_links)
    return Source(table.name, _ids(names), content, stamp=stamp_of(folder, names)), found


def _from_csv(table: Path, image: str | None, text: str | None) -> tuple[list[str], Captions]:
    rows = csv_rows(table)
    _, header = next(rows)
    key = header.index(_column(table, header, image, "image"))
    value = header.index(_column(table, header, text, "text"))
    names = []

    def texts() -> Iterator[str]:
        for line, row in rows:
            if len(row) != len(header):
                raise DataError(
                    f"{table}:{line}: {len(row)} cells, the header has {len(header)}; put captions with "
                    'separators in them into quotes ("), and write a quote in one twice'
                )
            names.append(row[key])
            yield row[value]

    return names, Captions.of(texts())


def _from_parquet(table: Path, image: str | None, text: str | None) -> tuple[list[str], Captions]:
    file = parquet_file(table)
    header = file.schema_arrow.names
    columns = [_column(table, header, image, "image"), _column(table, header, text, "text")]
    values = columns_of([file], columns, table.name)
    names, found = (raw_texts(values, column, table.name) for column in columns)
    return [os.fsdecode(name or b"") for name in names], Captions.of(found)


def _column(table: Path, header: Sequence[str], given: str | None, argument: str) -> str:
    wanted = (given,) if given is not None else IMAGE_COLUMNS if argument == "image" else TEXT_COLUMNS
    for name in wanted:
        if header.count(name) == 1:
            return name
    raise RecipeError(
        f"{argument}={given!r}: {table} has no single column {' or '.join(map(repr, wanted))}; "
        f"give one of {', '.join(map(repr, header))}"
    )


def _ids(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    ids = []
    for name in names:
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return ids


def _bytes(root: Path, names: Sequence[str], follow_links: bool, row: int) -> bytes:
    if not names[row]:
        raise ValueError("no path")
    place = os.path.normpath if follow_links else os.path.realpath
    path = Path(place(root / names[row]))
    if not path.is_relative_to(root):
        raise ValueError(f"lies outside of root={root}")
    return read_picture(path)
