"""What a diagnosis is made of, and how it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL.Image import Image

from overtone.evaluation.verdict import Attribute
from overtone.report import printable
from overtone.report.gallery import Purity

NAMED, LISTED = 4, 8  # attributes in a headline, and in a sentence below it
_SHARED = 1.5  # times as often as any two samples agree those of a cell, to be named


class Told(NamedTuple):
    """Share of samples, in percent, whose other view is found among random samples, and in the own cell."""

    random: float
    own: float


class Inside(NamedTuple):
    """How two views of a sample find each other.

    Attributes:
        n_samples: That were looked at.
        cell_size: The mean size of their cells.
        told: Who looks -> what is found, always in the cells of the encoder itself, which comes first.
        agree: Attribute -> how often two samples of a cell, and any two, have the same value.
    """

    n_samples: int
    cell_size: float
    told: Mapping[str, Told]
    agree: Mapping[str, Purity]


class Geometry(NamedTuple):
    """How embeddings lie: see `overtone.evaluation.collapse`. Without views there is no alignment."""

    dim: int
    effective_rank: float
    uniformity: float
    alignment: float | None
    alarm: str | None


class Shown(NamedTuple):
    """A picture of the data and the id of its sample."""

    id: str
    image: Image


class BlindPair(NamedTuple):
    """Two pictures that are alike for the encoder, and the cosines of both readers."""

    pictures: tuple[Shown, Shown]
    cosine: float
    other_cosine: float


def named(names: Sequence[str], most: int = NAMED) -> str:
    """Names in a sentence, the first few of many.

    >>> named(["shape"]), named(["shape", "class"]), named(list("abcdef"))
    ('shape', 'shape and class', 'a, b, c, d and 2 more')
    """
    shown = list(names[:most])
    rest = [f"{len(names) - most} more"] * (len(names) > most)
    *first, last = [*shown, *rest]
    return f"{', '.join(first)} and {last}" if first else last


def short(attribute: Attribute) -> str:
    """Its name, and what is read of it."""
    own = next(iter(attribute.readings.values()))
    return f"{printable(attribute.name)} ({own.linear.accuracy:.0f} %)"


def in_words(attribute: Attribute) -> str:
    """What everyone reads of it, as a sentence."""
    (_, own), *others = attribute.readings.items()
    beside = [f"{printable(name)} {readings.linear.accuracy:.0f} %" for name, readings in others]
    return (
        f"{printable(attribute.name)}: a linear probe reads {own.linear.accuracy:.0f} % rightly; "
        f"{', '.join([*beside, f'guessing {attribute.chance:.0f} %'])}."
    )


def inside_in_words(inside: Inside) -> list[str]:
    """What is told apart in cells, and what pictures of a cell share, as sentences."""
    (_, own), *others = inside.told.items()
    beside = "".join(f", {printable(name)} {told.own:.0f} %" for name, told in others)
    said = [
        f"It tells {own.random:.0f} % of views apart among random pictures, {own.own:.0f} % inside its own "
        f"cells, the {inside.cell_size:.0f} or so pictures that it finds most alike (there guessing finds "
        f"{100 / inside.cell_size:.0f} %{beside})."
    ]
    shared = {name: found for name, found in inside.agree.items() if found.within > _SHARED * found.chance}
    if shared:
        ordered = sorted(shared.items(), key=lambda each: -each[1].within / each[1].chance)
        names = [
            f"{printable(name)} ({found.within:.0f} % of pairs, {found.chance:.0f} % of any two)"
            for name, found in ordered
        ]
        said.append(f"Pictures of a cell share {named(names)}.")
    return said
