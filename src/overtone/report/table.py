"""The closing table: what each stage reads, beside what the same cost buys without stages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypedDict

import numpy as np
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from overtone.errors import RecipeError
from overtone.report import printable

Row: TypeAlias = tuple[str, Mapping[str, Sequence[float]]]
"""An attribute, and column -> its accuracies in percent, one for each seed."""

BORDER = 3  # of a column of a terminal's table: a line and a blank at each side


class Comparison(NamedTuple):
    """The columns of equal cost, the only ones that may be compared: bold marks the best of them."""

    result: str
    ensemble: str | None = None
    longer: str | None = None


class Gain(NamedTuple):
    """Points gained on the better baseline, what counts as noise and why, and "a gain" or what it is else."""

    points: float
    noise: float
    meaning: str
    judgement: str


class Record(TypedDict):
    """One figure of the table, `values` one for each seed; `spread` is None where there is one."""

    attribute: str
    column: str
    values: list[float]
    mean: float
    spread: float | None
    n_seeds: int
    best: bool


def table_records(rows: Sequence[Row], comparison: Comparison) -> list[Record]:
    """Every figure of the table as plain values, for JSON.

    >>> table_records([("shape", {"stage 0": [40.0, 42.0]})], Comparison("stage 0"))[0]["mean"]
    41.0
    """
    return [
        Record(
            attribute=attribute,
            column=column,
            values=[float(value) for value in values],
            mean=_mean(values),
            spread=_spread(values),
            n_seeds=len(values),
            best=column in _best(figures, comparison),
        )
        for attribute, figures in rows
        for column, values in figures.items()
    ]


def terminal_tables(
    rows: Sequence[Row], comparison: Comparison, title: str = "", width: int = 80
) -> list[Table]:
    """The table for a terminal: encoders down, attributes across, the best of equal cost in bold.

    Args:
        rows: The rows of the table.
        comparison: What is of equal cost.
        title: Of the first.
        width: Of the terminal; attributes that do not fit beside the others go into further tables.

    >>> len(terminal_tables([("shape", {"stage 0": [40.8]})], Comparison("stage 0")))
    1
    """
    parts = [_terminal_table(part, comparison) for part in _fitting(rows, width)]
    parts[0].title = Text(title) if title else None
    return parts


def _terminal_table(rows: Sequence[Row], comparison: Comparison) -> Table:
    table = Table()
    table.add_column("", no_wrap=True)
    for attribute, _ in rows:
        table.add_column(Text(printable(attribute)), justify="right")
    for column in _columns(rows):
        cells = [
            Text(_shown(figures.get(column)), style="bold" if column in _best(figures, comparison) else "")
            for _, figures in rows
        ]
        table.add_row(Text(printable(column)), *cells)
    return table


def _fitting(rows: Sequence[Row], width: int) -> list[list[Row]]:
    """The attributes in as many groups as a terminal needs, at least one in each."""
    parts: list[list[Row]] = [[]]
    left = 0
    for row in rows:
        attribute, figures = row
        needed = BORDER + max(map(cell_len, (printable(attribute), *map(_shown, figures.values()))))
        if needed > left:
            names = max((cell_len(printable(column)) for column in figures), default=0)
            parts, left = [*filter(None, parts), []], width - names - BORDER - 1
        parts[-1].append(row)
        left -= needed
    return parts


def markdown_table(rows: Sequence[Row], comparison: Comparison) -> str:
    """The same table as Markdown.

    >>> print(markdown_table([("shape", {"stage 0": [40.0, 42.0]})], Comparison("stage 0")))
    |  | shape |
    |---|---:|
    | stage 0 | 41.0 ± 1.4 |
    <BLANKLINE>
    Accuracy in percent; ± is the standard deviation over seeds (n - 1).
    """
    lines = [
        _markdown_row(["", *(_escaped(attribute) for attribute, _ in rows)]),
        "|---|" + "---:|" * len(rows),
    ]
    for column in _columns(rows):
        shown = ((_shown(figures.get(column)), column in _best(figures, comparison)) for _, figures in rows)
        cells = [f"**{text}**" if best else text for text, best in shown]
        lines.append(_markdown_row([_escaped(column), *cells]))
    return "\n".join([*lines, "", note(rows)])


def verdict(rows: Sequence[Row], comparison: Comparison, n_test: Mapping[str, int]) -> list[str]:
    """One plain sentence for each attribute: whether the stages gained on the baselines of equal cost.

    A difference counts when it exceeds the spread: the larger standard deviation over seeds (ddof=1)
    of the result and the better baseline. Where either has a single seed, it must exceed twice the
    binomial standard error of the difference on the test set instead.

    Args:
        rows: The rows of the table.
        comparison: Which columns are the result and the baselines.
        n_test: Attribute -> labelled test samples.

    Raises:
        RecipeError: A row lacks a column of the comparison.

    >>> row = ("shape", {"0-2": [55.2, 57.4], "x3": [47.0, 48.2], "3 x longer": [44.0, 44.0]})
    >>> verdict([row], Comparison("0-2", "x3", "3 x longer"), {"shape": 3000})
    ['shape: 56.3, against 47.6 for the equal-size ensemble and 44.0 for one encoder trained as long: +8.7, \
more than the spread over seeds (1.6): a gain.']
    """
    if comparison.ensemble is None and comparison.longer is None:
        return ["No baselines were trained: run with --baselines before you call any of this a gain."]
    return [_sentence(attribute, figures, comparison, n_test[attribute]) for attribute, figures in rows]


def kept(rows: Sequence[Row], comparison: Comparison, column: str, n_test: Mapping[str, int]) -> str:
    """One sentence on how much an encoder made of all stages keeps of what they gain on stage 0.

    Shares are of gains that exceed the noise (see `verdict`); of other attributes it says how many points
    the encoder lies above or below all stages.

    >>> figures = {"stage 0": [40.0], "0-2": [60.0], "whitened": [59.0]}
    >>> kept([("shape", figures)], Comparison("0-2"), "whitened", {"shape": 3000})
    'whitened keeps of what 0-2 gain on stage 0: shape 95 % of +20.0.'
    """
    said = []
    for attribute, figures in rows:
        first, whole, made = (_mean(figures[name]) for name in ("stage 0", comparison.result, column))
        noise, _ = _noise(figures[comparison.result], figures["stage 0"], n_test[attribute])
        share = (
            f"{100 * (made - first) / (whole - first):.0f} % of {whole - first:+.1f}"
            if whole - first > noise
            else ""
        )
        said.append(f"{printable(attribute)} {share or f'no gain to keep, {made - whole:+.1f} against them'}")
    return f"{column} keeps of what {comparison.result} gain on stage 0: {', '.join(said)}."


def note(rows: Sequence[Row]) -> str:
    """What the figures of a table are, to be said under it.

    >>> note([("shape", {"stage 0": [40.8]})])
    'Accuracy in percent.'
    """
    spread = any(len(values) > 1 for _, figures in rows for values in figures.values())
    return "Accuracy in percent" + ("; ± is the standard deviation over seeds (n - 1)." if spread else ".")


def gain(figures: Mapping[str, Sequence[float]], comparison: Comparison, n_test: int) -> Gain:
    """What a row's result gained on the better baseline of equal cost; see `verdict`.

    Raises:
        RecipeError: The row lacks a column of the comparison.

    >>> gain({"0-2": [56.0], "x3": [40.0]}, Comparison("0-2", "x3"), 3000).judgement
    'a gain'
    """
    baselines = [column for column in (comparison.ensemble, comparison.longer) if column is not None]
    for column in (comparison.result, *baselines):
        if not figures.get(column):
            raise RecipeError(f"no column {column!r}; the row has {', '.join(figures)}.")
    best = max((figures[column] for column in baselines), key=_mean)
    points = _mean(figures[comparison.result]) - _mean(best)
    noise, meaning = _noise(figures[comparison.result], best, n_test)
    clear = abs(points) > noise
    return Gain(points, noise, meaning, ("a gain" if points > 0 else "a loss") if clear else "not a gain")


def _sentence(
    attribute: str, figures: Mapping[str, Sequence[float]], comparison: Comparison, n_test: int
) -> str:
    named = (
        (comparison.ensemble, "the equal-size ensemble"),
        (comparison.longer, "one encoder trained as long"),
    )
    try:
        points, noise, meaning, judgement = gain(figures, comparison, n_test)
    except RecipeError as error:
        raise RecipeError(f"{attribute}: {error}") from None
    against = " and ".join(
        f"{_mean(figures[column]):.1f} for {words}" for column, words in named if column is not None
    )
    return (
        f"{printable(attribute)}: {_mean(figures[comparison.result]):.1f}, against {against}: {points:+.1f}, "
        f"{'more' if abs(points) > noise else 'not more'} than {meaning} ({noise:.1f}): {judgement}."
    )


def _noise(result: Sequence[float], best: Sequence[float], n_test: int) -> tuple[float, str]:
    spreads = [spread for values in (result, best) if (spread := _spread(values)) is not None]
    if len(spreads) == 2:
        return max(spreads), "the spread over seeds"
    shares = [_mean(values) / 100 for values in (result, best)]
    error = 100 * math.sqrt(sum(share * (1 - share) for share in shares) / n_test)
    return 2 * error, f"two standard errors on {n_test:,} test samples"


def _mean(accuracies: Sequence[float]) -> float:
    return float(np.mean(accuracies))


def _spread(accuracies: Sequence[float]) -> float | None:
    return float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None


def _best(figures: Mapping[str, Sequence[float]], comparison: Comparison) -> set[str]:
    """The best of the comparable columns, to the digit shown; none where there is nothing to compare."""
    means = {c: round(_mean(figures[c]), 1) for c in comparison if c is not None and figures.get(c)}
    return {c for c, mean in means.items() if mean == max(means.values())} if len(means) > 1 else set()


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(column for _, figures in rows for column in figures))


def _shown(accuracies: Sequence[float] | None) -> str:
    if not accuracies:
        return "–"
    spread = _spread(accuracies)
    return f"{_mean(accuracies):.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def _escaped(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
