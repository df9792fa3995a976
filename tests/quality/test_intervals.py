from __future__ import annotations

import numpy as np
import pytest
from intervals import paired_difference, share_closed, t_interval
from scipy import stats

OURS = [42.1, 42.9, 41.8, 43.0, 42.4]
THEIRS = [40.3, 41.9, 41.0, 40.9, 41.5]
START = [24.0, 25.1, 24.7, 26.0, 24.2]


def test_an_interval_is_students_and_a_paired_one_that_of_the_paired_t_test() -> None:
    one = stats.ttest_1samp(OURS, 0.0).confidence_interval(0.95)
    assert t_interval(OURS) == pytest.approx((np.mean(OURS), one.low, one.high))
    two = stats.ttest_rel(OURS, THEIRS).confidence_interval(0.95)
    assert paired_difference(OURS, THEIRS) == pytest.approx(
        (np.mean(OURS) - np.mean(THEIRS), two.low, two.high)
    )


def test_the_share_closed_is_one_of_means_with_the_paired_percentile_bootstrap_over_seeds() -> None:
    def share(start: np.ndarray, ours: np.ndarray, goal: np.ndarray, axis: int = -1) -> np.ndarray:
        low, middle, high = (values.mean(axis) for values in (start, ours, goal))
        return np.asarray(100 * (middle - low) / (high - low))

    goal = [45.0, 46.2, 46.8, 45.5, 46.1]
    expected = stats.bootstrap(
        (START, OURS, goal),
        share,
        n_resamples=20_000,
        paired=True,
        vectorized=True,
        method="percentile",
        rng=0,
    ).confidence_interval
    found = share_closed(START, OURS, goal)
    assert found is not None
    assert found.value == pytest.approx(100 * (42.44 - 24.8) / (45.92 - 24.8))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.2)
    assert share_closed(START, OURS, goal) == found


def test_where_stage_0_reads_as_much_as_the_oracle_nothing_can_be_closed() -> None:
    assert share_closed(OURS, THEIRS, START) is None
