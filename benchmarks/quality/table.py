"""All rows of the benchmark in one table.

    python benchmarks/quality/table.py --out runs/quality
    python benchmarks/quality/table.py --out runs/quality --best

Reads the `results.json` of every row; writes `table.md` and `table.json` (`best.md`, `best.json`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from findings import BEST_RESULT, EQUALS, GOALS, RESULT, START, shown
from intervals import Interval
from rows import ROWS

from overtone import artifacts

Results = Mapping[str, Any]
"""What a row's `results.json` holds."""

NOTE = "Accuracy of a linear probe in percent; ± is the standard deviation over {seeds} seeds (n - 1)."


def row_tables(found: Results, note: str = NOTE) -> str:
    """One row in full: a table for each attribute, one of costs, and what was aimed at."""
    kind, result = ("best", BEST_RESULT) if found["best"] else ("default", RESULT)
    said = found[kind]
    lines = [f"## {_title(found)}", "", *_sentences(said)]
    for attribute in found["scores"]:
        lines += ["", *_attribute_table(said, attribute, result)]
    lines += ["", note.format(seeds=found["seeds"]) + " Brackets hold 95 % intervals.", ""]
    return "\n".join([*lines, *_costs(found["costs"]), ""])


def gathered(rows: Sequence[Results], kind: str) -> str:
    """All rows, the columns of equal cost across, and what was aimed at."""
    result = {"default": RESULT, "best": BEST_RESULT}[kind]
    columns = ("random weights", START, *EQUALS, result, *GOALS)
    goals = [f"closed of {goal}, %" for goal in GOALS]
    lines = _table(
        ["data", "attribute", *columns, *goals],
        [
            [
                _title(found),
                attribute,
                *(_mean(summary.get(column)) for column in columns),
                *_shares(found[kind], attribute, result),
            ]
            for found in rows
            for attribute, summary in found[kind]["summary"].items()
        ],
    )
    for found in rows:
        lines += ["", f"{_title(found)}:", *_sentences(found[kind])]
    return "\n".join([*lines, "", NOTE.format(seeds=_seeds(rows)) + " Brackets hold 95 % intervals.", ""])


def _attribute_table(said: Results, attribute: str, result: str) -> list[str]:
    closed = said["closed"].get(attribute, {})
    head = [
        attribute,
        "accuracy",
        "interval",
        f"{result} ahead by",
        *(f"closed of {goal}, %" for goal in closed),
    ]
    return _table(
        head,
        [
            [
                column,
                _mean(summary),
                f"[{summary['low']:.1f}, {summary['high']:.1f}]",
                _interval(said["ahead"][attribute].get(column), "+"),
                *(_interval(shares[column]) for shares in closed.values()),
            ]
            for column, summary in said["summary"][attribute].items()
        ],
    )


def _costs(costs: Results) -> list[str]:
    return _table(
        ["run", "seconds", "images seen"],
        [
            [run, f"{np.mean(cost['seconds']):,.0f}", f"{np.mean(cost['images']):,.0f}"]
            for run, cost in costs.items()
        ],
    )


def _shares(said: Results, attribute: str, result: str) -> list[str]:
    closed = said["closed"].get(attribute, {})
    return [_interval(closed.get(goal, {}).get(result)) for goal in GOALS]


def _sentences(said: Results) -> list[str]:
    return [f"- {aim['sentence']}" for aim in said["aims"]]


def _title(found: Results) -> str:
    return f"{found['row']}: {found['title']}" + (" (held out)" if found["held_out"] else "")


def _seeds(rows: Sequence[Results]) -> str:
    return " or ".join(map(str, sorted({found["seeds"] for found in rows})))


def _mean(summary: Results | None) -> str:
    return "–" if summary is None else f"{summary['value']:.1f} ± {summary['spread']:.1f}"


def _interval(found: Results | None, sign: str = "") -> str:
    return "–" if found is None else shown(Interval(**found), sign)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/quality"), help="holds a folder for each row")
    parser.add_argument(
        "--best", action="store_true", help="the best setting of each row, where one is known"
    )
    options = parser.parse_args(arguments)
    kind, name = ("best", "best") if options.best else ("default", "table")
    places = [options.out / row / "results.json" for row in ROWS]
    rows = [found for place in places if place.is_file() and (found := artifacts.read_json(place))[kind]]
    if not rows:
        parser.error(f"--out {options.out}: no row there is finished; run benchmarks/quality/run.py first")
    text = gathered(rows, kind)
    artifacts.write_text(options.out / f"{name}.md", text)
    artifacts.write_json(options.out / f"{name}.json", {found["row"]: found for found in rows})
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
