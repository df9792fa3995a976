"""The optimiser of a stage and the learning rate of each of its steps."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from overtone.errors import RecipeError

OPTIMIZERS = ("adamw", "sgd")


def build_optimizer(
    method: nn.Module, *, name: str, lr: float, weight_decay: float, encoder_lr_scale: float = 1.0
) -> torch.optim.Optimizer:
    """An optimiser over the trainable parameters of a method.

    Norms and biases (parameters of fewer than two dimensions) are not decayed. The parameters under
    `method.encoder` take `encoder_lr_scale` times the rate, for encoders that were trained before.

    Args:
        method: Holds the encoder under `encoder` and whatever else it trains.
        name: "adamw" or "sgd" (momentum 0.9).
        lr: Peak learning rate.
        weight_decay: Decoupled for AdamW, L2 for SGD.
        encoder_lr_scale: Factor on the encoder's rate.

    Raises:
        RecipeError: Unknown optimiser, or nothing to train.

    >>> net = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    >>> optimizer = build_optimizer(net, name="adamw", lr=0.1, weight_decay=0.01, encoder_lr_scale=0.1)
    >>> sorted((g["lr"], g["weight_decay"]) for g in optimizer.param_groups)
    [(0.010000000000000002, 0.0), (0.010000000000000002, 0.01), (0.1, 0.0), (0.1, 0.01)]
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for path, parameter in method.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((path.startswith("encoder."), parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise RecipeError("trainable: every parameter is frozen, so there is nothing to train.")
    settings = [
        {
            "params": parameters,
            "lr": lr * (encoder_lr_scale if of_encoder else 1.0),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (of_encoder, decayed), parameters in groups.items()
    ]
    if name == "adamw":
        return torch.optim.AdamW(settings)
    if name == "sgd":
        return torch.optim.SGD(settings, momentum=0.9)
    raise RecipeError(f"optimizer: {name!r} is not known; choose one of {', '.join(OPTIMIZERS)}.")


def rate(step: int, *, total: int, warmup: int, schedule: str = "cosine") -> float:
    """The share of the peak learning rate at a step: linear warm-up, then half a cosine to zero, or constant.

    Before step 0, while the optimiser only gathers its statistics, it is 0: no weight moves.

    >>> [round(rate(s, total=4, warmup=0), 3) for s in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    >>> rate(0, total=10, warmup=2)
    0.5
    """
    if step < 0:
        return 0.0
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class Rates:
    """The learning rates of an optimiser over a training: shares of the peak rates that it holds now.

    Args:
        optimizer: Whose rates are set.
        total: And the others as `rate`.
        warmup: Likewise.
        schedule: Likewise.

    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.2)
    >>> rates = Rates(optimizer, total=4, warmup=2, schedule="cosine")
    >>> rates.set(0), optimizer.param_groups[0]["lr"]
    (0.1, 0.1)
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, total: int, warmup: int, schedule: str) -> None:
        self._optimizer, self._peaks = optimizer, [group["lr"] for group in optimizer.param_groups]
        self._share = partial(rate, total=total, warmup=warmup, schedule=schedule)

    def set(self, step: int) -> float:
        """Sets the rates of a step; gives the highest."""
        share = self._share(step)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share
        highest: float = share * max(self._peaks)
        return highest
