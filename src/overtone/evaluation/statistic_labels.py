"""Image statistics as attributes, so that pictures without a label can be asked about too."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from overtone.contracts import Dataset
from overtone.datasets.decoding import FORMATS, Content
from overtone.datasets.images import Source
from overtone.errors import DataError
from overtone.evaluation.image_statistics import STATISTICS, image_statistics
from overtone.loading import loaded
from overtone.rng import generator

logger = logging.getLogger(__name__)

_CLASSES = 5
_SMALLEST = 0.1  # share of the pictures: half a fifth; a smaller class is joined with the next
_FEWEST = 0.02  # likewise for directions, which are what they are: few edges slant
_DECIMALS = 5  # what differs less is equal: the rounding of sums must not make classes
_EXIF_ORIENTATION = 0x0112
_AXIS = "edge_orientation"


@dataclass(frozen=True)
class StatisticLabels:
    """The statistics of n pictures as attributes, with what the classes were made from.

    Attributes:
        labels: Statistic -> (n,) int64 codes, -1 where a picture has none.
        label_names: Statistic -> the name of each code.
        values: Statistic -> (n,) float32 as measured, NaN where undefined; also of those left out.
        cuts: Statistic -> the greatest value of each class but the last; none for the edge orientation.
        left_out: Statistic -> why it is no attribute of these pictures.
    """

    labels: dict[str, NDArray[np.int64]]
    label_names: dict[str, Sequence[str]]
    values: dict[str, NDArray[np.float32]]
    cuts: dict[str, NDArray[np.float64]]
    left_out: dict[str, str]


def statistic_labels(
    dataset: Dataset,
    *,
    rows: Sequence[int] | NDArray[np.int64] | None = None,
    like: StatisticLabels | None = None,
    source: Source | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
) -> StatisticLabels:
    """Measures the pictures of a dataset and sorts them, statistic by statistic, into equally full classes.

    There are five classes, fewer where many pictures share a value: a class with less than a tenth of the
    pictures is joined with the next. Edge orientations are sorted into four directions instead, of which
    one with less than a fiftieth of the pictures is no class (-1). A statistic that gives no two classes is
    left out, and the log says so.

    Args:
        dataset: Pictures; their own labels are not looked at.
        rows: Which samples, all by default; n of them.
        like: The labels of the training part, whose classes these pictures are put into. Without it they
            make their own.
        source: Where the pictures come from (`open_source`), if their proportions are to be those of the
            files and not of the pictures as read, which usually have one size. It is read once more.
        batch_size: Pictures at a time; bounds the memory.
        num_workers: Processes that load samples.

    Raises:
        DataError: The dataset holds no pictures or no samples, `like` measured other statistics, or the
            source lacks a sample or cannot read it.

    >>> from overtone.datasets import arrays
    >>> shades = arrays(np.arange(0, 250, 25, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8))
    >>> found = statistic_labels(shades)
    >>> found.labels["brightness"], found.label_names["brightness"][0], found.left_out["contrast"]
    (array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4]), 'darkest', '100 % of the pictures share one value')
    """
    if dataset.modality != "image":
        raise DataError(
            f"image statistics: the dataset holds {dataset.modality!r}; expected pictures ('image')"
        )
    chosen = np.arange(len(dataset)) if rows is None else np.asarray(rows, dtype=np.int64)
    if not len(chosen):
        raise DataError("image statistics: no samples; expected at least one")
    values = _measured(dataset, chosen, batch_size, num_workers)
    if source is not None:
        values["aspect"] = _file_aspects(source, [dataset.ids[row] for row in chosen])
    return _own_classes(values) if like is None else _given_classes(values, like)


def _measured(
    dataset: Dataset, rows: NDArray[np.int64], batch_size: int, num_workers: int
) -> dict[str, NDArray[np.float32]]:
    batches = [rows[begin : begin + batch_size].tolist() for begin in range(0, len(rows), batch_size)]
    draws = generator(0, "image statistics")
    with loaded(dataset, batches, generator=draws, num_workers=num_workers) as found:
        parts = [image_statistics(batch["image"].cpu()) for batch in found]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _file_aspects(source: Source, ids: Sequence[str]) -> NDArray[np.float32]:
    row_of = {name: row for row, name in enumerate(source.ids)}
    if strange := [name for name in ids if name not in row_of]:
        raise DataError(
            f"{source.name}: has no {strange[0]!r}; expected the source that the dataset was read from"
        )
    found = np.empty(len(ids), np.float32)
    for number, name in enumerate(ids):
        try:
            width, height = _size(source.read(row_of[name]))
        except Exception as error:  # Pillow raises half a dozen kinds on a damaged file
            raise DataError(f"{source.name}: {name!r} can no longer be read: {error}") from error
        found[number] = width / height
    return found


def _size(content: Content) -> tuple[int, int]:
    """Width and height as one sees the picture, from the header of a file."""
    if isinstance(content, np.ndarray):
        return content.shape[-1], content.shape[-2]
    if isinstance(content, bytes):
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            return _size(image)
    lies_on_its_side = content.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    return content.size[::-1] if lies_on_its_side else content.size


def _own_classes(values: dict[str, NDArray[np.float32]]) -> StatisticLabels:
    found = StatisticLabels({}, {}, values, {}, {})
    for name, measured in values.items():
        known = _rounded(measured[~np.isnan(measured)])
        cuts = np.empty(0) if name == _AXIS else _cuts(known)
        codes = _codes(name, measured, cuts)
        if name == _AXIS:
            codes = _with_enough(codes)
        if len(np.unique(codes[codes >= 0])) < 2:
            found.left_out[name] = _reason(name, known, len(measured))
            logger.info("image statistics: %s is left out: %s", STATISTICS[name].title, found.left_out[name])
            continue
        found.labels[name], found.cuts[name] = codes, cuts
        found.label_names[name] = _names(name, cuts)
    return found


def _given_classes(values: dict[str, NDArray[np.float32]], like: StatisticLabels) -> StatisticLabels:
    if odd := sorted(set(values) ^ set(like.values)):
        raise DataError(
            f"image statistics: {odd[0]} was measured in one set only; expected as many channels in both. "
            "Read both with the same channels."
        )
    labels = {}
    for name, cuts in like.cuts.items():
        codes = _codes(name, values[name], cuts)
        labels[name] = np.where(np.isin(codes, like.labels[name]), codes, -1)
    return StatisticLabels(labels, like.label_names, values, like.cuts, like.left_out)


def _cuts(known: NDArray[np.float64]) -> NDArray[np.float64]:
    """The greatest value of each class but the last; all are values that occur, so no class is empty."""
    if not len(known):
        return known
    quantiles = np.quantile(known, np.arange(1, _CLASSES) / _CLASSES, method="inverted_cdf")
    cuts: list[float] = []
    for cut in np.unique(quantiles):
        below = np.mean((known <= cut) & (known > (cuts[-1] if cuts else -np.inf)))
        if min(below, np.mean(known > cut)) >= _SMALLEST:
            cuts.append(float(cut))
    return np.array(cuts)


def _rounded(measured: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = measured.astype(np.float64).round(_DECIMALS)
    return found


def _codes(name: str, measured: NDArray[np.float32], cuts: NDArray[np.float64]) -> NDArray[np.int64]:
    undefined = np.isnan(measured)
    rounded = _rounded(np.where(undefined, 0, measured))
    codes = np.round(rounded / 45) % 4 if name == _AXIS else np.searchsorted(cuts, rounded)
    return np.where(undefined, -1, codes).astype(np.int64)


def _with_enough(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    counts = np.bincount(codes + 1, minlength=2)
    return np.where(counts[codes + 1] >= _FEWEST * len(codes), codes, -1)


def _reason(name: str, known: NDArray[np.float64], n: int) -> str:
    if len(known) < 2:
        return f"{n - len(known)} of {n} pictures have none"
    if name == _AXIS:
        return "nearly all pictures share one direction or have none"
    share = np.unique(known, return_counts=True)[1].max() / len(known)
    return f"{100 * share:.0f} % of the pictures share one value"


def _names(name: str, cuts: NDArray[np.float64]) -> Sequence[str]:
    classes = STATISTICS[name].classes
    if name == _AXIS:
        return classes
    if not classes:
        return _ranges([int(cut) for cut in cuts])
    picked = {2: (1, 3), 3: (1, 2, 3), 4: (0, 1, 3, 4), 5: (0, 1, 2, 3, 4)}[len(cuts) + 1]
    return tuple(classes[place] for place in picked)


def _ranges(cuts: Sequence[int]) -> Sequence[str]:
    inner = [str(high) if high == low + 1 else f"{low + 1} to {high}" for low, high in pairwise(cuts)]
    return (f"at most {cuts[0]}" if cuts[0] else "none", *inner, f"{cuts[-1] + 1} or more")
