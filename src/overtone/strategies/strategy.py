"""What a strategy says of itself, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeVar

from torch import nn

from overtone.errors import RecipeError

Method = TypeVar("Method", bound=type[nn.Module])

STRATEGIES: dict[str, Strategy] = {}
"""Name -> strategy, in the order in which they are imported by `overtone.strategies`."""


@dataclass(frozen=True)
class Strategy:
    """A published way to contrast, as a method that any stage can train with.

    Attributes:
        name: Under which recipes find its method.
        line: What it does, in a line.
        modality: Of what: "images", "image and text", "series", ...
        source: Whose it is: authors, title, place.
        confidence: How much of the source was seen: "high", its code or its full text; "medium" and "low" are
            "in the spirit of", and the page of the strategy says what is reconstructed.
        stage: How it works as a later stage. "cells": its negatives, or what else it pushes from, come from
            the anchor's cell; "concatenation": nothing pushes, so only batches and views can bring the new.
        attribute: What its recipe's data are asked for, by a linear probe on stage 0.
        claim: What it says to do better, in a line.
        ablation: Values to set in its recipe that take away what the claim rests on.
        columns: Of the embeddings, where the first that the probe reads stands, and the first after them.
        build: The class, which takes an encoder and the recipe's arguments.
    """

    name: str
    line: str
    modality: str
    source: str
    confidence: Literal["high", "medium", "low"]
    stage: Literal["cells", "concatenation"]
    attribute: str
    claim: str
    ablation: tuple[str, ...]
    columns: tuple[int, int | None]
    build: Callable[..., nn.Module]

    @property
    def recipe(self) -> Path:
        """Its small recipe: data drawn here, two stages, a few minutes at most."""
        return Path(__file__).parent / "recipes" / f"{self.name}.yaml"


def strategy(
    name: str,
    *,
    line: str,
    modality: str,
    source: str,
    confidence: Literal["high", "medium", "low"],
    stage: Literal["cells", "concatenation"],
    attribute: str,
    claim: str,
    ablation: tuple[str, ...],
    columns: tuple[int, int | None] = (0, None),
) -> Callable[[Method], Method]:
    """Enters a class into the list; the arguments are those of `Strategy`."""

    def enter(method: Method) -> Method:
        said = (line, modality, source, confidence, stage, attribute, claim, ablation, columns)
        STRATEGIES[name] = Strategy(name, *said, method)
        return method

    return enter


def recipe_of(name: str) -> Path:
    """The small recipe of a strategy.

    Raises:
        RecipeError: There is none of that name.

    >>> recipe_of("carc")
    Traceback (most recent call last):
    overtone.errors.RecipeError: --strategy carc: did you mean cacr? `overtone strategies` lists them.
    """
    if name not in STRATEGIES:
        close = get_close_matches(name, STRATEGIES, n=1)
        guess = f"did you mean {close[0]}?" if close else "there is none of that name."
        raise RecipeError(f"--strategy {name}: {guess} `overtone strategies` lists them.")
    return STRATEGIES[name].recipe
