"""Unit embeddings of pictures and of texts in float32, as every comparison of the two needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overtone.contracts import TwoTowers
from overtone.embedding import evaluating
from overtone.errors import NumericalError, RecipeError


def unit_images(encoder: TwoTowers, images: Tensor, ids: Sequence[str]) -> Tensor:
    """(B, D) float32 of unit length, on the CPU, from pictures (B, C, H, W); `ids` are for messages.

    Raises:
        NumericalError: An embedding is not finite, or zero.
        RecipeError: The encoder does not give one row a picture.
    """
    return _unit(encoder, encoder.encode_image, images.to(_device(encoder)), ids)


def unit_texts(encoder: TwoTowers, texts: list[str]) -> Tensor:
    """(B, D) float32 of unit length, on the CPU, from B texts; raises as `unit_images`."""
    return _unit(encoder, encoder.encode_text, texts, texts)


def _unit(encoder: TwoTowers, tower: Callable[[Any], Tensor], content: Any, ids: Sequence[str]) -> Tensor:
    with _quiet(encoder):
        embeddings = tower(content)
    if embeddings.ndim != 2 or len(embeddings) != len(ids):
        raise RecipeError(
            f"encoder: gave {tuple(embeddings.shape)} for {len(ids)} samples; expected (batch, dimension). "
            "Pool or flatten its output."
        )
    rows = embeddings.float().cpu()
    lengths = rows.norm(dim=1)
    if bad := [ids[i] for i in torch.nonzero(~(lengths.isfinite() & (lengths > 0))).flatten().tolist()]:
        raise NumericalError(
            f"embeddings: not finite, or zero, for {len(bad)} of a batch of {len(ids)}, first {bad[0]!r}; "
            "expected finite numbers that have a direction. Look at this sample and at the encoder's weights."
        )
    return F.normalize(rows, dim=1)


@contextmanager
def _quiet(encoder: TwoTowers) -> Iterator[None]:
    """Eval mode, no gradients, and no autocast: in half precision near-ties fall at random."""
    mode = evaluating(encoder) if isinstance(encoder, nn.Module) else nullcontext()
    with mode, torch.inference_mode(), torch.autocast(_device(encoder).type, enabled=False):
        yield


def _device(encoder: TwoTowers) -> torch.device:
    parameters = encoder.parameters() if isinstance(encoder, nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))
