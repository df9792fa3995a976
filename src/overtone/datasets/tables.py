"""Labels from a CSV file, joined to the samples by name."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from overtone.datasets.labels import Labels, is_attribute, labelled
from overtone.errors import DataError
from overtone.text import utf8

logger = logging.getLogger(__name__)

NAME_COLUMN = "file_name"


def read_labels(path: Path, ids: Sequence[str]) -> Labels:
    """Attributes from a CSV file with a header and a column `file_name`, as Hugging Face's imagefolder.

    Every other column with at most 1,000 distinct values is an attribute; columns of whole numbers
    are codes. Samples that the file does not name, and blank cells, have no label.

    Args:
        path: A CSV file, UTF-8.
        ids: The samples' names.

    Raises:
        DataError: The file cannot be read, lacks the column, repeats or misnames a sample, or has a row
            of another length; the message gives the line.
    """
    header, *rows = _rows(path)
    (line, columns) = header
    if NAME_COLUMN not in columns or len(set(columns)) != len(columns):
        wrong = "has a column twice" if NAME_COLUMN in columns else f"has no column {NAME_COLUMN!r}"
        raise DataError(f"{path}:{line}: the header {wrong}; it reads {', '.join(columns)}")
    key = columns.index(NAME_COLUMN)
    position = {name: number for number, name in enumerate(ids)}
    row_of: dict[int, list[str]] = {}
    for line, row in rows:
        if len(row) != len(columns):
            raise DataError(f"{path}:{line}: {len(row)} cells, the header has {len(columns)}")
        if row[key] not in position:
            raise DataError(f"{path}:{line}: {row[key]!r} is none of the images; give paths from the folder")
        if position[row[key]] in row_of:
            raise DataError(f"{path}:{line}: {row[key]!r} occurs a second time; keep one row for it")
        row_of[position[row[key]]] = row
    blank = [""] * len(columns)
    cells = zip(*(row_of.get(number, blank) for number in range(len(ids))), strict=True)
    values = {name: column for name, column in zip(columns, cells, strict=True) if name != NAME_COLUMN}
    readable = {utf8(name): tuple(map(utf8, column)) for name, column in values.items()}
    return _attributes(path, readable, len(ids))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The non-blank rows, each with the number of its last line."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from error
    if not rows:
        raise DataError(f"{path}: empty; expected a header with {NAME_COLUMN!r} and a row for each image")
    yield from rows


def _attributes(path: Path, columns: dict[str, tuple[str, ...]], n_samples: int) -> Labels:
    values: dict[str, Sequence[int | str | None]] = {}
    ignored = []
    for name, cells in columns.items():
        if is_attribute(len(set(cells)), n_samples):
            values[name] = _numbers(cells) or cells
        else:
            ignored.append(name)
    if ignored:
        logger.info("%s: no attribute, for too many distinct values: %s", path, ", ".join(map(repr, ignored)))
    return labelled(values, {}, n_samples, str(path))


def _numbers(cells: Sequence[str]) -> list[int | None] | None:
    """Whole numbers, if all cells that are not blank hold one."""
    try:
        return [int(cell) if cell.strip() else None for cell in cells]
    except ValueError:
        return None
