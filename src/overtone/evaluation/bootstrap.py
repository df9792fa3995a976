"""How sure an accuracy is: the percentile bootstrap over the test samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone.rng import numpy_generator

DRAWS = 1000
LEVEL = 95


class Interval(NamedTuple):
    """An accuracy in percent and the bounds of its interval of 95 %."""

    accuracy: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.accuracy:.0f} % ({self.low:.0f} to {self.high:.0f})"


def balanced_accuracy(hits: NDArray[np.bool_], labels: NDArray[np.int64], *, seed: int = 0) -> Interval:
    """The mean over classes of the share of their samples that were read rightly, with its interval.

    The interval is the percentile bootstrap over samples (Efron & Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 13), 1,000 draws. A draw of n samples changes how many samples of each
    class are right and how many wrong, which is one multinomial draw, so no sample is ever copied.
    A class that a draw leaves out does not count in it.

    Args:
        hits: (n,) bool, whether each sample was read rightly.
        labels: (n,) int64, its class.
        seed: Address of the draws, with "bootstrap".

    >>> balanced_accuracy(np.array([True, True, True, False]), np.array([0, 0, 0, 1])).accuracy
    50.0
    """
    _, classes = np.unique(labels, return_inverse=True)
    kinds = np.bincount(2 * classes + hits, minlength=2 * (classes.max() + 1))
    drawn = numpy_generator(seed, "bootstrap").multinomial(len(hits), kinds / kinds.sum(), DRAWS)
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(_balanced(drawn), [tail, 100 - tail])
    return Interval(float(_balanced(kinds[None])[0]), float(low), float(high))


def _balanced(kinds: NDArray[np.int64]) -> NDArray[np.float64]:
    """(draws,) from (draws, 2 x classes): how many samples of each class are wrong and how many right."""
    wrong, right = kinds[:, 0::2], kinds[:, 1::2]
    present = wrong + right > 0
    recall = right / np.maximum(wrong + right, 1)
    mean: NDArray[np.float64] = 100 * recall.sum(axis=1) / present.sum(axis=1)
    return mean
