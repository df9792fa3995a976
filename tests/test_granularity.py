from __future__ import annotations

import pytest

from overtone.granularity import FINE, FINEST, MOST_KNOWN, candidates, chosen


@pytest.mark.parametrize("n", [4, 19, 20, 70, 500, 6000, 10**6])
def test_sizes_to_try_fall_from_a_tenth_of_the_data_and_always_fit_two_cells(n: int) -> None:
    coarse, fine = candidates("coarse", n), candidates("fine", n)
    assert coarse == sorted(coarse, reverse=True)
    assert coarse[-len(fine) :] == fine
    assert all(2 <= size <= n / 2 for size in coarse)
    if n >= 500:
        assert coarse[0] == n / 10
        assert coarse[-2:] == [FINE, FINEST]


def test_the_first_size_that_leaves_enough_unknown_is_chosen_and_none_is_tried_after_it() -> None:
    asked = []

    def known(size: int) -> float:
        asked.append(size)
        return MOST_KNOWN if size <= 60 else 0.9

    size, measured = chosen([600, 190, 60, 30], known)
    assert size == 60
    assert asked == [600, 190, 60] == list(measured)


def test_where_every_size_is_known_too_well_the_least_known_one_is_chosen() -> None:
    assert chosen([100, 30, 10], {100: 0.9, 30: 0.6, 10: 0.7}.__getitem__)[0] == 30
