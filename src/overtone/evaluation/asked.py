"""What an encoder can be asked about: attributes from labels, captions and the pictures themselves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone.contracts import Dataset
from overtone.evaluation.caption_words import caption_words
from overtone.evaluation.image_statistics import STATISTICS
from overtone.evaluation.statistic_labels import statistic_labels

_OF_A_CLASS = 5  # samples that a class needs to be asked about
_NOMINAL = "edge_orientation"  # the statistic whose classes have no order


class Asked(NamedTuple):
    """An attribute: what it is called, and the code of each sample, -1 for none."""

    name: str
    codes: NDArray[np.int64]


def asked_of(dataset: Dataset, statistics: bool | None, notes: list[str]) -> list[Asked]:
    """The attributes of labels, of captions, and of the pictures themselves where it is wished or needed.

    Args:
        dataset: Its `texts`, where it has some, are captions.
        statistics: Whether image statistics are asked about; None where nothing else can be.
        notes: Takes a sentence on each thing that was left out.

    >>> from overtone.datasets import arrays
    >>> shown = arrays(np.zeros((20, 8, 8), np.uint8), {"side": ["left", "right"] * 10, "one": [1] * 20})
    >>> notes: list[str] = []
    >>> [asked.name for asked in asked_of(shown, None, notes)], notes
    (['side'], ['one was not asked about: 1 classes, 1 of at least 5 samples; two are needed.'])
    """
    texts = getattr(dataset, "texts", None)
    found = [Asked(name, np.asarray(codes)) for name, codes in dataset.labels.items()]
    if texts is not None:
        words = caption_words(texts)
        found += [Asked(f"caption: {word}", codes) for word, codes in words.items()]
        notes.append(
            f"Of the captions the {len(words)} most frequent content words were asked about, as said or not."
            if words
            else "No content word is in enough captions to be asked about."
        )
    usable = [one for each in found if (one := _usable(each, notes)) is not None]
    if statistics or (statistics is None and not usable and dataset.modality == "image"):
        taken = {each.name for each in found}
        for each in _statistics(dataset, notes):
            name = f"statistic: {each.name}" if each.name in taken else each.name
            if (one := _usable(each._replace(name=name), notes)) is not None:
                usable.append(one)
    return usable


def _usable(asked: Asked, notes: list[str]) -> Asked | None:
    """Without classes of too few samples; None where fewer than two are left."""
    known = asked.codes >= 0
    counts = np.bincount(asked.codes[known], minlength=1)
    rare = (counts > 0) & (counts < _OF_A_CLASS)
    if (counts >= _OF_A_CLASS).sum() < 2:
        notes.append(
            f"{asked.name} was not asked about: {int((counts > 0).sum())} classes, "
            f"{int((counts >= _OF_A_CLASS).sum())} of at least {_OF_A_CLASS} samples; two are needed."
        )
        return None
    if rare.any():
        notes.append(
            f"{asked.name}: {int(rare.sum())} classes of fewer than {_OF_A_CLASS} samples were left out, "
            f"{int(counts[rare].sum())} samples in all."
        )
    keep = known & ~np.append(rare, False)[asked.codes]
    return asked._replace(codes=np.where(keep, asked.codes, -1))


def _statistics(dataset: Dataset, notes: list[str]) -> list[Asked]:
    """Image statistics as attributes: the lower and the upper half of each, and directions of edges."""
    found = statistic_labels(dataset)
    if found.left_out:
        titles = ", ".join(f"{STATISTICS[name].title} ({why})" for name, why in found.left_out.items())
        notes.append(f"Of the image statistics were left out: {titles}.")
    return [
        Asked(STATISTICS[name].title, codes if name == _NOMINAL else _halves(codes))
        for name, codes in found.labels.items()
    ]


def _halves(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ordered classes as two, most even: least squares cannot read the middle of a scale."""
    below = np.cumsum(np.bincount(codes[codes >= 0])) / max((codes >= 0).sum(), 1)
    cut = np.abs(below - 0.5).argmin()
    return np.where(codes < 0, -1, (codes > cut).astype(np.int64))
