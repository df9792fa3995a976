"""Makes an encoder by its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple, TypeVar, cast

import torchvision
from torch import nn

from overtone.contracts import Batch
from overtone.encoders.encoder import MEAN, STD, Encoder, ImageEncoder, as_encoder
from overtone.encoders.graphs import GraphEncoder
from overtone.encoders.halves import Halves
from overtone.encoders.hf_towers import hf_towers
from overtone.encoders.image_table import ImageTableEncoder
from overtone.encoders.open_clip_towers import open_clip_towers
from overtone.encoders.patch_towers import PatchTowers
from overtone.encoders.sequences import SequenceTransformer
from overtone.encoders.series_transformer import SeriesTransformer
from overtone.encoders.small import SeriesEncoder, resnet18_cifar, small_cnn
from overtone.encoders.two_towers import small_clip
from overtone.errors import RecipeError
from overtone.imports import imported

_Made = TypeVar("_Made")

_BACKBONES: dict[str, Callable[..., nn.Module]] = {"small_cnn": small_cnn, "resnet18_cifar": resnet18_cifar}
# Those that take a whole batch by themselves.
_WHOLE: dict[str, Callable[..., Encoder]] = {
    "gcn": GraphEncoder,
    "halves": Halves,
    "image_table": ImageTableEncoder,
    "patch_towers": PatchTowers,
    "sequence_transformer": lambda channels, **arguments: SequenceTransformer(**arguments),
    "series_cnn": SeriesEncoder,
    "series_transformer": SeriesTransformer,
    "small_clip": small_clip,
}
ENCODERS = (*_BACKBONES, *_WHOLE)
"""The names of what is built in."""
_NAMES = [*ENCODERS, "torchvision:<model>", "timm:<model>", "open_clip:<model>", "hf:<model>"]
# The statistics of ImageNet, on which torchvision's weights were trained.
_IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# Arguments that would read a file or the network; weights come by `pretrained` or `load_weights`.
_WEIGHTS = {"weights", "weights_backbone", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"}


def build_encoder(
    name: str,
    *,
    channels: int = 3,
    image_size: int | Sequence[int] | None = None,
    pretrained: bool = False,
    trust: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    modality: str = "image",
    example: Batch | None = None,
    **arguments: Any,
) -> Encoder:
    """Builds an encoder; its weights are drawn from torch's global stream, unless they are pretrained.

    Args:
        name: One of `ENCODERS`, such as "small_cnn"; "torchvision:resnet50" or "timm:vit_tiny_patch16_224",
            with the classification head removed; "open_clip:ViT-B-32", whose weights are named by `tag`;
            "hf:ORG/MODEL" or "hf:FOLDER", a CLIP or SigLIP model of Hugging Face; "package.module:Class" with
            `trust`, which is called with `arguments` alone.
        channels: Channels of the pictures, or values a step of the series.
        image_size: Height and width, or one number for both, for models of one fixed size.
        pretrained: Start from the published weights.
        trust: Allow "package.module:Class", that is, code; for names a user wrote, never for a file's.
        mean: Mean of each channel in [0, 1]; the model's own, or 0.5, by default.
        std: Their standard deviation; the model's own, or 0.25, by default.
        modality: What a "package.module:Class" takes (see `as_encoder`).
        example: A batch to find the width of its embeddings with.
        **arguments: For the model.

    Raises:
        RecipeError: The name is unknown, or the model does not take the arguments.

    >>> encoder = build_encoder("small_cnn", channels=1)
    >>> encoder.dim, build_encoder(**encoder.spec).dim
    (128, 128)
    """
    for argument in sorted(_WEIGHTS & arguments.keys()):
        raise RecipeError(
            f"encoder.{argument}: not an argument; use pretrained, or load_weights on the encoder"
        )
    family, colon, model = name.partition(":")
    if pretrained and family not in FAMILIES:
        raise RecipeError(f"encoder.pretrained=True: {name} has no published weights; set it to False")
    if name in _WHOLE:
        return _called(name, _WHOLE[name], channels=channels, **arguments)
    if family in _TOWERS:
        if mean or std:
            raise RecipeError(f"encoder.mean, encoder.std: {name} has statistics of its own; leave them out")
        size = None if image_size is None else _pair(image_size)
        return _called(name, _TOWERS[family], model, pretrained=pretrained, image_size=size, **arguments)
    if colon and trust and family not in FAMILIES:
        made = build_module(name, **arguments)
        return as_encoder(made, modality, mean=mean, std=std, example=example)
    if name not in _BACKBONES and family not in FAMILIES:
        raise RecipeError(_unknown(name, _NAMES) + '; "package.module:Class" needs trust=True')
    size = None if image_size is None else _pair(image_size)
    if name in _BACKBONES:
        found = _Found(_called(name, _BACKBONES[name], channels=channels, **arguments), size or (32, 32))
    else:
        found = _BUILDERS[family](model, channels, size, pretrained, arguments)
    mean, std = mean or _per_channel(found.mean, channels), std or _per_channel(found.std, channels)
    if len(mean) != channels:
        raise RecipeError(f"encoder.mean={list(mean)}: expected one number for each of {channels} channels")
    spec = {"name": name, "channels": channels, "image_size": size, "mean": mean, "std": std, **arguments}
    return ImageEncoder(found.backbone, mean=mean, std=std, spec=_json(spec), image_size=found.image_size)


def build_module(name: str, **arguments: Any) -> nn.Module:
    """What "package.module:Class" makes; it imports code, so only for names that a user wrote.

    Raises:
        RecipeError: It cannot be imported, does not take the arguments, or makes something else.
    """
    try:
        found = imported(name)
    except RecipeError as error:
        raise RecipeError(f"encoder.name: {error}") from None
    made = _called(name, found, **arguments)
    if not isinstance(made, nn.Module):
        raise RecipeError(f"encoder.name: {name!r} made a {type(made).__name__}, expected a torch.nn.Module")
    return made


class _Found(NamedTuple):
    """A backbone, the pictures it is made for, and their statistics."""

    backbone: nn.Module
    image_size: tuple[int, int]
    mean: Sequence[float] = (MEAN,)
    std: Sequence[float] = (STD,)


def _torchvision(
    model: str, channels: int, size: tuple[int, int] | None, pretrained: bool, arguments: dict[str, Any]
) -> _Found:
    name = f"torchvision:{model}"
    names = torchvision.models.list_models(module=torchvision.models)
    if model not in names:
        raise RecipeError(_unknown(name, [f"torchvision:{known}" for known in names]))
    if pretrained and channels != 3:
        raise RecipeError(
            f"encoder.channels={channels}: torchvision's weights take 3; use timm, or pretrained=False"
        )
    if model.startswith("vit_") and size:
        arguments = {"image_size": size[0], **arguments}
    weights = "DEFAULT" if pretrained else None
    backbone = _called(name, torchvision.models.get_model, model, weights=weights, **arguments)
    linear = _names_of(backbone, nn.Linear)
    if not linear:
        raise RecipeError(f"encoder.name={name!r}: it has no linear head to remove; choose another model")
    _replace(backbone, linear[-1], nn.Identity())
    if channels != 3:
        stem = _names_of(backbone, nn.Conv2d)[0]
        _replace(backbone, stem, _with_channels(backbone.get_submodule(stem), channels))
    return _Found(backbone, size or (224, 224), *_IMAGENET)


def _timm(
    model: str, channels: int, size: tuple[int, int] | None, pretrained: bool, arguments: dict[str, Any]
) -> _Found:
    try:
        import timm
    except ImportError as error:
        raise RecipeError(
            f'encoder.name="timm:{model}": install timm with pip install "overtone[timm]"'
        ) from error
    name = f"timm:{model}"
    # Names of models alone: "hf-hub:..." and "local-dir:..." would read a configuration from elsewhere.
    if not timm.is_model(model):
        raise RecipeError(_unknown(name, [f"timm:{known}" for known in timm.list_models()]))
    if size and getattr(timm.get_pretrained_cfg(model), "fixed_input_size", False):
        arguments = {"img_size": size, **arguments}
    create = partial(timm.create_model, model, pretrained=pretrained, num_classes=0, in_chans=channels)
    backbone = _called(name, create, **arguments)
    published: dict[str, Any] = cast(Any, backbone).pretrained_cfg
    return _Found(backbone, size or _pair(published["input_size"][1:]), published["mean"], published["std"])


_BUILDERS = {"torchvision": _torchvision, "timm": _timm}
_TOWERS = {"open_clip": open_clip_towers, "hf": hf_towers}
FAMILIES = (*_BUILDERS, *_TOWERS)
"""Libraries of models, each under `family:model`."""


def _called(name: str, make: Callable[..., _Made], *values: Any, **arguments: Any) -> _Made:
    try:
        return make(*values, **arguments)
    except RecipeError:
        raise
    except Exception as error:  # code of the user's, or of a library, may raise anything
        kind = type(error).__name__
        raise RecipeError(
            f"encoder.name={name!r} cannot be built with {arguments}: {kind}: {error}"
        ) from error


def _unknown(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name, names, n=3)
    guess = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
    listed = ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
    return f"encoder.name={name!r} is unknown{guess} Known: {listed}"


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise RecipeError(f"encoder.image_size={size!r}: expected a number of pixels, or height and width")
    return pair[0], pair[1]


def _per_channel(values: Sequence[float], channels: int) -> list[float]:
    """One value a channel: as given, or the mean of the given ones where their number differs."""
    return list(values) if len(values) == channels else [fmean(values)] * channels


def _json(spec: dict[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(spec))
    except TypeError as error:
        raise RecipeError(f"encoder: the arguments {spec} are not plain values: {error}") from error
    return plain


def _names_of(module: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [name for name, part in module.named_modules() if isinstance(part, kind)]


def _replace(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, part)


def _with_channels(stem: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A new first convolution for another number of channels."""
    same = {name: getattr(stem, name) for name in ("kernel_size", "stride", "padding", "dilation")}
    return nn.Conv2d(channels, stem.out_channels, bias=stem.bias is not None, **same)
