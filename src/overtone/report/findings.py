"""What a run folder says about a run, as plain data: what its page is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from overtone.report.page import Picture, Strip
from overtone.report.table import Comparison, Row

Points = list[tuple[float, float]]


class Figures(NamedTuple):
    """What the probes read: the rows of the closing tables, and what was said of them.

    Attributes:
        linear: Of the linear probe.
        knn: Of nearest neighbours.
        comparison: Which columns are of equal cost.
        n_test: Attribute -> labelled test samples.
        sentences: What can be said of the first table.
    """

    linear: Sequence[Row]
    knn: Sequence[Row]
    comparison: Comparison
    n_test: Mapping[str, int]
    sentences: Sequence[str]


class Training(NamedTuple):
    """What the log of a stage's training holds: name -> points (step, value), samples seen, lines unread."""

    curves: Mapping[str, Points]
    samples: int
    unread: int = 0
    alarms: Sequence[str] = ()


class Stage(NamedTuple):
    """A stage of a run: how far it is, how it trained, and what it was trained with.

    Attributes:
        number: From 0.
        state: In words.
        training: Empty where it has not begun, or was given.
        coverage: Names and values of what its batches held.
        cell_sizes: A histogram: range of sizes -> cells.
        chosen: How its cells and what it hides were chosen, in sentences.
    """

    number: int
    state: str
    training: Training
    coverage: Mapping[str, Any]
    cell_sizes: Sequence[tuple[str, int]]
    chosen: Sequence[str]


class Cost(NamedTuple):
    """What a run cost; seconds are None where that was not written down."""

    run: str
    seconds: float | None
    samples: int


class Findings(NamedTuple):
    """What a run folder tells without the data.

    Attributes:
        name: Of the folder.
        finished: Whether every run of it is.
        state: How far it is, and why it stopped, in sentences.
        seeds: How many.
        figures: What the probes read; None before the end or without labels.
        stages: Of the first seed.
        costs: Of every run.
        remarks: What was skipped, dropped, or is missing on the page.
        recipe: The lines of it.
        fields: The same as dotted place -> value.
        machine: Names and versions.
    """

    name: str
    finished: bool
    state: Sequence[str]
    seeds: int
    figures: Figures | None
    stages: Sequence[Stage]
    costs: Sequence[Cost]
    remarks: Sequence[str]
    recipe: Sequence[str]
    fields: Mapping[str, Any]
    machine: Sequence[tuple[str, str]]


class Query(NamedTuple):
    """A sample, and for each column the samples nearest to it."""

    picture: Picture
    strips: Sequence[Strip]


class Likeness(NamedTuple):
    """How alike the columns are: names, linear CKA and mutual information of clusterings, both square."""

    names: Sequence[str]
    cka: NDArray[np.float64]
    nmi: NDArray[np.float64]
    nmi_by_chance: float


class Map(NamedTuple):
    """Samples in two dimensions, from 0 to 1; attribute -> the name of each sample's value, "" for none."""

    places: NDArray[np.float64]
    values: Mapping[str, Sequence[str]]
    pictures: Sequence[tuple[int, Markup]]


class Shares(NamedTuple):
    """How many near neighbours have the value of a sample, in percent: attribute -> column, and chance."""

    by_column: Mapping[str, Mapping[str, float]]
    chance: Mapping[str, float]


class Seen(NamedTuple):
    """What embeddings and data show.

    Attributes:
        pool: How many samples were drawn, of
        n: how many.
        queries: A few samples with their neighbours in every column.
        shares: How often neighbours agree; None without labels.
        cells: Of each stage with cells: its number, a sentence, strips.
        hidden: Of each stage that hides something: its number and a picture.
        likeness: Of the columns.
        map: None before the end.
    """

    pool: int
    n: int
    queries: Sequence[Query]
    shares: Shares | None
    cells: Sequence[tuple[int, str, Sequence[Strip]]]
    hidden: Sequence[tuple[int, Markup]]
    likeness: Likeness | None
    map: Map | None
