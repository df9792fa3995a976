"""The page of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone.report import printable
from overtone.report.charts import Curve, line_chart
from overtone.report.findings import Figures, Findings
from overtone.report.page import Cell, HeatRow, Section, charts, heat_map, page, paragraphs, table
from overtone.report.run_page import COLOURS, accuracy, curve_title, mean, seconds, square
from overtone.report.table import Comparison, gain

TOGETHER = "all stages together"
MOST_ATTRIBUTES = 16
_FIELDS = 200


class Likeness(NamedTuple):
    """Linear CKA (n, n) between the final embeddings of n runs, on so many samples."""

    names: Sequence[str]
    cka: NDArray[np.float64]
    samples: int


def compare_page(found: Sequence[Findings], likeness: Likeness | str) -> str:
    """The whole page.

    Args:
        found: What each run's folder tells; their names differ.
        likeness: Of their embeddings, or why it cannot be told.
    """
    sections = [_accuracies(found), _differences(found), _curves(found), _likeness(likeness), _costs(found)]
    title = " beside ".join(printable(each.name) for each in found)
    notes = [f"{printable(each.name)}: {said}" for each in found for said in each.state]
    notes += [likeness] if isinstance(likeness, str) else []
    return page(title, headline(found), [section for section in sections if section], notes=notes)


def headline(found: Sequence[Findings]) -> str:
    """The attribute in which the runs differ most, and whether that is more than noise."""
    read = {each.name: each.figures for each in found if each.figures}
    shared = [a for a in _attributes(found) if all(a in dict(figures.linear) for figures in read.values())]
    if len(read) < 2 or not shared:
        why = "fewer than two have accuracies" if len(read) < 2 else "no attribute was read from all of them"
        return f"{len(found)} runs side by side; {why}."
    values = {
        attribute: {name: _result(figures, attribute) for name, figures in read.items()}
        for attribute in shared
    }

    def spread(attribute: str) -> float:
        means = [mean(each) for each in values[attribute].values()]
        return max(means) - min(means)

    attribute = max(shared, key=spread)
    ordered = sorted(values[attribute], key=lambda name: -mean(values[attribute][name]))
    n_test = min(figures.n_test[attribute] for figures in read.values())
    judged = gain(values[attribute], Comparison(ordered[0], ordered[-1]), n_test)
    said = ", ".join(f"{mean(values[attribute][name]):.1f} % in {printable(name)}" for name in ordered)
    clear = "more" if judged.judgement == "a gain" else "not more"
    noise = f"{clear} than {judged.meaning} ({judged.noise:.1f})"
    return f"They differ most in {printable(attribute)}: {said}; {noise}."


def _attributes(found: Sequence[Findings]) -> list[str]:
    return list(dict.fromkeys(a for each in found if each.figures for a, _ in each.figures.linear))


def _result(figures: Figures, attribute: str) -> Sequence[float]:
    return dict(figures.linear)[attribute][figures.comparison.result]


def _accuracies(found: Sequence[Findings]) -> Section | None:
    attributes = _attributes(found)
    if not attributes:
        return None
    shown = attributes[:MOST_ATTRIBUTES]
    read = {attribute: [each for each in found if _row(each, attribute)] for attribute in shown}
    rows = []
    names = [column for each in found if each.figures for _, row in each.figures.linear for column in row]
    for column in [TOGETHER, *dict.fromkeys(names)]:
        cells = [_cell(each, attribute, column) for attribute in shown for each in read[attribute]]
        rows.append(
            HeatRow(
                column, cells, "The result of each run" if column == TOGETHER else "Its parts and baselines"
            )
        )
    more = f" The first {len(shown)} of {len(attributes)} attributes." * (len(attributes) > len(shown))
    body = heat_map(
        f"Accuracy of a linear probe in percent, with its 95 % interval. {COLOURS}{more}",
        [printable(each.name) for attribute in shown for each in read[attribute]],
        rows,
        groups=[(printable(attribute), len(read[attribute])) for attribute in shown],
    )
    return Section("What each run reads", body, "For each attribute, the runs beside each other.")


def _row(found: Findings, attribute: str) -> Mapping[str, Sequence[float]]:
    return {} if found.figures is None else dict(found.figures.linear).get(attribute, {})


def _cell(found: Findings, attribute: str, column: str) -> Cell:
    figures, row = found.figures, _row(found, attribute)
    if figures is None or (name := figures.comparison.result if column == TOGETHER else column) not in row:
        return Cell("–")
    chance = mean(row.get("chance", [0.0]))
    if column == "chance":
        return Cell(f"{chance:.1f}", 0.0)
    return accuracy(row[name], figures.n_test[attribute], chance)


def _differences(found: Sequence[Findings]) -> Section:
    fields = [{**each.fields, "seeds": each.seeds} for each in found]
    names = dict.fromkeys(name for each in fields for name in each)
    differing = [name for name in names if len({repr(each.get(name, None)) for each in fields}) > 1]
    if not differing:
        return Section("Where the recipes differ", paragraphs(["Nowhere: the recipes are the same."]))
    rows = [[name, *(_shown(each, name) for each in fields)] for name in differing[:_FIELDS]]
    caption = f"{len(differing)} field{'s' * (len(differing) != 1)}; all others are alike."
    return Section(
        "Where the recipes differ", table(caption, ["field", *(e.name for e in found)], rows, words=True)
    )


def _shown(fields: dict[str, object], name: str) -> str:
    return printable(str(fields[name]), 60) if name in fields else "–"


def _curves(found: Sequence[Findings]) -> Section | None:
    names = dict.fromkeys(n for each in found for stage in each.stages for n in stage.training.curves)
    drawn = [
        line_chart(
            curve_title(name),
            [
                Curve(f"{printable(each.name)}, stage {s.number}", s.training.curves[name], run, s.number)
                for run, each in enumerate(found)
                for s in each.stages
                if name in s.training.curves
            ],
        )
        for name in list(names)[:MOST_ATTRIBUTES]
        if name != "epoch"
    ]
    return Section("Curves", charts(drawn), "A colour a run, a dash a stage.") if any(drawn) else None


def _likeness(likeness: Likeness | str) -> Section:
    heading = "How alike the results are"
    if isinstance(likeness, str):
        return Section(heading, paragraphs([likeness]))
    caption = "Linear CKA of all stages together: 1 is the same up to rotation and scale."
    names = [printable(name) for name in likeness.names]
    return Section(
        heading, square(caption, names, likeness.cka), f"On the same {likeness.samples:,} samples."
    )


def _costs(found: Sequence[Findings]) -> Section:
    rows = []
    for each in found:
        spent = [cost.seconds for cost in each.costs if cost.seconds is not None]
        trained = each.costs[0] if each.costs else None
        rows.append(
            [
                each.name,
                seconds(trained.seconds if trained else None),
                f"{trained.samples:,}" if trained else "–",
                seconds(sum(spent)) if spent else "–",
                "yes" if each.finished else "no",
            ]
        )
    columns = ["run", "stages, first seed", "samples seen", "with all seeds and baselines", "finished"]
    return Section("Cost", table("Time and samples.", columns, rows))
