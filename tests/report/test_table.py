from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from overtone.errors import RecipeError
from overtone.report.table import (
    Comparison,
    Row,
    markdown_table,
    note,
    table_records,
    terminal_tables,
    verdict,
)

EQUAL_COST = Comparison("stages 0-2", "plain x3 (ensemble)", "plain, 3 x longer")
SHAPE: Row = (
    "shape",
    {
        "random": [21.0],
        "stages 0-2": [55.2, 57.4],
        "plain x3 (ensemble)": [47.0, 48.2],
        "plain, 3 x longer": [44.0, 44.0],
        "oracle": [80.0, 81.0],
    },
)
COLOUR: Row = ("colour", {"stages 0-2": [99.5, 99.5], "plain x3 (ensemble)": [99.5, 99.5]})


def terminal(rows: list[Row], *, color: bool = False, width: int = 200) -> str:
    console = Console(width=width, record=True, force_terminal=color, file=io.StringIO())
    for table in terminal_tables(rows, EQUAL_COST, "Linear probe", width):
        console.print(table)
    return console.export_text(styles=color)


def sentence(result: list[float], ensemble: list[float], longer: list[float], n_test: int = 3000) -> str:
    row = ("shape", {"r": result, "e": ensemble, "l": longer})
    (said,) = verdict([row], Comparison("r", "e", "l"), {"shape": n_test})
    return said


@pytest.mark.parametrize("width", [60, 80, 100])
def test_many_attributes_go_into_several_tables_none_of_which_is_cut(width: int) -> None:
    rows = [(f"attribute {number}", SHAPE[1]) for number in range(10)]
    shown = terminal(rows, width=width)
    assert "…" not in shown
    assert [shown.count(name) for name, _ in rows] == [1] * 10
    assert shown.count("56.3 ± 1.6") == 10
    assert max(map(len, shown.splitlines())) <= width
    tables = shown.count("plain x3 (ensemble)")
    assert tables == -(-10 // ((width - 23) // 14)), "as few as fit: 19 + 4 for the names, 11 + 3 a column"


def test_the_terminal_shows_mean_and_spread_of_every_figure_and_says_what_the_spread_is() -> None:
    shown = terminal([SHAPE, COLOUR])
    for text in ("Linear probe", "shape", "colour", "56.3 ± 1.6", "47.6 ± 0.8", "44.0 ± 0.0", "99.5 ± 0.0"):
        assert text in shown
    assert "21.0 " in shown
    assert "21.0 ±" not in shown
    assert "standard deviation over seeds (n - 1)" in note([SHAPE])


def test_no_spread_is_spoken_of_where_there_is_one_seed() -> None:
    assert "±" not in note([("shape", {"stage 0": [21.0]})])


def test_the_best_of_equal_cost_is_bold_and_the_oracle_never() -> None:
    assert markdown_table([SHAPE], EQUAL_COST).splitlines()[2:7] == [
        "| random | 21.0 |",
        "| stages 0-2 | **56.3 ± 1.6** |",
        "| plain x3 (ensemble) | 47.6 ± 0.8 |",
        "| plain, 3 x longer | 44.0 ± 0.0 |",
        "| oracle | 80.5 ± 0.7 |",
    ]
    assert "\x1b[1m56.3 ± 1.6" in terminal([SHAPE], color=True)
    assert "\x1b[1m80.5" not in terminal([SHAPE], color=True)


def test_equal_figures_are_both_bold_and_a_missing_one_is_a_dash() -> None:
    lines = markdown_table([SHAPE, COLOUR], EQUAL_COST).splitlines()
    assert [line.split(" | ")[2] for line in lines[2:7]] == [
        "– |",
        "**99.5 ± 0.0** |",
        "**99.5 ± 0.0** |",
        "– |",
        "– |",
    ]


def test_nothing_is_bold_without_a_baseline() -> None:
    assert "**" not in markdown_table([("shape", {"stages 0-2": [56.0]})], EQUAL_COST)


def test_the_records_are_the_figures_as_json() -> None:
    records = table_records([SHAPE], EQUAL_COST)
    assert json.loads(json.dumps(records)) == records
    assert [r["column"] for r in records if r["best"]] == ["stages 0-2"]
    assert (records[0]["spread"], records[0]["n_seeds"]) == (None, 1)
    assert records[1]["spread"] == pytest.approx(2.2 / 2**0.5)


def test_names_from_a_dataset_change_neither_terminal_nor_markdown() -> None:
    row: Row = ("[bold]a|b<script>\x1b[31m", {"stages 0-2": [1.0]})
    assert "[bold]a|b<script>?[31m" in terminal([row])
    assert markdown_table([row], EQUAL_COST).splitlines()[0] == "|  | [bold]a\\|b&lt;script>?[31m |"


def test_a_gain_beats_the_better_baseline_by_more_than_the_spread() -> None:
    assert verdict([SHAPE], EQUAL_COST, {"shape": 3000}) == [
        "shape: 56.3, against 47.6 for the equal-size ensemble and 44.0 for one encoder trained as long: "
        "+8.7, more than the spread over seeds (1.6): a gain."
    ]
    assert sentence([50, 52], [40, 40], [49, 51]).endswith(
        "+1.0, not more than the spread over seeds (1.4): not a gain."
    )
    assert sentence([50, 50.2], [52, 52.2], [40, 40]).endswith(
        "-2.0, more than the spread over seeds (0.1): a loss."
    )


def test_the_spread_of_the_noisier_side_counts() -> None:
    assert sentence([50, 50], [47, 41], [10, 10]).endswith(
        "+6.0, more than the spread over seeds (4.2): a gain."
    )
    assert sentence([50, 50], [47, 45], [10, 90]).endswith(
        "+0.0, not more than the spread over seeds (56.6): not a gain."
    )


def test_with_one_seed_two_standard_errors_of_the_test_set_stand_in() -> None:
    # of a difference: 2 x sqrt((0.5 x 0.5 + 0.5 x 0.5) / 5000) = 2.0 points
    said = "more than two standard errors on 5,000 test samples (2.0)"
    assert sentence([51.5], [48.5], [40], 5000).endswith(f"+3.0, {said}: a gain.")
    assert sentence([50.5], [49.5], [40], 5000).endswith(f"+1.0, not {said}: not a gain.")


def test_one_baseline_is_enough_and_none_is_said() -> None:
    (said,) = verdict([SHAPE], Comparison("stages 0-2", longer="plain, 3 x longer"), {"shape": 3000})
    assert said.startswith("shape: 56.3, against 44.0 for one encoder trained as long: +12.3")
    (said,) = verdict([SHAPE], Comparison("stages 0-2"), {"shape": 3000})
    assert said.startswith("No baselines were trained: run with --baselines")


def test_a_comparison_with_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match="colour: no column 'plain, 3 x longer'"):
        verdict([COLOUR], EQUAL_COST, {"colour": 3000})
