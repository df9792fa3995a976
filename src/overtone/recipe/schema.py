"""What a recipe may say, and how what it leaves open is filled in."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from overtone import loggers
from overtone.identities import Duplicates
from overtone.recipe.components import KINDS, Component, check_component, with_absolute_paths
from overtone.recipe.origin import Origin, Place, override, read_yaml
from overtone.stages import Drift, Lora, StageSpec, complaints

Model = TypeVar("Model", bound=BaseModel)


class Preset(NamedTuple):
    """What a preset decides about the later stages; they take the granularities in turn."""

    granularity: tuple[dict[str, Any], ...]
    stage: dict[str, Any]
    normalise: Literal["each", "once"]


PRESETS = {
    # Fine cells bring out the weakest feature, coarse ones the second-strongest; a run with both gets both.
    "overtone": Preset(
        ({"cell_size": "fine"}, {"cell_size": "coarse"}), {"cells": "concat", "erase": "auto"}, "each"
    ),
    # Zhang et al., ECCV 2024: ten clusters a stage, all stages intersected, one cell a batch.
    "paper": Preset(
        ({"n_clusters": 10},), {"cells": "intersect", "cells_per_batch": 1, "min_batch_size": 64}, "once"
    ),
    # The published code: the newest clustering alone, and what does not fill a batch is dropped for ever.
    "published": Preset(
        ({"n_clusters": 10},), {"cells": "last", "cells_per_batch": 1, "min_batch_size": sys.maxsize}, "once"
    ),
}
MOST_STAGES = 6  # of `stages: auto`, which is to end before
GRANULARITY = ("n_clusters", "cell_size")
PRETRAINED_LR_SCALE = 0.05  # 1e-4 at the default lr: weights that were trained before are tuned, not replaced


class Recipe(BaseModel):
    """A run in plain values; `resolved` fills in what was left open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["overtone", "paper", "published"] = "overtone"
    seed: int = Field(default=0, ge=0)
    data: Component
    test: Component | None = None
    encoder: Component = Field(default_factory=lambda: {"name": "small_cnn"})
    views: Component = Field(default_factory=lambda: {"name": "image"})
    method: Component = Field(default_factory=lambda: {"name": "simclr"})
    train: dict[str, Any] = Field(default_factory=dict)
    stages: int | Literal["auto"] | list[dict[str, Any]] = 3
    stop: Literal["auto"] | None = None
    duplicates: Duplicates = "near"
    normalise: Literal["each", "once"] | None = None
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    layout: Literal["channels_last"] | None = None
    num_workers: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)
    device: str = "auto"
    shard: bool = False
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    checkpoints_kept: int = Field(default=2, ge=2)
    loggers: list[Literal["tensorboard", "wandb"]] | None = None

    def stage_specs(self, origin: Origin | None = None) -> list[StageSpec]:
        """The values of each stage: the stage's own, else those of `train`, else the preset's.

        Raises:
            RecipeError: A value is wrong; the message names its field.
        """
        given = self.stages if isinstance(self.stages, list) else [{}] * self.most_stages()
        return [self._stage_spec(number, own, origin or Origin()) for number, own in enumerate(given)]

    def most_stages(self) -> int:
        """How many stages are trained unless the run stops before."""
        if self.stages == "auto":
            return MOST_STAGES
        return len(self.stages) if isinstance(self.stages, list) else int(self.stages)

    def _stage_spec(self, number: int, own: dict[str, Any], origin: Origin) -> StageSpec:
        preset, given = PRESETS[self.preset], {**self.train, **own}
        by_preset: dict[str, Any] = {"epochs": 20, "init": "scratch"}
        if self._starts_trained():
            by_preset |= {"init": "base", "encoder_lr_scale": PRETRAINED_LR_SCALE}
        if number:
            by_preset |= preset.stage
            if given.get("cells") != "whole" and not any(name in given for name in GRANULARITY):
                by_preset |= preset.granularity[(number - 1) % len(preset.granularity)]
        values = {**by_preset, **given}
        if "min_batch_size" in by_preset and "min_batch_size" not in given:
            whole = values.get("batch_size", StageSpec.batch_size)
            values["min_batch_size"] = (
                min(preset.stage["min_batch_size"], whole) if values["cells_per_batch"] else None
            )
        try:
            return _stage_schema().validate_python(values)
        except ValidationError as error:
            field, *inner = error.errors()[0]["loc"]
            nested = {"lora": Lora, "drift": Drift} if inner else {}
            known = dataclasses.fields(nested.get(str(field), StageSpec))
            place = self.place_of(number, str(field))
            raise origin.invalid(error, place, [f.name for f in known]) from None

    def place_of(self, stage: int, field: str) -> Place:
        """Where the value of a stage was written: in the stage itself, or in `train`."""
        own = self.stages[stage] if isinstance(self.stages, list) else {}
        return ("train",) if field in self.train and field not in own else ("stages", stage)

    def _starts_trained(self) -> bool:
        return bool(self.encoder.get("pretrained") or self.encoder.get("weights"))


@cache
def _stage_schema() -> TypeAdapter[StageSpec]:
    return TypeAdapter(StageSpec)  # making it takes longer than all it checks


def read(path: Path, overrides: Sequence[str] = (), trusted: Collection[str] | None = None) -> Recipe:
    """Reads a recipe and sets the values of `key.path=value` overrides in it.

    Args:
        path: The file.
        overrides: The values.
        trusted: See `Origin`.

    Raises:
        RecipeError: The message names file, line, field, value and what was expected.
    """
    values, origin = read_yaml(path)
    for assignment in overrides:
        place = override(values, assignment)
        kept = {known: line for known, line in origin.lines.items() if known[: len(place)] != place}
        origin = Origin(path, kept)
    return parse(values, origin._replace(trusted=trusted))


def parse(values: Mapping[str, Any], origin: Origin | None = None) -> Recipe:
    """Checks the values of a recipe, those of its components and stages included.

    Raises:
        RecipeError: As `read`.

    >>> parse({"data": {"source": "trifeature", "n": 100}, "sede": 1})
    Traceback (most recent call last):
    overtone.errors.RecipeError: sede: unknown field; did you mean `seed`?
    """
    origin = origin or Origin()
    stages = values.get("stages", 3)
    if not isinstance(stages, (int, list)) and stages != "auto":
        raise origin.error(
            ("stages",), f"{stages!r}: expected a number, auto, or a list with the values of each."
        )
    try:
        recipe = Recipe.model_validate(dict(values))
    except ValidationError as error:
        misplaced = {f.name for f in dataclasses.fields(StageSpec)} & set(values)
        if misplaced:
            field = min(misplaced)
            raise origin.error((field,), f"unknown field; did you mean `train.{field}`?") from None
        raise origin.invalid(error, (), Recipe.model_fields) from None
    if recipe.stages == [] or (isinstance(recipe.stages, int) and recipe.stages < 1):
        raise origin.error(("stages",), f"{recipe.stages}: expected at least 1 stage.")
    for field, kind in KINDS.items():
        component = getattr(recipe, field)
        if component is not None:
            check_component(component, kind, (field,), origin)
    _check_stages(recipe, origin)
    return recipe


def _check_stages(recipe: Recipe, origin: Origin) -> None:
    """What can be said of the stages before the data are read, with the line where it stands."""
    for stage, field, message in complaints(recipe.stage_specs(origin)):
        raise origin.error((*recipe.place_of(stage, field), field), message)


def resolved(recipe: Recipe) -> Recipe:
    """The same recipe with nothing left open: every stage in full, the device by name, absolute paths."""
    return recipe.model_copy(
        update={
            **{
                field: with_absolute_paths(getattr(recipe, field))
                for field in ("data", "test", "encoder")
                if getattr(recipe, field) is not None
            },
            "train": {},
            "stages": [dataclasses.asdict(stage) for stage in recipe.stage_specs()],
            "stop": "auto" if recipe.stages == "auto" else recipe.stop,
            "normalise": recipe.normalise or PRESETS[recipe.preset].normalise,
            "device": device_name(recipe.device),
            "loggers": loggers.available() if recipe.loggers is None else recipe.loggers,
        }
    )


def to_yaml(recipe: Recipe) -> str:
    """A recipe as YAML, without the fields that were left out."""
    values = {name: value for name, value in recipe.model_dump().items() if value is not None and value != {}}
    return yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True)


def device_name(wanted: str) -> str:
    """The device to use: what was asked for, or the fastest there is."""
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def _plain(value: Any) -> Any:
    """Tuples, which YAML does not have, as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
