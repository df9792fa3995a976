"""Means and intervals over seeds. Every list holds one figure a seed, in the order of the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from overtone import rng

LEVEL = 0.95
RESAMPLES = 10_000


class Interval(NamedTuple):
    """A figure and where it lies with 95 % confidence."""

    value: float
    low: float
    high: float


def t_interval(values: Sequence[float]) -> Interval:
    """The mean of two figures or more, and Student's interval for it."""
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    reach = error * float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))
    return Interval(mean, mean - reach, mean + reach)


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """How far ours lies above theirs, seed by seed."""
    return t_interval(np.subtract(ours, theirs).tolist())


def share_closed(start: Sequence[float], ours: Sequence[float], goal: Sequence[float]) -> Interval | None:
    """How much of the distance from `start` to `goal` is closed, in percent; None where there is none.

    Of the means, so that a seed with a short distance weighs no more than others. The interval holds the
    middle 95 % of the shares of seeds drawn anew (the percentile bootstrap), those draws left out in which
    there is no distance.
    """
    figures = np.array([start, ours, goal], dtype=np.float64)
    n_seeds = figures.shape[1]
    begin, reached, end = figures.mean(1)
    if end <= begin:
        return None
    draws = rng.numpy_generator(0, "bootstrap").integers(n_seeds, size=(RESAMPLES, n_seeds))
    low, middle, high = figures[:, draws].mean(2)[:, figures[2][draws].mean(1) > figures[0][draws].mean(1)]
    ends = np.quantile(100 * (middle - low) / (high - low), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(100 * float((reached - begin) / (end - begin)), float(ends[0]), float(ends[1]))
