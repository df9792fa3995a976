"""What the figures of a row say: intervals, differences, distances closed, and whether the aims are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from intervals import Interval, paired_difference, share_closed, t_interval
from rows import RIVALS, STAGES, Aim

Figures = Mapping[str, Sequence[float]]
"""Column -> accuracies in percent, one a seed."""

START = "stage 0"
ENSEMBLE = f"{STAGES} plain"
LONGER = "1 plain, as long"
PAPER = f"paper 0-{STAGES - 1}"
RESULT = f"stages 0-{STAGES - 1}"
BEST_RESULT = f"best 0-{STAGES - 1}"
GOALS = tuple(f"{size} oracle" for size in (STAGES - 1, STAGES))
EQUALS = (ENSEMBLE, LONGER, *(f"{STAGES} {name}" for name in RIVALS), PAPER)
"""What has seen as many images as the result."""


def findings(scores: Mapping[str, Figures], aims: Sequence[Aim], result: str) -> dict[str, Any]:
    """What the figures of a row say, as plain values.

    Args:
        scores: Attribute -> figures.
        aims: Those of the row.
        result: The column that is judged.
    """
    return {
        "summary": {name: {c: _summary(v) for c, v in figures.items()} for name, figures in scores.items()},
        "ahead": {name: _ahead(figures, result) for name, figures in scores.items()},
        "closed": {aim.attribute: _closed(scores[aim.attribute]) for aim in aims},
        "aims": [_judged(aim, scores[aim.attribute], result) for aim in aims],
    }


def _summary(values: Sequence[float]) -> dict[str, Any]:
    return {**t_interval(values)._asdict(), "spread": spread(values)}


def _ahead(figures: Figures, result: str) -> dict[str, Any]:
    """How far the result lies above each other column."""
    return {c: paired_difference(figures[result], v)._asdict() for c, v in figures.items() if c != result}


def _closed(figures: Figures) -> dict[str, Any]:
    """Goal -> column -> how much of the distance from stage 0 it closes."""
    shares = {
        goal: {
            column: share_closed(figures[START], values, figures[goal]) for column, values in figures.items()
        }
        for goal in GOALS
        if goal in figures
    }
    return {
        goal: {column: share and share._asdict() for column, share in found.items()}
        for goal, found in shares.items()
    }


def _judged(aim: Aim, figures: Figures, result: str) -> dict[str, Any]:
    met, words = _JUDGES[aim.kind](aim, figures, result)
    verdict = "met" if met else "not met"
    return {**aim._asdict(), "met": met, "sentence": f"{aim.attribute}: {words}: {verdict}."}


def _judge_closed(aim: Aim, figures: Figures, result: str) -> tuple[bool, str]:
    goal = GOALS[0]
    if goal not in figures:
        return False, f"{goal} was not trained"
    share = share_closed(figures[START], figures[result], figures[goal])
    if share is None:
        return False, f"nothing to close, {START} is not below {goal}"
    words = f"{shown(share)} % of the distance from {START} to {goal} closed, aim {aim.amount:g} %"
    return share.value >= aim.amount, words


def _judge_points(aim: Aim, figures: Figures, result: str) -> tuple[bool, str]:
    ahead = paired_difference(figures[result], figures[ENSEMBLE])
    return ahead.value >= aim.amount, f"{shown(ahead, '+')} against {ENSEMBLE}, aim {aim.amount:+g}"


def _judge_above(aim: Aim, figures: Figures, result: str) -> tuple[bool, str]:
    rivals = [column for column in EQUALS if column in figures]
    best = max(rivals, key=lambda rival: float(np.mean(figures[rival])))
    gains = {rival: against(figures, result, rival) for rival in rivals}
    met = all(gain > noise for gain, noise in gains.values())
    ahead, noise = paired_difference(figures[result], figures[best]), gains[best][1]
    return met, f"{shown(ahead, '+')} against the best rival, {best}; spread {noise:.1f}"


def _judge_no_worse(aim: Aim, figures: Figures, result: str) -> tuple[bool, str]:
    gain, noise = against(figures, result, ENSEMBLE)
    ahead = paired_difference(figures[result], figures[ENSEMBLE])
    return gain >= -noise, f"{shown(ahead, '+')} against {ENSEMBLE}; spread {noise:.1f}"


_JUDGES = {
    "closed": _judge_closed,
    "points": _judge_points,
    "above": _judge_above,
    "no worse": _judge_no_worse,
}


def against(figures: Figures, result: str, rival: str) -> tuple[float, float]:
    """By how much the result leads, and the larger of both standard deviations."""
    ours, theirs = figures[result], figures[rival]
    return float(np.mean(ours) - np.mean(theirs)), max(spread(ours), spread(theirs))


def spread(values: Sequence[float]) -> float:
    """The standard deviation over seeds (n - 1)."""
    return float(np.std(values, ddof=1))


def shown(interval: Interval, sign: str = "") -> str:
    """An interval in a table.

    >>> shown(Interval(1.25, 0.0, 2.5), "+")
    '+1.2 [+0.0, +2.5]'
    """
    value, low, high = (format(number, f"{sign}.1f") for number in interval)
    return f"{value} [{low}, {high}]"
