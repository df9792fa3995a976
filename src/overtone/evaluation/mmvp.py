"""MMVP-VLM in the layout in which it is published (huggingface.co/datasets/MMVP/MMVP_VLM).

A folder with `Questions.csv` and a folder of images, in which each type of pair has one of its own:

    Questions.csv              id, type, statement; an odd id and the next even one are a pair
    MLLM_VLM Images/Color/     151.jpg, 152.jpg, ...
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from overtone.datasets import Pair
from overtone.errors import DataError
from overtone.evaluation.pairs_csv import require_files, rows_of

logger = logging.getLogger(__name__)

TYPES = {
    "Orientation": "Orientation and Direction",
    "Presence": "Presence of Specific Features",
    "State": "State and Condition",
    "Quantity": "Quantity and Count",
    "Spatial": "Positional and Relational Context",
    "Color": "Color and Appearance",
    "Structural Character": "Structural Characteristics",
    "Text": "Texts",
    "Camera Perspective": "Viewpoint and Perspective",
}
"""The types in the table of questions, which are also the names of folders -> the names of the patterns."""

N_PAIRS = 135
FOLDERS = ("MLLM_VLM Images", "MMVP_VLM_Images")
"""Of the images: as it is published, and as its own instructions call it."""

_NAMES = ({"questionid", "id"}, {"type"}, {"statement"})


class Question(NamedTuple):
    """A row of the table, and the line on which it ends."""

    line: int
    id: str
    type: str
    statement: str


def read_mmvp(folder: str | os.PathLike[str]) -> list[Pair]:
    """The pairs of MMVP-VLM, in the order of its table; their images are not opened yet.

    The table's columns are found by their names, or by their order where these are others. The type of a
    pair is that of its first row, as in the published score.

    Raises:
        DataError: A file is missing, or the table is not the published kind; the message names the line.

    >>> read_mmvp("nowhere")
    Traceback (most recent call last):
    overtone.errors.DataError: nowhere/Questions.csv: cannot be read: No such file or directory.
    """
    home = Path(folder)
    table = home / "Questions.csv"
    header, rows = rows_of(table)
    columns = _columns(table, header)
    questions = [Question(line, *(row[column].strip() for column in columns)) for line, row in rows]
    if len(questions) % 2 or not questions:
        raise DataError(
            f"{table}: {len(questions)} rows below the header; expected an even number, two a pair. "
            "Copy the table again."
        )
    images = _images(home)
    both = zip(questions[::2], questions[1::2], strict=True)
    pairs = [_pair(table, images, first, second) for first, second in both]
    require_files(table, [image for pair in pairs for image in pair.images])
    if len(pairs) != N_PAIRS:
        logger.warning(
            "%s: %d pairs, not %d as published; figures do not compare.", table, len(pairs), N_PAIRS
        )
    return pairs


def _columns(table: Path, header: Sequence[str]) -> list[int]:
    """Where id, type and statement stand."""
    plain = [re.sub("[^a-z]", "", name.lower()) for name in header]
    named = [[i for i, name in enumerate(plain) if name in known] for known in _NAMES]
    if all(len(found) == 1 for found in named):
        return [found[0] for found in named]
    if len(header) != 3 or header[0].isdecimal():
        raise DataError(
            f"{table}: the header is {', '.join(map(repr, header))}; expected three columns, for the id, the "
            "type and the statement."
        )
    return [0, 1, 2]


def _images(home: Path) -> Path:
    for name in FOLDERS:
        if (home / name).is_dir():
            return home / name
    raise DataError(f"{home}: no folder of images; expected {' or '.join(map(repr, FOLDERS))} in it.")


def _pair(table: Path, images: Path, first: Question, second: Question) -> Pair:
    for question in (first, second):
        if not question.statement:
            raise DataError(f"{table}:{question.line}: the statement is empty; copy the table again.")
    if first.type not in TYPES:
        raise DataError(
            f"{table}:{first.line}: the type {first.type!r} is unknown; expected one of {', '.join(TYPES)}."
        )
    if not (first.id.isdecimal() and int(first.id) % 2 and second.id == str(int(first.id) + 1)):
        raise DataError(
            f"{table}:{second.line}: the ids {first.id!r} and {second.id!r} are no pair; expected an odd "
            "number and the next one. Copy the table again."
        )
    folder = images / first.type
    return Pair(
        (folder / f"{first.id}.jpg", folder / f"{second.id}.jpg"),
        (first.statement, second.statement),
        TYPES[first.type],
        (first.id, second.id),
    )
