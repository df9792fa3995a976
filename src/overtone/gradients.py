"""The gradients of one step: of its batch at once, or part by part in the memory of a part.

A contrastive loss compares every sample with every other, so a large batch cannot be cut into small ones
whose gradients are added up. GradCache can: it computes z part by part without keeping anything else, the
gradient of the loss with respect to z, and then every part once more, with that gradient at its end (Gao et
al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from overtone import distributed
from overtone.contracts import Batch
from overtone.errors import RecipeError

Gradients = Callable[[list[Batch]], tuple[Tensor, Tensor]]
"""Adds the gradients of a step's views to those of the parameters; gives the loss and z, detached."""


class Method(Protocol):
    """What is trained: a module with an `encoder` and a `step`.

    It may also have `begin_step(step, steps_per_epoch, steps)`, called before each step, for what changes
    over a training: a curriculum, a momentum that rises. What it keeps must lie in parameters and buffers,
    which are saved; then a run that was interrupted goes on as it would have. What `said()` gives, numbers of
    its last step by name, stands in the record of that step.
    """

    encoder: nn.Module

    def step(self, views: list[Batch], /) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and z, (n, d), for the statistics."""


class InTwoParts(Protocol):
    """What a method offers beside `step` so that a batch can be computed in parts.

    `step(views)` must be `contrast([project(view) for view in views], views)`.
    """

    def project(self, view: Batch, /) -> Tensor:
        """z of one view, (b, d), each row of its own sample alone."""

    def contrast(self, z: list[Tensor], views: list[Batch], /) -> Tensor:
        """The loss of the z of all views."""


def gradients_of(
    method: nn.Module, precision: str, device: torch.device, micro_batch_size: int | None = None
) -> Gradients:
    """How a method computes the gradients of a step, averaged over all processes.

    Args:
        method: See `Method`.
        precision: "fp32", or "bf16" for autocast.
        device: Where it trains.
        micro_batch_size: None: all at once. Else so many samples of a view at a time: the same gradients up
            to rounding, for one more forward pass; dropout draws part by part.

    Raises:
        RecipeError: The method cannot be computed in parts.

    >>> from overtone.encoders import build_encoder
    >>> from overtone.methods import SimCLR
    >>> method = SimCLR(build_encoder("small_cnn"), out_dim=16)
    >>> view = {"image": torch.rand(4, 3, 16, 16), "cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> loss, z = gradients_of(method, "fp32", torch.device("cpu"))([view, view])
    >>> method.projection_head[0].weight.grad.shape
    torch.Size([128, 128])
    """

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")

    if micro_batch_size is None:
        return _at_once(method, autocast)
    _check_parts(method, micro_batch_size)
    return lambda views: _in_parts(method, views, micro_batch_size, autocast, device)


class _Step(nn.Module):
    """A method whose forward is its step, for what wraps a forward."""

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        return cast(Method, self.method).step(views)


def _at_once(method: nn.Module, autocast: Callable[[], Any]) -> Gradients:
    sharded = distributed.is_sharded(method)
    stepping = _Step(method) if sharded else distributed.replicated(_Step(method))

    def gradients(views: list[Batch]) -> tuple[Tensor, Tensor]:
        with autocast():
            loss, z = stepping(views)
        loss.backward()
        if sharded:
            distributed.average_gradients(method.parameters())  # of what is not split
        return loss.detach(), z.detach()

    return gradients


def _in_parts(
    method: nn.Module,
    views: list[Batch],
    size: int,
    autocast: Callable[[], Any],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    halves = cast(InTwoParts, method)
    parts = [_cut(view, size) for view in views]
    begins: list[Tensor] = []  # the state of the random stream before each part, so that dropout falls alike
    kept: list[Tensor] = []
    with torch.no_grad(), autocast():
        for view in parts:
            found = []
            for part in view:
                begins.append(_random_state(device))
                found.append(halves.project(part))
            kept.append(torch.cat(found))
    z = [each.to(torch.promote_types(each.dtype, torch.float32)).requires_grad_() for each in kept]
    with autocast():
        loss = halves.contrast(z, views)
    loss.backward()  # type: ignore[no-untyped-call]
    after = _random_state(device)
    for view, each in zip(parts, z, strict=True):
        assert each.grad is not None
        for part, gradient in zip(view, torch.split(each.grad, size), strict=True):
            _set_random_state(begins.pop(0), device)
            with autocast():
                again = halves.project(part)
            again.backward(gradient.to(again.dtype))  # type: ignore[no-untyped-call]
    _set_random_state(after, device)
    distributed.average_gradients(method.parameters())
    return loss.detach(), torch.cat(kept)


def _cut(view: Batch, size: int) -> list[Batch]:
    n = len(view["index"])
    return [_slice(view, slice(begin, begin + size)) for begin in range(0, n, size)]


def _slice(view: Batch, part: slice) -> Batch:
    return {
        key: _slice(value, part) if isinstance(value, dict) else value[part] for key, value in view.items()
    }


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(state: Tensor, device: torch.device) -> None:
    torch.cuda.set_rng_state(state, device) if device.type == "cuda" else torch.set_rng_state(state)


def _check_parts(method: nn.Module, size: int) -> None:
    if not (hasattr(method, "project") and hasattr(method, "contrast")):
        raise RecipeError(
            f"micro_batch_size={size}: {type(method).__name__} has a step alone; a batch in parts needs "
            "`project` and `contrast` as well (see overtone.gradients). Leave micro_batch_size out."
        )
    live = [
        name for name, part in method.named_modules() if isinstance(part, _BatchNorm) and not _is_frozen(part)
    ]
    if live:
        raise RecipeError(
            f"micro_batch_size={size}: the batch norms ({live[0]} and {len(live) - 1} more) would take their "
            "statistics from each part instead of the batch. Choose a head without them (method.norm=none) "
            "and an encoder without them (a ViT, ConvNeXt, or group norm), or leave micro_batch_size out."
        )
    if distributed.is_sharded(method):
        raise RecipeError(f"micro_batch_size={size}: not together with shard: true; choose one of them.")


def _is_frozen(norm: _BatchNorm) -> bool:
    """Whether a norm uses the statistics it has."""
    return not norm.training and norm.track_running_stats
