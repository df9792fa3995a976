"""From the names and values of a recipe to the objects of a run."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import torch

from overtone.contracts import Dataset
from overtone.encoders import Encoder, build_encoder, load_weights
from overtone.multistage import Parts, check_stages
from overtone.recipe.components import KINDS, Component, Kind, find, is_source
from overtone.recipe.origin import Origin
from overtone.recipe.schema import PRESETS, Recipe, device_name


def open_data(recipe: Recipe, cache_dir: Path | None = None) -> tuple[Dataset, Dataset | None]:
    """The training set and, where the recipe names one, the test set."""
    test = None if recipe.test is None else build_dataset(recipe.test, cache_dir)
    return build_dataset(recipe.data, cache_dir), test


def build_dataset(component: Component, cache_dir: Path | None = None) -> Dataset:
    """The data set that a component names; data sets among its arguments are built first."""
    arguments = {
        name: build_dataset(value, cache_dir) if is_source(value) else value
        for name, value in component.items()
        if name != "source"
    }
    build = find(component["source"], KINDS["data"], ("data",), Origin())
    if cache_dir is not None and "options" in inspect.signature(build).parameters:
        arguments.setdefault("cache_dir", cache_dir)
    dataset: Dataset = build(**arguments)
    return dataset


def build_parts(recipe: Recipe, dataset: Dataset, test: Dataset | None, **given: Any) -> Parts:
    """The objects of a recipe, for the multistage loop; `given` are used instead of what it names.

    Raises:
        RecipeError: A value does not fit the data.
    """
    stages = recipe.stage_specs()
    check_stages(stages, len(dataset))
    content = dataset[0][dataset.modality]
    return Parts(
        dataset=dataset,
        test=test,
        views=given.get("views") or _call(recipe.views, KINDS["views"]),
        encoder=given.get("encoder")
        or (lambda stage: encoder_for(recipe.encoder, dataset, trained=stage == 0)),
        method=given.get("method") or partial(_call, recipe.method, KINDS["method"]),
        stages=stages,
        seed=recipe.seed,
        normalise=recipe.normalise or PRESETS[recipe.preset].normalise,
        precision=recipe.precision,
        num_workers=recipe.num_workers,
        device=torch.device(device_name(recipe.device)),
        loggers=recipe.loggers or (),
        content={"shape": list(content.shape), "dtype": str(content.dtype).removeprefix("torch.")},
    )


def encoder_for(component: Component, dataset: Dataset, *, trained: bool) -> Encoder:
    """A new encoder that fits the data; if `trained`, with the weights that the component names."""
    arguments = {key: value for key, value in component.items() if key != "name"}
    weights = arguments.pop("weights", None)
    pretrained = bool(arguments.pop("pretrained", False)) and trained
    content = dataset[0][dataset.modality]
    if dataset.modality == "image":
        arguments = {"channels": content.shape[0], "image_size": list(content.shape[1:]), **arguments}
    elif content.ndim > 1:
        arguments = {"channels": content.shape[-1], **arguments}
    encoder = build_encoder(
        component["name"], pretrained=pretrained, trust=True, modality=dataset.modality, **arguments
    )
    if weights is not None and trained:
        load_weights(encoder, Path(weights))
    return encoder


def _call(component: Component, kind: Kind, *given: Any) -> Any:
    build = find(component[kind.key], kind, (), Origin())
    return build(*given, **{name: value for name, value in component.items() if name != kind.key})
