"""Encoders by a name on the command line, and how pictures are brought to what they take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from overtone import rng
from overtone.contracts import Batch
from overtone.encoders import (
    FAMILIES,
    Encoder,
    TwoTowerEncoder,
    as_encoder,
    build_encoder,
    build_module,
    load_weights,
    with_random_weights,
)
from overtone.errors import RecipeError
from overtone.integration import load
from overtone.recipe import own_module
from overtone.study import Study
from overtone.views.pixels import unit_floats

PIXELS = "pixels"
RANDOM = "random:"
EXAMPLES = "torchvision:resnet18, timm:vit_small_patch14_dinov2.lvd142m, open_clip:ViT-L-14:openai"
_BUILT_IN = ("small_cnn", "resnet18_cifar", "small_clip")  # those of pictures
_SIDE = 16  # pixels, at which pictures are compared as such
_OWN_SIZE = (224, 224)  # what a module of the user's that does not say is shown, as most are made for


class Reader(NamedTuple):
    """A module that takes a batch of pictures, and how they are brought to what it takes.

    Attributes:
        module: Takes a batch, gives (B, D).
        options: Of `open_dataset`: `image_size`, `channels`, `fit`.
        untrained: Makes the same architecture with random weights, or None where that cannot be.
    """

    module: nn.Module
    options: dict[str, Any]
    untrained: Callable[[], nn.Module | None] = lambda: None


def reader_of(
    name: str,
    trust: bool = False,
    *,
    stage: int | None = None,
    weights: Path | None = None,
    image_size: int | None = None,
) -> Reader:
    """What a name on the command line stands for.

    Args:
        name: A run folder; "open_clip:MODEL:TAG", "hf:MODEL", "timm:MODEL" or "torchvision:MODEL" with the
            published weights; "small_cnn" and other names that are built in; "package.module:Class", or a
            function that gives a module: code, so only for what a user typed; "pixels". "random:" before a
            model leaves its weights random.
        trust: Whether code that a run's recipe names may be imported.
        stage: One stage of a run alone.
        weights: A file that takes the place of the published weights.
        image_size: Height and width that the pictures are brought to, instead of what the model was made for.

    Raises:
        RecipeError: Nobody knows it, or an option does not go with it.
        RunError: A folder holds no finished run, or weights do not fit.

    >>> reader_of("pixels").options["image_size"]
    (16, 16)
    >>> reader_of("random:small_cnn").options
    {'image_size': (32, 32), 'channels': 3}
    """
    if name == PIXELS:
        return Reader(Pixels(centred=True), {"image_size": (_SIDE, _SIDE), "channels": 3})
    if Path(name).is_dir():
        for option, value in (("--weights", weights), ("--image-size", image_size)):
            if value is not None:
                raise RecipeError(f"{option} {value}: goes with a model; a run has its own.")
        return _of_run(Path(name), trust, stage)
    if stage is not None:
        raise RecipeError(f"--stage {stage}: goes with a run folder, but {name} is none.")
    model = name.removeprefix(RANDOM)
    family = model.partition(":")[0]
    size = None if image_size is None else (image_size, image_size)
    if family in FAMILIES or model in _BUILT_IN:
        return _of_model(model, name == model, weights, size)
    if ":" in model:
        return _of_module(model, name == model, weights, size)
    raise RecipeError(
        f"{name}: no run folder and no model; expected one of these, such as {EXAMPLES}, "
        f"package.module:Class, or {PIXELS}."
    )


def _of_run(folder: Path, trust: bool, stage: int | None) -> Reader:
    study = Study.load(folder, trust=trust)
    encoder = load(study.home(0), encoder=own_module(study.recipe))
    if encoder.modality != "image":
        raise RecipeError(f"{folder}: this run's encoder takes `{encoder.modality}`, expected pictures.")
    if stage is not None and not 0 <= stage < len(encoder.stages):
        raise RecipeError(f"--stage {stage}: the run has stages 0 to {len(encoder.stages) - 1}.")
    channels, *size = encoder.content["shape"]
    fit = encoder.content.get("fit", "crop")
    chosen = encoder if stage is None else encoder.stages[stage]
    options = {"image_size": tuple(size), "channels": channels, "fit": fit}
    return Reader(Seeing(chosen), options, partial(with_random_weights, Seeing(chosen)))


def _of_model(model: str, published: bool, weights: Path | None, size: tuple[int, int] | None) -> Reader:
    family, _, rest = model.partition(":")
    pretrained = published and weights is None
    if pretrained and family not in FAMILIES:
        raise RecipeError(
            f"{model}: has no published weights; give --weights FILE, or ask about random:{model}."
        )
    tag: dict[str, Any] = {}
    if family == "open_clip":
        rest, _, named = rest.partition(":")
        model, tag = f"{family}:{rest}", {"tag": named} if named and pretrained else {}
    build = partial(build_encoder, model, image_size=size)
    with rng.seeded(0, "reader"):
        made = build(pretrained=pretrained, **tag)
    if weights is not None:
        load_weights(made, weights)
    taken = size or ((32, 32) if family not in FAMILIES else _size_of(made))
    return Reader(Seeing(made), {"image_size": taken, "channels": 3}, partial(_drawn, build))


def _of_module(name: str, trained: bool, weights: Path | None, size: tuple[int, int] | None) -> Reader:
    made = build_module(name)
    if hasattr(made, "image_size") or size is None:
        size = size or _size_of(made)
    encoder = as_encoder(made, example={"image": torch.zeros(2, 3, *size)})
    if weights is not None:
        load_weights(encoder, weights)
    random = partial(with_random_weights, Seeing(encoder))
    reader = Reader(Seeing(encoder), {"image_size": size, "channels": 3}, random)
    if trained:
        return reader
    untrained = random()
    if untrained is None:
        raise RecipeError(
            f"{RANDOM}{name}: some of its weights belong to modules without `reset_parameters`, so they "
            "cannot be drawn anew; let a function give the module with random weights."
        )
    return reader._replace(module=untrained)


def _drawn(build: Callable[..., Encoder]) -> nn.Module:
    with rng.seeded(1, "reader"):  # another draw than that of a model that is random itself
        return Seeing(build(pretrained=False))


class Seeing(nn.Module):
    """An encoder that is shown the pictures of a batch alone, whatever else there is."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: Batch) -> Tensor:
        return cast(Tensor, self.encoder({"index": batch["index"], "image": batch["image"]}))


class Pixels(nn.Module):
    """Pictures of 16 x 16 pixels; if centred, each less its mean: a cosine of two is their correlation."""

    def __init__(self, centred: bool) -> None:
        super().__init__()
        self.centred = centred

    def forward(self, batch: Batch) -> Tensor:
        small = adaptive_avg_pool2d(unit_floats(batch["image"]), _SIDE).flatten(1)
        return small - small.mean(1, keepdim=True) if self.centred else small


def _size_of(model: nn.Module) -> tuple[int, int]:
    """The pictures that a model was made for."""
    tower = model.image_tower if isinstance(model, TwoTowerEncoder) else model
    backbone = getattr(tower, "backbone", tower)
    published = getattr(backbone, "pretrained_cfg", {}).get("input_size", (3, *_OWN_SIZE))
    size = getattr(model, "image_size", getattr(backbone, "image_size", published[1:]))
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
