"""Tables of blind pairs, of retrieval, and of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from overtone.evaluation.pairs import CHANCE, PairScore, PairScores
from overtone.evaluation.retrieval import Retrieval
from overtone.report import printable


class Share(NamedTuple):
    """How many of `n` samples are right, and how many would be by guessing, in percent."""

    accuracy: float
    chance: float
    n: int


def pairs_table(scores: PairScores, title: str = "") -> Table:
    """A row a pattern, then all pairs together: how many are right, of how many, with the interval and ties.

    >>> score = PairScore(4, 15, 0, 26.67, 10.9, 51.95)
    >>> pairs_table(PairScores({"Text": score}, score, 26.67)).row_count
    2
    """
    table = Table(title=Text(title) if title else None)
    table.add_column("")
    for name in ("right", "pairs", "%", "95 % interval", "ties"):
        table.add_column(name, justify="right", no_wrap=True)
    for pattern, score in scores.patterns.items():
        table.add_row(Text(printable(pattern)), *_cells(score))
    table.add_section()
    table.add_row("all pairs", *_cells(scores.all))
    return table


def pairs_note(scores: PairScores) -> str:
    """What the figures are, to be said under the table.

    >>> score = PairScore(4, 15, 1, 26.67, 10.9, 51.95)
    >>> pairs_note(PairScores({"Text": score}, score, 26.67))
    'Mean of 1 pattern: 26.7 %; chance is 25 %. A pair is right if both statements are. Ties: 1 statement \
finds both pictures exactly as near, and is given the second.'
    """
    n, ties = len(scores.patterns), scores.all.ties
    said = (
        f"Mean of {n} pattern{'s' * (n != 1)}: {scores.mean:.1f} %; chance is {CHANCE:.0f} %. A pair is "
        "right if both statements are."
    )
    if ties:
        found = "statement finds" if ties == 1 else "statements find"
        given = "is" if ties == 1 else "are"
        said += f" Ties: {ties} {found} both pictures exactly as near, and {given} given the second."
    return said


def retrieval_table(found: Retrieval, title: str = "") -> Table:
    """Recall at each k, both ways.

    >>> retrieval_table(Retrieval({1: 50.0}, {1: 25.0}, 4, 4)).row_count
    2
    """
    table = Table(title=Text(title) if title else None)
    table.add_column("")
    for k in found.image_to_text:
        table.add_column(f"recall@{k}", justify="right", no_wrap=True)
    table.add_row("image to text", *(f"{share:.1f}" for share in found.image_to_text.values()))
    table.add_row("text to image", *(f"{share:.1f}" for share in found.text_to_image.values()))
    return table


def shares_table(found: Mapping[str, Share], title: str = "") -> Table:
    """A row an attribute.

    >>> shares_table({"shape": Share(50.0, 10.0, 4)}).row_count
    1
    """
    table = Table(title=Text(title) if title else None)
    table.add_column("")
    for name in ("%", "chance", "samples"):
        table.add_column(name, justify="right", no_wrap=True)
    for attribute, share in found.items():
        table.add_row(
            Text(printable(attribute)), f"{share.accuracy:.1f}", f"{share.chance:.1f}", f"{share.n:,}"
        )
    return table


def _cells(score: PairScore) -> tuple[str, ...]:
    interval = f"{score.low:.1f} to {score.high:.1f}"
    return str(score.right), str(score.n_pairs), f"{score.accuracy:.1f}", interval, str(score.ties)
