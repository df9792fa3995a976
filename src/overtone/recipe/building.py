"""From the names and values of a recipe to the objects of a run."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from overtone.contracts import Dataset
from overtone.encoders import FAMILIES, Encoder, build_encoder, build_module, load_weights
from overtone.errors import OvertoneError, RecipeError
from overtone.recipe.components import KINDS, Component, Kind, find, is_source, objective_kind
from overtone.recipe.origin import Origin
from overtone.recipe.schema import PRESETS, Recipe, device_name
from overtone.run_folder import Parts
from overtone.stages import check_stages

_DATASET = ("modality", "ids", "labels", "label_names", "fingerprint", "collate", "__len__", "__getitem__")
# Modality -> views that take it and no other, and an encoder.
_SUITED = {
    "image": ("image", "small_cnn"),
    "series": ("series", "series_cnn"),
    "sequence": ("fragments", "sequence_transformer"),
}
_NEEDED = {"method": ("step", "parameters")}  # and anything else can be called


def open_data(recipe: Recipe, cache_dir: Path | None = None) -> tuple[Dataset, Dataset | None]:
    """The training set and, where the recipe names one, the test set."""
    test = None if recipe.test is None else build_dataset(recipe.test, cache_dir, "test")
    return build_dataset(recipe.data, cache_dir), test


def build_dataset(component: Component, cache_dir: Path | None = None, place: str = "data") -> Dataset:
    """The data set that a component names; data sets among its arguments are built first."""
    arguments = {
        name: build_dataset(value, cache_dir, f"{place}.{name}") if is_source(value) else value
        for name, value in component.items()
        if name != "source"
    }
    build = find(component["source"], KINDS["data"], (place,), Origin())
    if cache_dir is not None and "options" in inspect.signature(build).parameters:
        arguments.setdefault("cache_dir", cache_dir)
    dataset: Dataset = _called(place, component["source"], partial(build, **arguments), _DATASET)
    return dataset


def build_parts(recipe: Recipe, dataset: Dataset, test: Dataset | None, **given: Any) -> Parts:
    """The objects of a recipe, for the multistage loop; `given` are used instead of what it names.

    Raises:
        RecipeError: A value does not fit the data.
    """
    stages = recipe.stage_specs()
    check_stages(stages, len(dataset))
    if "views" not in given:
        _check_modality(recipe, dataset)
    content = dataset[0][dataset.modality]
    return Parts(
        dataset=dataset,
        test=test,
        views=given.get("views") or _build("views", KINDS["views"], recipe.views),
        encoder=given.get("encoder")
        or (lambda stage: encoder_for(recipe.encoder, dataset, trained=stage == 0)),
        method=given.get("method") or partial(_build, "method", KINDS["method"], recipe.method),
        stages=stages,
        stop=recipe.stop,
        seed=recipe.seed,
        duplicates=recipe.duplicates,
        max_bad_fraction=recipe.data.get("max_bad_fraction", 0.01),
        normalise=recipe.normalise or PRESETS[recipe.preset].normalise,
        precision=recipe.precision,
        layout=recipe.layout,
        num_workers=recipe.num_workers,
        device=_device(device_name(recipe.device)),
        shard=recipe.shard,
        checkpoint_seconds=recipe.checkpoint_seconds,
        checkpoints_kept=recipe.checkpoints_kept,
        loggers=recipe.loggers or (),
        content={"shape": list(content.shape), "fit": recipe.data.get("fit", "crop")},
        made_of={field: json.dumps(getattr(recipe, field)) for field in ("encoder", "views", "method")},
    )


def _check_modality(recipe: Recipe, dataset: Dataset) -> None:
    name, held = recipe.views["name"], dataset.modality
    takes = {views: modality for modality, (views, _) in _SUITED.items()}.get(name, held)
    if takes != held:
        such = "views.name={} encoder.name={}".format(*_SUITED.get(held, ("same", "package.module:Class")))
        raise RecipeError(
            f"views.name: {name}, but the data hold `{held}`; choose views and an encoder for these, "
            f"such as {such}."
        )


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise RecipeError(f"device: {name!r} cannot be used here: {reason}. Try auto or cpu.") from None


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
        component["name"],
        pretrained=pretrained,
        trust=True,
        modality=dataset.modality,
        example=dataset.collate([dataset[0], dataset[min(1, len(dataset) - 1)]]),
        **arguments,
    )
    if weights is not None and trained:
        load_weights(encoder, Path(weights))
    return encoder


def own_module(recipe: Recipe) -> nn.Module | None:
    """A new module of the class that a recipe names as its encoder, for files, which name no code.

    Returns:
        None where the encoder is one that files can name.
    """
    name = recipe.encoder["name"]
    if ":" not in name or name.partition(":")[0] in FAMILIES:
        return None
    elsewhere = ("name", "weights", "pretrained", "mean", "std")
    return build_module(name, **{key: value for key, value in recipe.encoder.items() if key not in elsewhere})


def _build(place: str, kind: Kind, component: Component, *given: Any) -> Any:
    """What a component names; an objective among its arguments is built first."""
    build = find(component[kind.key], kind, (place,), Origin())
    arguments = {
        name: _build(f"{place}.{name}", inner, value) if (inner := objective_kind(build, name)) else value
        for name, value in component.items()
        if name != kind.key
    }
    made_by = partial(build, *given, **arguments)
    return _called(place, component[kind.key], made_by, _NEEDED.get(place, ("__call__",)))


def _called(place: str, name: str, build: Callable[[], Any], needed: Sequence[str]) -> Any:
    """What a name makes; whatever a class of the user's raises becomes an error that says where."""
    try:
        made = build()
    except OvertoneError:
        raise
    except Exception as error:
        raise RecipeError(f"{place}: {name} failed with {type(error).__name__}: {error}.") from error
    if missing := [attribute for attribute in needed if not hasattr(made, attribute)]:
        raise RecipeError(
            f"{place}: {name} made a {type(made).__name__} without `{missing[0]}`; see overtone.contracts."
        )
    return made
