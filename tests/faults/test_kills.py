"""SIGKILL at any moment: the run goes on from where it was saved, and ends in the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from trials import POINTS, STEPS, killed, killing, moments, require_same, run, unfinished, uninterrupted

from overtone.rng import numpy_generator

__all__ = ["uninterrupted"]

RENAMES = "between the two renames"
CORE = {("inside a file", 0), ("while the old are removed", 0)}  # the others are slow


def test_a_run_killed_at_random_moments_loses_nothing(tmp_path: Path, uninterrupted: Path) -> None:
    kills = killed(tmp_path / "run", moments(seed=0, kills=3, seconds=1.5))
    require_same(tmp_path / "run", uninterrupted)
    assert kills.redone_steps <= kills.done  # it is saved after every step


@pytest.mark.parametrize(
    ("point", "number"),
    [
        pytest.param(point, int(number), marks=[] if (point, at) in CORE else pytest.mark.slow)
        for point in POINTS
        for at, number in enumerate(numpy_generator(0, "kills", point).integers(1, 2 * STEPS, 3))
        if point != RENAMES
    ],
)
def test_a_run_killed_inside_a_write_loses_nothing_and_leaves_nothing_behind(
    tmp_path: Path, uninterrupted: Path, point: str, number: int
) -> None:
    folder = tmp_path / "run"
    ended = run(folder, killing(point, number))
    assert ended.code == -9, ended.said
    assert run(folder).code == 0
    require_same(folder, uninterrupted)
    assert not unfinished(folder)
