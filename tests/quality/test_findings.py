from __future__ import annotations

import pytest
from findings import findings, shown
from intervals import Interval
from rows import Aim

FIGURES = {
    "stage 0": [20.0, 22.0],
    "stages 0-2": [39.0, 41.0],
    "3 plain": [30.0, 30.0],
    "1 plain, as long": [25.0, 25.0],
    "paper 0-2": [37.0, 39.0],
    "2 oracle": [40.0, 42.0],
    "3 oracle": [45.0, 47.0],
}


def judged(aim: Aim, **changes: list[float]) -> tuple[bool, str]:
    said = findings({"class": {**FIGURES, **changes}}, [aim], "stages 0-2")
    return said["aims"][0]["met"], said["aims"][0]["sentence"]


@pytest.mark.parametrize(
    ("aim", "met"),
    [
        (Aim("class", "closed", 95), True),
        (Aim("class", "closed", 96), False),
        (Aim("class", "points", 10), True),
        (Aim("class", "points", 10.5), False),
        (Aim("class", "above"), True),
        (Aim("class", "no worse"), True),
    ],
)
def test_an_aim_is_met_from_its_amount_on(aim: Aim, met: bool) -> None:
    assert judged(aim)[0] == met
    assert judged(aim)[1].endswith(": met." if met else ": not met.")


def test_above_every_rival_means_by_more_than_the_larger_spread_also_of_the_weaker_rival() -> None:
    aim = Aim("class", "above")
    assert not judged(aim, **{"paper 0-2": [36.0, 41.0]})[0]  # ahead by 1.5, its spread is 3.5
    assert not judged(aim, **{"1 plain, as long": [5.0, 45.0]})[0]
    assert "+2.0 [+2.0, +2.0] against the best rival, paper 0-2; spread 1.4" in judged(aim)[1]


def test_no_worse_allows_for_the_spread_and_no_more() -> None:
    aim = Aim("class", "no worse")
    assert judged(aim, **{"3 plain": [40.0, 42.0]})[0]
    assert not judged(aim, **{"3 plain": [42.0, 42.0]})[0]


def test_shares_of_both_oracles_are_told_for_every_column() -> None:
    said = findings({"class": FIGURES}, [Aim("class", "closed", 95)], "stages 0-2")
    assert said["closed"]["class"]["2 oracle"]["stages 0-2"]["value"] == pytest.approx(95)
    assert said["closed"]["class"]["3 oracle"]["3 plain"]["value"] == pytest.approx(36)
    assert said["ahead"]["class"]["3 plain"]["value"] == pytest.approx(10)
    assert "stages 0-2" not in said["ahead"]["class"]


def test_without_an_oracle_a_distance_is_not_met_and_the_sentence_says_why() -> None:
    figures = {column: values for column, values in FIGURES.items() if "oracle" not in column}
    (aim,) = findings({"class": figures}, [Aim("class", "closed", 95)], "stages 0-2")["aims"]
    assert (aim["met"], aim["sentence"]) == (False, "class: 2 oracle was not trained: not met.")


def test_an_interval_is_shown_with_one_digit_and_a_difference_with_its_sign() -> None:
    assert shown(Interval(1.26, 0.0, 2.5)) == "1.3 [0.0, 2.5]"
    assert shown(Interval(1.26, -0.5, 2.5), "+") == "+1.3 [-0.5, +2.5]"
