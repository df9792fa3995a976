from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from overtone.errors import DataError, RecipeError
from overtone.recipe import Recipe, build_parts, open_data, parse, resolved, to_yaml

SEEDS = 300
PICTURES: dict[str, Any] = {"source": "trifeature", "n": 40, "image_size": 16}
VALID: dict[str, Any] = {
    "preset": "overtone",
    "seed": 3,
    "data": {
        "source": "composite",
        "left": PICTURES,
        "right": {"source": "digits", "n": 8, "image_size": 16},
        "instances": 4,
    },
    "test": {"source": "subset", "dataset": {**PICTURES, "start": 40}, "indices": [3, 1, 4]},
    "encoder": {"name": "small_cnn"},
    "views": {"name": "image", "crop_scale": [0.3, 1.0], "region": [0, 0, 16, 16]},
    "method": {"name": "simclr", "objective": {"name": "ifm", "epsilon": 0.2}, "out_dim": 16},
    "train": {"epochs": 1, "batch_size": 8, "lr": 1e-3, "optimizer": "adamw"},
    "stages": [{}, {"cell_size": 10}, {"n_clusters": 3, "cells": "intersect"}],
    "precision": "fp32",
    "threads": 1,
}
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3.5,
    "",
    "big",
    [],
    {},
    [[]],
    {"source": "digits", "n": 3},
    -(10**30),
    "os:system",
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*place, key)
        yield from places(item, (*place, key))


def mutated(seed: int) -> dict[str, Any]:
    """The valid recipe with one or two of its values dropped, renamed, retyped or nested."""
    draw, recipe = random.Random(seed), copy.deepcopy(VALID)
    for _ in range(draw.choice((1, 1, 2))):
        *path, key = draw.choice(list(places(recipe)))
        holder: Any = recipe
        for part in path:
            holder = holder[part]
        kind = draw.choice(("drop", "rename", "retype", "retype", "nest", "misspell"))
        if kind == "retype":
            holder[key] = copy.deepcopy(draw.choice(ODD))
        elif kind == "nest":
            holder[key] = {str(key): holder[key]}
        elif kind == "misspell" and isinstance(holder[key], str):
            holder[key] += "x"
        else:
            value = holder.pop(key)
            if kind == "rename" and isinstance(holder, dict):
                holder[f"{key}s"] = value
    return recipe


def outcome(values: dict[str, Any]) -> Recipe | str:
    """A recipe that was built on its data, or the message of the error that refused it."""
    try:
        recipe = parse(values)
        dataset, test = open_data(recipe)
        parts = build_parts(recipe, dataset, test)
        encoder = parts.encoder(0)
        parts.method(encoder)
    except (RecipeError, DataError) as error:
        return str(error)
    return recipe


def test_the_recipe_that_is_mutated_is_valid() -> None:
    assert isinstance(outcome(VALID), Recipe)


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_no_mutation_of_a_recipe_ends_in_anything_but_a_recipe_or_a_message(first: int) -> None:
    ended = [outcome(mutated(seed)) for seed in range(first, first + 50)]
    messages = [one for one in ended if isinstance(one, str)]
    assert len(messages) > 10
    assert all(20 < len(message) < 800 for message in messages), max(messages, key=len)
    for recipe in ended:
        if isinstance(recipe, Recipe):
            full = resolved(recipe)
            assert parse(yaml.safe_load(to_yaml(full))) == full
