from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from overtone.evaluation.bootstrap import balanced_accuracy


def planted(n: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Uneven classes, each read rightly at a rate of its own."""
    draws = np.random.default_rng(seed)
    labels = draws.choice(3, n, p=[0.7, 0.2, 0.1])
    return draws.random(n) < np.array([0.9, 0.6, 0.3])[labels], labels


def mean_recall(hits: NDArray[np.bool_], labels: NDArray[np.int64]) -> float:
    return 100 * float(np.mean([hits[labels == label].mean() for label in np.unique(labels)]))


def test_the_figure_is_that_of_scikit_learn() -> None:
    hits, labels = planted(400, 0)
    predicted = np.where(hits, labels, (labels + 1) % 3)
    assert balanced_accuracy(hits, labels).accuracy == pytest.approx(
        100 * balanced_accuracy_score(labels, predicted)
    )


def test_the_interval_is_that_of_samples_drawn_again_one_by_one() -> None:
    hits, labels = planted(300, 1)
    draws = np.random.default_rng(2)
    again = [mean_recall(hits[rows], labels[rows]) for rows in draws.integers(0, 300, (4000, 300))]
    found = balanced_accuracy(hits, labels)
    # A percentile of 1,000 draws scatters by a fifth of the standard deviation or less.
    expected = np.percentile(again, [2.5, 97.5]).tolist()
    assert [found.low, found.high] == pytest.approx(expected, abs=0.4 * float(np.std(again)))


def test_the_interval_is_that_of_scipy() -> None:
    hits, labels = planted(300, 3)
    expected = stats.bootstrap(
        (hits, labels),
        mean_recall,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=2000,
        rng=4,
    )
    found = balanced_accuracy(hits, labels)
    assert [found.low, found.high] == pytest.approx(
        list(expected.confidence_interval), abs=0.4 * float(expected.standard_error)
    )


def test_a_class_that_a_draw_leaves_out_does_not_count_in_it() -> None:
    hits, labels = np.array([True] * 9 + [False]), np.array([0] * 9 + [1])
    found = balanced_accuracy(hits, labels)
    assert (found.accuracy, found.low, found.high) == (50, 50, 100)


def test_it_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    hits, labels = planted(200, 5)
    assert balanced_accuracy(hits, labels, seed=1) == balanced_accuracy(hits, labels, seed=1)
    assert balanced_accuracy(hits, labels, seed=1) != balanced_accuracy(hits, labels, seed=2)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    truth = 100 * np.mean([0.9, 0.6, 0.3])
    found = [balanced_accuracy(*planted(500, seed)) for seed in range(200)]
    held = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.88 < held < 0.99
