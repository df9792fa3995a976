"""Blind pairs of one's own: a CSV file with a row a pair."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from overtone.datasets import Pair
from overtone.errors import DataError

COLUMNS = ("image_1", "image_2", "text_1", "text_2", "pattern")


def read_pairs(path: str | os.PathLike[str]) -> list[Pair]:
    """The pairs of a CSV file with the columns image_1, image_2, text_1, text_2 and pattern, in any order.

    Text i is true of image i alone. The images are paths, relative to the CSV file; they are not opened yet.

    Raises:
        DataError: The file cannot be read, a column is missing, a cell is empty or an image is not there.

    >>> read_pairs("nowhere.csv")
    Traceback (most recent call last):
    overtone.errors.DataError: nowhere.csv: cannot be read: No such file or directory.
    """
    place = Path(path)
    header, rows = rows_of(place)
    if missing := [name for name in COLUMNS if name not in header]:
        raise DataError(f"{place}: no column {missing[0]!r}; expected {', '.join(COLUMNS)}.")
    order = [header.index(name) for name in COLUMNS]
    pairs = []
    for number, row in rows:
        if empty := [COLUMNS[i] for i, column in enumerate(order) if not row[column].strip()]:
            raise DataError(
                f"{place}:{number}: {empty[0]} is empty; write a statement that is true of one picture alone "
                "for each, and what the two differ in as the pattern, or leave the row out."
            )
        one, other, *texts, pattern = (row[column].strip() for column in order)
        images = (place.parent / one, place.parent / other)
        pairs.append(Pair(images, (texts[0], texts[1]), pattern, (one, other)))
    if not pairs:
        raise DataError(f"{place}: no pairs below the header; expected a row each.")
    require_files(place, [image for pair in pairs for image in pair.images])
    return pairs


def rows_of(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a CSV file in UTF-8, and each row that is not blank with the number of its line.

    Raises:
        DataError: It cannot be read, has no header, or a row has not one cell a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no CSV file in UTF-8: {error}.") from None
    if not rows:
        raise DataError(f"{path}: is empty; expected a header and rows.")
    header = [name.strip() for name in rows[0][1]]
    if odd := [(number, row) for number, row in rows if len(row) != len(header)]:
        number, row = odd[0]
        raise DataError(
            f"{path}:{number}: {len(row)} cells, but the header has {len(header)}; put a text with a comma "
            "in quotation marks."
        )
    return header, rows[1:]


def require_files(where: Path, paths: Sequence[object]) -> None:
    """Checks that images are there.

    Raises:
        DataError: It names the first that is not, and how many.
    """
    if missing := [path for path in paths if not Path(str(path)).is_file()]:
        raise DataError(
            f"{where}: {len(missing):,} of {len(paths):,} images are not there, first {missing[0]}; copy "
            "them there or mend their paths."
        )
