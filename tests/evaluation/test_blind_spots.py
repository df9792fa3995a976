from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from overtone.errors import DataError, NumericalError, RecipeError
from overtone.evaluation.blind_spots import BlindSpot, blind_spots

N = 60


def drawn(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Embeddings with many pairs near each other, and others without."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(6, 5))[draw.integers(6, size=N)] + 0.3 * draw.normal(size=(N, 5)), draw.normal(
        size=(N, 4)
    )


def cosine(rows: NDArray[np.float64], one: int, other: int) -> float:
    a, b = rows[one], rows[other]
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def by_loops(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    alike: float,
    different: float,
    per_sample: int,
    most: int,
) -> list[BlindSpot]:
    candidates = []
    for one, other in combinations(range(N), 2):
        pair = BlindSpot(one, other, cosine(first, one, other), cosine(second, one, other))
        if pair.cosine > alike and pair.other_cosine < different:
            candidates.append(pair)
    candidates.sort(key=lambda pair: pair.other_cosine - pair.cosine)
    taken: list[BlindSpot] = []
    for pair in candidates:
        used = [row for other in taken for row in other[:2]]
        if len(taken) < most and max(used.count(pair.first), used.count(pair.second)) < per_sample:
            taken.append(pair)
    return taken


@pytest.mark.parametrize("chunk", [7, 30, 1000])
@pytest.mark.parametrize(("per_sample", "most"), [(1, 1000), (3, 1000), (1, 4)])
def test_pairs_are_those_of_a_double_loop_whatever_the_chunk(chunk: int, per_sample: int, most: int) -> None:
    first, second = drawn()
    found = blind_spots(
        first,
        second,
        alike=0.9,
        different=0.5,
        per_sample=per_sample,
        most=most,
        partners=N,
        chunk=chunk,
    )
    wanted = by_loops(first, second, 0.9, 0.5, per_sample, most)
    assert len(wanted) >= 4
    assert [pair[:2] for pair in found] == [pair[:2] for pair in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours[2:] == pytest.approx(theirs[2:], abs=1e-6)


def test_few_partners_leave_every_rule_standing_and_the_clearest_pair_first() -> None:
    first, second = drawn(1)
    found = blind_spots(first, second, alike=0.9, different=0.5, partners=1, chunk=16)
    rows = [row for pair in found for row in pair[:2]]
    assert len(found) > 3
    assert len(set(rows)) == len(rows)
    assert all(pair.cosine > 0.9 and pair.other_cosine < 0.5 for pair in found)
    gaps = [pair.cosine - pair.other_cosine for pair in found]
    assert all(one >= other for one, other in pairwise(gaps))
    assert found[0][:2] == by_loops(first, second, 0.9, 0.5, 1, 1)[0][:2]


def test_copies_are_no_blind_pairs_and_neither_is_a_sample_with_itself() -> None:
    rows = np.repeat(np.eye(3), 2, axis=0)
    assert blind_spots(rows, rows) == []


def test_each_block_is_told_once() -> None:
    seen: list[tuple[int, int]] = []
    first, second = drawn()
    blind_spots(first, second, chunk=20, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 6) for i in range(1, 7)]


def test_bad_input_is_refused_with_what_was_given() -> None:
    first, second = drawn()
    with pytest.raises(DataError, match=r"\(60, 5\) and \(59, 4\)"):
        blind_spots(first, second[1:])
    with pytest.raises(RecipeError, match="alike=95"):
        blind_spots(first, second, alike=95)
    with pytest.raises(RecipeError, match="per_sample=0"):
        blind_spots(first, second, per_sample=0)
    with pytest.raises(NumericalError, match="row 37 is not finite"):
        blind_spots(np.where(np.arange(N)[:, None] == 37, np.nan, first), second, chunk=20)
