"""Which parts of an encoder a stage trains."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from overtone.encoders.encoder import Encoder
from overtone.errors import RecipeError

logger = logging.getLogger(__name__)


def trainable(encoder: Encoder, spec: str | Sequence[str]) -> dict[str, int]:
    """Freezes all parameters but those that a stage shall train.

    A submodule of which nothing trains stays in eval mode also in training: a frozen batch norm keeps its
    statistics, a frozen dropout does nothing. Parameters that were frozen before are never unfrozen.

    Args:
        encoder: Changed in place.
        spec: "all"; "none"; "last:N", the last N blocks of the backbone, which are its top-level submodules
            with parameters, those of lists and sequences counted one by one; or patterns (fnmatch) of
            the names of the parameters to train, as in `encoder.named_parameters()`. Of two towers, one is
            locked by naming the other: `["image_tower.*", "logit_scale"]`.

    Returns:
        The number of values that train and that are frozen.

    Raises:
        RecipeError: The spec is none of these, N is out of range, or a pattern fits no parameter.

    >>> from overtone.encoders import build_encoder
    >>> trainable(build_encoder("small_cnn", channels=1), "last:1")
    {'trainable': 73984, 'frozen': 18912}
    """
    if spec != "all":
        names = [name for name, _ in encoder.named_parameters()]
        chosen = _chosen(encoder, names, spec)
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name in chosen)
        keep_frozen(encoder)
    counts = {"trainable": 0, "frozen": 0}
    for parameter in encoder.parameters():
        counts["trainable" if parameter.requires_grad else "frozen"] += parameter.numel()
    if counts["frozen"]:
        logger.info(
            "trainable=%s: %d values train, %d are frozen.", spec, counts["trainable"], counts["frozen"]
        )
    return counts


def keep_frozen(encoder: Encoder) -> None:
    """Keeps submodules of which nothing trains in eval mode."""
    encoder.frozen = tuple(_frozen(encoder, ""))
    encoder.train(encoder.training)


def nearest(pattern: str, names: list[str]) -> str:
    """The names that a pattern may have meant."""
    return ", ".join(get_close_matches(pattern, names, n=3, cutoff=0.3) or names[-3:])


def _chosen(encoder: Encoder, names: list[str], spec: str | Sequence[str]) -> set[str]:
    if spec == "none":
        return set()
    if not isinstance(spec, str):
        return {name for pattern in spec for name in _matches(pattern, names)}
    last = re.fullmatch(r"last:([1-9][0-9]*)", spec)
    if not last:
        raise RecipeError(
            f'encoder.trainable={spec!r}: expected "all", "none", "last:N" or a list of patterns'
        )
    blocks = _blocks(encoder)
    count = int(last[1])
    if count > len(blocks):
        raise RecipeError(
            f"encoder.trainable={spec!r}: the encoder has {len(blocks)} blocks: {', '.join(blocks)}"
        )
    return {name for block in blocks[-count:] for name in names if name.startswith(f"{block}.")}


def _matches(pattern: str, names: list[str]) -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise RecipeError(
            f"encoder.trainable: {pattern!r} fits no parameter; close names: {nearest(pattern, names)}"
        )
    return found


def _blocks(encoder: Encoder) -> list[str]:
    """Names of the backbone's blocks, first to last."""
    backbone = getattr(encoder, "backbone", encoder)
    prefix = "backbone." if backbone is not encoder else ""
    blocks = []
    for name, part in backbone.named_children():
        listed = isinstance(part, nn.ModuleList | nn.Sequential)
        inner = (
            [(f"{name}.{child}", block) for child, block in part.named_children()]
            if listed
            else [(name, part)]
        )
        blocks += [prefix + path for path, block in inner if any(True for _ in block.parameters())]
    return blocks


def _frozen(module: nn.Module, name: str) -> list[str]:
    """Names of the largest submodules that have parameters of which none trains."""
    trains = [parameter.requires_grad for parameter in module.parameters()]
    if trains and not any(trains):
        return [name]
    children = module.named_children()
    return [
        found for child, part in children for found in _frozen(part, f"{name}.{child}" if name else child)
    ]
