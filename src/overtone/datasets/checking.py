"""What is wrong with a data set, found before anything is trained on it."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from overtone.artifacts import disk_errors
from overtone.datasets.captioned import with_captions
from overtone.datasets.decoding import FORMATS, Content
from overtone.datasets.opening import open_captions
from overtone.datasets.reading import read_images
from overtone.datasets.texts import LONGEST, Captions, Texts, first_equal
from overtone.errors import DataError
from overtone.text import utf8

_SIDE = 32  # pixels; every picture is decoded to its end all the same
_NAMED = 3


class Findings(NamedTuple):
    """What `check` found.

    Attributes:
        samples: How many there are, bad ones included.
        bad: (id, reason) of each that cannot be used.
        captions: The texts, and what else is left out, such as members of a tar file.
        lines: All of it in words.
    """

    samples: int
    bad: Sequence[tuple[str, str]]
    captions: Captions
    lines: Sequence[str]

    def write(self, path: Path) -> None:
        """Writes a CSV file with the columns `id` and `reason`; bytes that are no UTF-8 stay as they are.

        Raises:
            DiskError: The disk is full or cannot be written.
        """
        rows = [("id", "reason"), *self.captions.remarks, *self.bad]
        with (
            disk_errors(path),
            path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            csv.writer(file).writerows([_writable(cell) for cell in row] for row in rows)

    def require(self, max_bad_fraction: float) -> None:
        """Raises a `DataError` if more of the samples or of their files, rounded up, cannot be used."""
        self.captions.tolerate(max_bad_fraction)
        if len(self.bad) > math.ceil(max_bad_fraction * self.samples):
            raise DataError(
                f"{len(self.bad):,} of {self.samples:,} samples cannot be used, more than "
                f"max_bad_fraction={max_bad_fraction:g}"
            )


def check(
    path: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None, **options: Any
) -> Findings:
    """Reads everything at a path once: what lacks its picture or text, is unreadable, empty, or equal.

    Args:
        path: As for `open_dataset`.
        progress: Called now and then with the pictures read and their number.
        **options: Those of the reader that say where texts are: `text`, `image`, `root`, ....

    Raises:
        DataError: Nothing there is known, or no picture at all can be read.
        RecipeError: An option is wrong.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (40, 30)).save(f"{folder}/a.png")
    ...     print(*check(folder).lines, sep="\\n")
    1 samples, 0 (0.00%) cannot be used
    pictures: width 40 to 40, median 40; height 30 to 30, median 30
    """
    source, found = open_captions(path, **options)
    captions = Captions.of([]) if found is None else found
    joined, sizes = with_captions(source, captions), np.zeros((len(source.ids), 2), np.int64)

    def read(row: int) -> Content:
        content = joined.read(row)
        sizes[row] = _size(content)
        if progress is not None and row % 64 == 0:
            progress(row, len(sizes))
        return content

    measured = replace(joined, read=read)
    images = read_images(measured, image_size=_SIDE, cache="none", max_bad_fraction=1.0)
    lines = [f"{len(sizes):,} samples, {_share(len(images.quarantined), len(sizes))} cannot be used"]
    for why, names in captions.by_reason(images.quarantined).items():
        more = ", ..." if len(names) > _NAMED else ""
        lines.append(f"  {len(names):,} x {why}: {', '.join(names[:_NAMED])}{more}")
    lines += [f"  {what}: {why}" for what, why in captions.remarks]
    if found is not None:
        lines.append(_of_texts(captions.texts.take(images.rows), len(captions.cut)))
    (widths, heights) = sizes[images.rows].T
    lines.append(f"pictures: width {_range(widths)}; height {_range(heights)}")
    return Findings(len(sizes), images.quarantined, captions, lines)


def _writable(cell: str) -> str:
    """A cell of which surrogates that stand for no byte, as `csv_rows` reads NUL, are escapes."""
    try:
        cell.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return utf8(cell)
    return cell


def _size(content: Content) -> tuple[int, int]:
    """Width and height, from the header alone; 0 for what is no picture, as decoding it will say."""
    if isinstance(content, np.ndarray):
        return content.shape[-1], content.shape[-2]
    if isinstance(content, Image.Image):
        return content.size
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            return image.size
    except Exception:  # whatever Pillow raises on damaged files
        return 0, 0


def _of_texts(texts: Texts, cut: int) -> str:
    first = first_equal(texts)
    times = np.bincount(first)
    most, equal = int(times.argmax()), len(first) - int(np.count_nonzero(times))
    lengths = np.array([len(text) for text in texts])
    line = f"texts: characters {_range(lengths)}; {_share(equal, len(first))} equal to an earlier one"
    line += f", most often {texts[most][:60]!r}, {times[most]:,} times" if equal else ""
    return line + (f"; {cut:,} cut to {LONGEST:,} characters" if cut else "")


def _range(values: NDArray[np.int64]) -> str:
    return f"{values.min():,} to {values.max():,}, median {np.median(values):,.0f}"


def _share(count: int, n: int) -> str:
    return f"{count:,} ({count / n:.2%})"
