"""The page of a run, made of what its folder and its embeddings say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from overtone.evaluation.pairs import wilson
from overtone.progress import duration
from overtone.report import printable
from overtone.report.charts import Curve, Group, bar_chart, line_chart, picture_map, scatter
from overtone.report.findings import Cost, Figures, Findings, Map, Seen, Shares, Stage
from overtone.report.page import (
    SERIES,
    Cell,
    HeatRow,
    Section,
    Strip,
    beside,
    bullets,
    charts,
    choice,
    details,
    facts,
    figure,
    heat_map,
    joined,
    lines,
    page,
    paragraphs,
    strips,
    table,
)
from overtone.report.table import Row, gain

COLOURS = "The stronger the colour, the further above chance (none) and the nearer to 100 (full)."
_GROUPS = {
    "all stages": "Stages side by side",  # of seeds that stopped at different stages
    "chance": "Without training",
    "random weights": "Without training",
    "whitened": "All stages as one encoder",
    "weighted": "All stages as one encoder",
    "projected": "All stages as one encoder",
    "distilled": "All stages as one encoder",
}
MOST_ATTRIBUTES = 40  # columns of a heat map
_LINES = 400  # of a recipe
_VALUES = SERIES  # of an attribute that the map tells apart


def run_page(found: Findings, seen: Seen | None) -> str:
    """The whole page of a run.

    Args:
        found: What its folder tells.
        seen: What its embeddings show; None before the first stage is there.
    """
    sections: list[Section | None] = [
        _accuracies(found),
        _neighbours(seen),
        _map(seen),
        _cells(found, seen),
        _hidden(seen),
        _likeness(seen),
        _curves(found.stages),
        _left_out(found.remarks),
        _recipe(found),
    ]
    title = f"{found.name} · {len(found.stages)} stage{'s' * (len(found.stages) != 1)}"
    notes = [*found.state, *_notes(found)]
    return page(title, headline(found, seen), [section for section in sections if section], notes=notes)


def headline(found: Findings, seen: Seen | None) -> str:
    """What was found, in one sentence."""
    if found.figures and found.figures.linear:
        return _gained(found.figures)
    trained = sum(stage.state in ("trained", "given") for stage in found.stages)
    if not found.finished and trained < len(found.stages):
        return f"{trained} of {len(found.stages)} stages are trained."
    if seen and seen.shares and len(found.stages) > 1:
        return " ".join(_said_of(seen.shares))
    return f"{len(found.stages)} stages are trained; without labels, nothing says what each learned."


def _gained(figures: Figures) -> str:
    """On the attribute that gained most on the baselines, else on that which rose most."""
    result = figures.comparison.result
    compared = figures.comparison.ensemble is not None

    def rise(row: Row) -> float:
        return mean(row[1][result]) - mean(row[1].get("stage 0", row[1][result]))

    if not compared:
        attribute, row = max(figures.linear, key=rise)
        if result == "stage 0":
            return f"One stage reads {printable(attribute)} to {mean(row[result]):.1f} %."
        return f"{_course(attribute, row, result)}; no baseline was trained beside it."
    found = {a: gain(row, figures.comparison, figures.n_test[a]) for a, row in figures.linear}
    attribute = max(found, key=lambda name: (found[name].judgement == "a gain", found[name].points))
    row, (points, _, _, judgement) = dict(figures.linear)[attribute], found[attribute]
    ensemble = mean(row[figures.comparison.ensemble or ""])
    end = f"a gain of {points:.1f} points" if judgement == "a gain" else f"{points:+.1f} points, {judgement}"
    return (
        f"{_course(attribute, row, result)}; an ensemble of equal size reads it to {ensemble:.1f} %: {end}."
    )


def _course(attribute: str, row: Mapping[str, Sequence[float]], result: str) -> str:
    before, after = mean(row.get("stage 0", row[result])), mean(row[result])
    moves = "rises" if after > before else "falls" if after < before else "goes"
    return f"In stages, {printable(attribute)} {moves} from {before:.1f} % to {after:.1f} %"


def _notes(found: Findings) -> list[str]:
    if not found.figures or found.figures.comparison.ensemble is None or len(found.figures.linear) < 2:
        return []
    judged = Counter[str]()
    for attribute, row in found.figures.linear:
        judged[gain(row, found.figures.comparison, found.figures.n_test[attribute]).judgement] += 1
    words = {"a gain": "gained", "not a gain": "did not gain", "a loss": "lost"}
    parts = [f"{count} {words[name]}" for name, count in judged.items()]
    said = f"Of {len(found.figures.linear)} attributes, {', '.join(parts)}"
    return [f"{said} on what the same cost buys without stages."]


def mean(values: Sequence[float]) -> float:
    """The mean of accuracies over seeds.

    >>> mean([40.0, 42.0])
    41.0
    """
    return sum(values) / len(values)


def interval(values: Sequence[float], n_test: int) -> tuple[float, float]:
    """95 % interval of an accuracy in percent: Student's over seeds; of one seed, Wilson's over test samples.

    >>> [round(end, 1) for end in interval([40.0, 42.0, 44.0], 100)]
    [37.0, 47.0]
    >>> [round(end, 1) for end in interval([40.0], 15)]
    [19.8, 64.3]
    """
    if len(values) == 1:
        low, high = wilson(round(values[0] * n_test / 100), n_test)
        return 100 * low, 100 * high
    from scipy.stats import t

    middle, n = mean(values), len(values)
    spread = math.sqrt(sum((value - middle) ** 2 for value in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * spread / math.sqrt(n)
    return max(0.0, middle - half), min(100.0, middle + half)


def accuracy(values: Sequence[float], n_test: int, chance: float, *, best: bool = False) -> Cell:
    """A cell of accuracy with its interval; of chance without.

    >>> accuracy([55.0], 1000, 10.0).level
    0.5
    """
    low, high = interval(values, n_test)
    level = (mean(values) - chance) / max(100 - chance, 1e-9)
    return Cell(f"{mean(values):.1f}", level, f"{low:.1f}–{high:.1f}", best)


def _accuracies(found: Findings) -> Section | None:
    figures = found.figures
    if figures is None or not figures.linear:
        return None
    several = any(len(values) > 1 for _, row in figures.linear for values in row.values())
    what = "Student's over seeds" if several else "Wilson's (binomial) over the test samples"
    caption = f"Accuracy of a linear probe in percent, with its 95 % interval: {what}. {COLOURS}"
    body = _table(figures, figures.linear, caption)
    body = beside(body, bullets(figures.sentences))
    body += details(
        "The same by k nearest neighbours",
        _table(figures, figures.knn, caption.replace("a linear probe", "k nearest neighbours")),
    )
    return Section(
        "What each stage reads",
        body,
        "Embeddings are frozen; a linear probe learns to read each attribute from them. The star marks the "
        "best among encoders of equal cost.",
    )


def _table(figures: Figures, rows: Sequence[Row], caption: str) -> Markup:
    shown = rows[:MOST_ATTRIBUTES]
    names = list(dict.fromkeys(column for _, row in shown for column in row))
    best = {attribute: best_of(row, figures) for attribute, row in shown}
    heat = [
        HeatRow(
            column,
            [
                _accuracy(attribute, row, column, figures, column in best[attribute])
                for attribute, row in shown
            ],
            group_of(column, figures),
        )
        for column in sorted(names, key=lambda name: _order(group_of(name, figures)))
    ]
    more = f" The first {len(shown)} of {len(rows)} attributes." if len(rows) > len(shown) else ""
    return heat_map(caption + more, [printable(attribute) for attribute, _ in shown], heat)


def _accuracy(
    attribute: str, row: Mapping[str, Sequence[float]], column: str, figures: Figures, best: bool
) -> Cell:
    if column not in row:
        return Cell("–")
    chance = mean(row.get("chance", [0.0]))
    if column == "chance":
        return Cell(f"{chance:.1f}", 0.0)
    return accuracy(row[column], figures.n_test[attribute], chance, best=best)


def best_of(row: Mapping[str, Sequence[float]], figures: Figures) -> set[str]:
    """The best of the columns of equal cost, to the digit shown; none where there is nothing to compare."""
    means = {c: round(mean(row[c]), 1) for c in figures.comparison if c is not None and c in row}
    return {c for c, value in means.items() if value == max(means.values())} if len(means) > 1 else set()


def group_of(column: str, figures: Figures) -> str:
    """Under which words a column of the table stands."""
    if column in (figures.comparison.ensemble, figures.comparison.longer):
        return "The same cost without stages"
    if column.startswith("stages "):
        return "Stages side by side"
    return _GROUPS.get(column, "Each stage alone")


def _order(group: str) -> int:
    known = (
        "Without training",
        "Each stage alone",
        "Stages side by side",
        "All stages as one encoder",
        "The same cost without stages",
    )
    return known.index(group)


def _neighbours(seen: Seen | None) -> Section | None:
    if seen is None or not (seen.shares or seen.queries):
        return None
    body = Markup("")
    if seen.shares:
        body += beside(_share_table(seen.shares), bullets(_said_of(seen.shares)))
    if seen.queries:
        panels = []
        for number, query in enumerate(seen.queries, start=1):
            words = query.picture.alt
            caption = f"Sample {number}: {words}. Below each neighbour, in what it is like the sample."
            itself = Strip("the sample", [query.picture])
            panels.append((f"sample {number}", strips(caption, [itself, *query.strips])))
        body += choice("sample", "Show the neighbours of", panels)
    amount = (
        f"all {seen.n:,} samples" if seen.pool == seen.n else f"a draw of {seen.pool:,} of {seen.n:,} samples"
    )
    return Section(
        "Nearest neighbours",
        body,
        f"What a stage takes for alike. By cosine, among {amount}; nothing was fitted to labels.",
    )


def _said_of(shares: Shares) -> list[str]:
    """A sentence on each stage: the attribute in which its neighbours agree most beyond chance."""
    columns = list(dict.fromkeys(column for row in shares.by_column.values() for column in row))
    said = []
    for column in columns[:12]:
        beyond = {
            name: (row[column] - shares.chance[name]) / max(100 - shares.chance[name], 1e-9)
            for name, row in shares.by_column.items()
        }
        name = max(beyond, key=lambda key: beyond[key])
        what = f"{column[:1].upper()}{column[1:]}", printable(name)
        says = "{} says same {}" if beyond[name] >= 0.5 else "{} agrees most in {}"
        said.append(
            f"{says.format(*what)}: {shares.by_column[name][column]:.0f} % of its neighbours "
            f"(by chance {shares.chance[name]:.0f} %)."
        )
    return said


def _share_table(shares: Shares) -> Markup:
    attributes = list(shares.by_column)[:MOST_ATTRIBUTES]
    columns = list(shares.by_column[attributes[0]])
    rows = [HeatRow("chance", [Cell(f"{shares.chance[name]:.0f}", 0.0) for name in attributes])]
    for column in columns:
        cells = []
        for name in attributes:
            share, chance = shares.by_column[name][column], shares.chance[name]
            cells.append(Cell(f"{share:.0f}", (share - chance) / max(100 - chance, 1e-9)))
        rows.append(HeatRow(column, cells))
    caption = f"How many of a sample's six nearest neighbours share its value, in percent. {COLOURS}"
    return heat_map(caption, [printable(name) for name in attributes], rows)


def _map(seen: Seen | None) -> Section | None:
    if seen is None or seen.map is None:
        return None
    made, options = seen.map, []
    if made.pictures:
        options.append(("the pictures", _stamps(made)))
    options += [(printable(name), _coloured(made, name)) for name in made.values]
    if not options:
        options = [
            (
                "all",
                scatter(
                    "All stages together.", [Group("samples", [(float(x), float(y)) for x, y in made.places])]
                ),
            )
        ]
    return Section(
        "A map of samples",
        choice("map", "Show by", options),
        f"{len(made.places):,} samples by all stages together, laid out by their embeddings (t-SNE: nearness "
        "counts, distances and sizes of groups do not).",
    )


def _coloured(made: Map, attribute: str) -> Markup:
    values = made.values[attribute]
    common = [name for name, _ in Counter(sorted(filter(None, values))).most_common(_VALUES)]
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in sorted(common)}
    others: list[tuple[float, float]] = []
    for (x, y), value in zip(made.places.tolist(), values, strict=True):
        points.get(value, others).append((x, y))
    groups = [Group(name, places, number) for number, (name, places) in enumerate(points.items())]
    rest = "all others" if any(value and value not in points for value in values) else "no label"
    return scatter(
        f"Marked by {printable(attribute)}.",
        [Group(rest, others, None), *groups],
        said=f"{len(values):,} points, one a sample, in {len(groups)} marks by {printable(attribute)}.",
    )


def _stamps(made: Map) -> Markup:
    stamps = [(*made.places[number].tolist(), uri) for number, uri in made.pictures]
    return picture_map("One of the samples near each place.", stamps)


def _cells(found: Findings, seen: Seen | None) -> Section | None:
    galleries: dict[int, tuple[str, Sequence[Strip]]] = {}
    if seen is not None:
        galleries = {number: (purity, rows) for number, purity, rows in seen.cells}
    options = []
    for stage in sorted(found.stages, key=lambda one: not one.cell_sizes):  # stage 0 has none, and comes last
        if not stage.cell_sizes and not stage.coverage:
            continue
        purity, rows = galleries.get(stage.number, ("", []))
        body = paragraphs([said for said in (*stage.chosen, purity) if said])
        if rows:
            body += strips(
                "A row shows samples of one cell, which the stages before cannot tell apart.", rows
            )
        if stage.cell_sizes:
            body += bar_chart("Cells by their number of samples.", stage.cell_sizes, x="samples", y="cells")
        body += facts(coverage_facts(stage.coverage))
        options.append((f"stage {stage.number}", body))
    if not options:
        return None
    return Section(
        "Cells",
        choice("cells", "Cells of", options),
        "A stage takes its negatives from cells of samples that the stages before it cannot tell apart, so "
        "that what those know is of no use to it.",
    )


def coverage_facts(coverage: Mapping[str, object]) -> list[tuple[str, str]]:
    """What the batches of a stage hold, as names and values."""

    def number(name: str) -> str:
        value = coverage.get(name)
        return f"{value:,}" if isinstance(value, int) else f"{value:.1f}" if isinstance(value, float) else "–"

    found = [
        ("batches an epoch", number("batches")),
        ("samples in an epoch", f"{number('samples_used')} of {number('samples')}"),
        ("cells", number("cells")),
        ("cells in a batch", number("cells_per_batch")),
        ("cells cut by a batch", number("cells_cut")),
    ]
    negatives = coverage.get("negatives")
    if isinstance(negatives, list) and len(negatives) == 3:
        low, middle, high = negatives
        found.append(("negatives of an anchor", f"{low}–{high}, median {middle}"))
    return found if coverage else []


def _hidden(seen: Seen | None) -> Section | None:
    if seen is None or not seen.hidden:
        return None
    body = joined(
        figure(
            f"Stage {number}: pictures, what earlier stages look at in them (red), and two views of it.",
            uri,
            f"A sheet of pictures and of what the views of stage {number} hide of them.",
        )
        for number, uri in seen.hidden
    )
    return Section(
        "What was hidden",
        body,
        "Where cells cannot make useless what earlier stages know, views hide the places they look at.",
    )


def _likeness(seen: Seen | None) -> Section | None:
    if seen is None or seen.likeness is None or len(seen.likeness.names) < 2:
        return None
    like = seen.likeness
    cka = "Linear CKA of embeddings: 1 is the same up to rotation and scale."
    nmi = (
        f"Mutual information of clusterings, from 0 to 1; shuffled clusters come to {like.nmi_by_chance:.2f}."
    )
    return Section(
        "How alike the stages are",
        joined([square(cka, like.names, like.cka), square(nmi, like.names, like.nmi)]),
        f"On the same {seen.pool:,} samples. A stage that is much like another has added little.",
    )


def square(caption: str, names: Sequence[str], values: NDArray[np.float64]) -> Markup:
    """A heat map of each with each."""
    rows = [
        HeatRow(
            name, [Cell(f"{value:.2f}", float(value)) if math.isfinite(value) else Cell("–") for value in row]
        )
        for name, row in zip(names, values.tolist(), strict=True)
    ]
    return heat_map(caption, names, rows)


def _curves(stages: Sequence[Stage]) -> Section | None:
    names = list(dict.fromkeys(name for stage in stages for name in stage.training.curves))
    drawn = [
        line_chart(
            curve_title(name),
            [
                Curve(f"stage {stage.number}", stage.training.curves[name], stage.number)
                for stage in stages
                if name in stage.training.curves
            ],
        )
        for name in names[: MOST_ATTRIBUTES // 2]
        if name != "epoch"
    ]
    if not any(drawn):
        return None
    return Section("Curves", charts(drawn), "Each stage begins anew at step 0.")


def curve_title(name: str) -> str:
    """What a curve of the log shows."""
    if name.startswith("knn/"):
        return f"{printable(name[4:])}: accuracy of nearest neighbours while training, in percent."
    return {"loss": "Loss.", "effective_rank": "Effective rank of what the head gives for a batch."}.get(
        name, printable(name)
    )


def _left_out(remarks: Sequence[str]) -> Section | None:
    return Section("Skipped, dropped, approximated", bullets(remarks)) if remarks else None


def _recipe(found: Findings) -> Section:
    shown = list(found.recipe[:_LINES])
    shown += [f"… and {len(found.recipe) - _LINES} more lines"] * (len(found.recipe) > _LINES)
    body = facts(found.machine) + cost_table(found.costs) + details("The recipe", lines(shown))
    return Section("Recipe, versions, cost", body)


def cost_table(costs: Sequence[Cost]) -> Markup:
    """What every run cost."""
    rows = [[cost.run, seconds(cost.seconds), f"{cost.samples:,}"] for cost in costs]
    total = [cost.seconds for cost in costs if cost.seconds is not None]
    if len(rows) > 1:
        rows.append(["together", seconds(sum(total)), f"{sum(cost.samples for cost in costs):,}"])
    return table("Cost of every run, clustering and embedding included.", ["", "time", "samples seen"], rows)


def seconds(value: float | None) -> str:
    """A time as a person says it, or a dash."""
    return "–" if value is None else duration(value)
