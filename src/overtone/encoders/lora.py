"""Low-rank adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685)."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from overtone.encoders.encoder import Encoder
from overtone.encoders.freezing import keep_frozen, nearest, trainable
from overtone.errors import RecipeError

logger = logging.getLogger(__name__)


def add_lora(
    encoder: Encoder,
    modules: Sequence[str],
    *,
    rank: int = 8,
    alpha: float = 16.0,
    beside: str | Sequence[str] = "none",
) -> list[str]:
    """Puts adapters beside linear layers; they train, and of all else only what is named.

    A layer W then gives W x + (alpha / rank) B A x, with A (rank, in) drawn from torch's global stream and
    B (out, rank) zero, so at first the encoder gives what it gave before.

    Args:
        encoder: Changed in place.
        modules: Patterns (fnmatch) of the names of linear layers, as in `encoder.named_modules()`.
        rank: Of the update.
        alpha: See above.
        beside: Which parameters train as well, see `trainable`.

    Returns:
        The names of the layers that have adapters now.

    Raises:
        RecipeError: peft is not installed, or a pattern fits no linear layer that can take an adapter.

    >>> from overtone.encoders import build_encoder
    >>> towers = build_encoder("small_clip", width=16)
    >>> add_lora(towers, ["text_tower.*"], rank=2)
    ['text_tower.layers.0', 'text_tower.layers.2']
    >>> merge_lora(towers)
    """
    try:
        import peft
    except ImportError as error:
        raise RecipeError('lora: install peft with pip install "overtone[lora]"') from error
    chosen = _chosen(encoder, modules)
    trainable(encoder, beside)
    others = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    values: dict[str, Any] = {"r": rank, "lora_alpha": alpha}
    config = peft.LoraConfig(**values, target_modules="|".join(map(re.escape, chosen)))
    peft.inject_adapter_in_model(config, encoder)  # freezes all but the adapters
    for parameter in others:
        parameter.requires_grad_(True)
    keep_frozen(encoder)
    size = sum(p.numel() for name, p in encoder.named_parameters() if ".lora_" in name)
    logger.info("lora: %d values train beside %d linear layers.", size, len(chosen))
    return chosen


def merge_lora(encoder: Encoder) -> None:
    """Adds what the adapters learned to the weights beside them and removes them, in place.

    An adapter that never learned is named in a warning: its encoder reads the weights around the layer.
    """
    from peft.tuners.lora import LoraLayer

    idle = []
    for name, layer in list(encoder.named_modules()):
        if isinstance(layer, LoraLayer):
            if not any(bool(b.any()) for b in layer.lora_B.parameters()):
                idle.append(name)
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(encoder.get_submodule(parent), child, layer.get_base_layer())
    if idle:
        logger.warning("lora: %d adapters learned nothing: %s.", len(idle), ", ".join(idle[:5]))
    keep_frozen(encoder)


def _chosen(encoder: Encoder, patterns: Sequence[str]) -> list[str]:
    linear = [name for name, part in encoder.named_modules() if isinstance(part, nn.Linear)]
    # Its forward reads the weights of its layers and never calls them, so an adapter would be passed by.
    attentions = [name for name, part in encoder.named_modules() if isinstance(part, nn.MultiheadAttention)]
    inside = {name for name in linear if name.rpartition(".")[0] in attentions}
    able = [name for name in linear if name not in inside]
    for pattern in patterns:
        if any(fnmatchcase(name, pattern) for name in able):
            continue
        if any(fnmatchcase(name, pattern) for name in [*inside, *attentions]):
            raise RecipeError(
                f"lora.modules: {pattern!r} fits only layers of torch's MultiheadAttention, which cannot "
                f"take adapters; choose other linear layers, such as {nearest(pattern, able)}"
            )
        raise RecipeError(
            f"lora.modules: {pattern!r} fits no linear layer; close names: {nearest(pattern, able) or 'none'}"
        )
    return [name for name in able if any(fnmatchcase(name, pattern) for pattern in patterns)]
