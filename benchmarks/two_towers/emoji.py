"""Emoji with their names: which names differ in one attribute alone, and what is held out.

Reads twemoji as a parquet file of `image` and `caption`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone import rng
from overtone.datasets import Pair, parquet, subset
from overtone.datasets.captioned import Captioned
from overtone.datasets.subset import Subset

Part = Literal["train", "held out"]
Variants = Literal["all", "one"]

HELD_OUT = 1 / 3  # of the pictures that differ from another in one attribute alone
MERGED = ("skin tone", "gender", "direction")  # in what the variants of a base differ
MOST_PAIRS = 200  # of an attribute

_WAYS = "left|right|up|down|upwards?|downwards?|leftwards?|rightwards?"
_ROUND = "north|south|east|west|clockwise|anticlockwise"
_PERSONS = {"ADULT": "man|woman|person", "ADULTS": "men|women|people", "CHILD": "boy|girl|child"}
_WORDS = (
    ("skin tone", "TONE", r"(?<![\w-])(?:medium-light|medium-dark|light|medium|dark)(?= skin tone)"),
    *(("gender", who, rf"\b(?:{words})\b") for who, words in _PERSONS.items()),
    ("direction", "WAY", rf"\b(?:{_WAYS})\b"),
    ("arrow", "WAY", rf"\b(?:{_WAYS}|{_ROUND})\b"),
    ("clock time", "TIME", r"(?<=clock face ).+"),
    ("moon phase", "PHASE", r".+(?= moon (?:symbol|with face))"),
)
"""Attribute, what stands for a value of it, and what says one in a name."""
ATTRIBUTES = (*dict.fromkeys(attribute for attribute, _, _ in _WORDS), "count of people")


class Split(NamedTuple):
    """Rows that are trained on, rows that are not, and pairs of rows that differ in one attribute alone."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    pairs: dict[str, list[tuple[int, int]]]

    def held_out_pairs(self) -> dict[str, list[tuple[int, int]]]:
        """Pairs of which no picture is trained on, at most `MOST_PAIRS` an attribute."""
        unseen = set(self.held_out.tolist())
        return {
            name: some([pair for pair in pairs if unseen.issuperset(pair)], name)
            for name, pairs in self.pairs.items()
        }


def readings(name: str) -> Iterator[tuple[str, str, str]]:
    """(attribute, the name without one word of it, that word), for each word that says an attribute.

    >>> next(readings("woman running with dark skin tone"))
    ('skin tone', 'woman running with TONE skin tone', 'dark')
    >>> list(readings("family: man, boy, boy"))[-1]
    ('count of people', 'family: man, boy', '3')
    """
    for attribute, stands, words in _WORDS:
        if attribute == ("direction" if "arrow" in name else "arrow"):
            continue
        for found in re.finditer(words, name):
            rest = f"{name[: found.start()]}{stands}{name[found.end() :]}"
            if attribute == "arrow":  # downwards black arrow, black rightwards arrow
                rest = " ".join(sorted(rest.split()))
            yield attribute, rest, found.group()
    if "arrow" not in name:  # who looks right is told from one of whom nothing is said
        yield "direction", name.replace(" facing right", ""), "right" if " facing right" in name else ""
    if name.startswith("family: "):
        members = name.removeprefix("family: ").split(", ")
        yield "count of people", f"family: {', '.join(dict.fromkeys(members))}", str(len(members))


def differing(names: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    """Attribute -> the pairs of names, by row, that differ in one word of it and in nothing else.

    >>> differing(["a man", "a woman", "a man with dark skin tone"])["gender"]
    [(0, 1)]
    """
    groups: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for row, name in enumerate(names):
        for attribute, rest, word in readings(name):
            groups[attribute, rest].append((row, word))
    found: dict[str, set[tuple[int, int]]] = {attribute: set() for attribute in ATTRIBUTES}
    for (attribute, _), members in groups.items():
        found[attribute] |= {
            (one, other) for (one, a), (other, b) in combinations(members, 2) if a != b and one != other
        }
    return {attribute: sorted(pairs) for attribute, pairs in found.items()}


def base(name: str) -> str:
    """The name without what varies between drawings of one thing: skin tone, gender, direction.

    >>> base("woman running facing right with dark skin tone")
    '_ running'
    """
    without = re.sub(r" (?:with|and) (?:medium-light|medium-dark|light|medium|dark) skin tone", "", name)
    varying = "|".join((*_PERSONS.values(), _WAYS))
    return re.sub(rf"\b(?:{varying})\b", "_", without.replace(" facing right", ""))


def split_of(names: Sequence[str], variants: Variants) -> Split:
    """What is trained on: of all variants, all but pairs of each attribute; or one variant of each base.

    Args:
        names: Of all pictures.
        variants: "all" holds out pairs of each attribute, in a seeded order, until `HELD_OUT` of its
            pictures are; "one" trains on a seeded variant of each base alone, and holds out pairs of the
            other attributes.
    """
    pairs = differing(names)
    unseen: set[int] = set()
    if variants == "one":
        order = rng.permuted(np.arange(len(names)), len(names), rng.derive(0, "emoji", "variants"))
        first = {base(names[row]): row for row in order.tolist()}
        unseen = set(range(len(names))) - set(first.values())
    for attribute in (name for name in ATTRIBUTES if variants == "all" or name not in MERGED):
        rows = {row for pair in pairs[attribute] for row in pair}
        for pair in some(pairs[attribute], attribute, len(pairs[attribute])):
            if len(unseen & rows) + 2 > HELD_OUT * len(rows):
                break
            unseen |= set(pair)
    held_out = np.array(sorted(unseen), dtype=np.int64)
    return Split(np.setdiff1d(np.arange(len(names)), held_out), held_out, pairs)


def emoji(path: Path, variants: Variants, part: Part, image_size: int = 32) -> Subset:
    """A data set of a recipe: the emoji that are trained on, or those that are held out."""
    everything = pictures(path, image_size)
    split = split_of(everything.texts, variants)
    return subset(everything, split.train if part == "train" else split.held_out)


@lru_cache(maxsize=1)
def pictures(path: Path, image_size: int = 32) -> Captioned:
    """All emoji with their names."""
    return parquet(path, text="caption", image_size=image_size)


def picture_pairs(everything: Captioned, pairs: dict[str, list[tuple[int, int]]]) -> list[Pair]:
    """The pictures and names of pairs of rows, to be scored by `overtone.evaluation.pair_accuracy`."""
    return [
        Pair(
            (everything[one]["image"], everything[other]["image"]),
            (everything.texts[one], everything.texts[other]),
            attribute,
            (everything.ids[one], everything.ids[other]),
        )
        for attribute, rows in pairs.items()
        for one, other in rows
    ]


def some(pairs: Sequence[tuple[int, int]], attribute: str, most: int = MOST_PAIRS) -> list[tuple[int, int]]:
    """At most so many pairs in an order that belongs to the attribute."""
    if not pairs:
        return []
    order = rng.permuted(np.arange(len(pairs)), len(pairs), rng.derive(0, "emoji", attribute))
    return [pairs[i] for i in order[:most].tolist()]
