from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from overtone.errors import RecipeError
from overtone.optim import build_optimizer, rate


def _method() -> nn.Module:
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return nn.ModuleDict({"encoder": encoder, "head": nn.Linear(4, 2)})


@pytest.mark.parametrize(("total", "warmup"), [(10, 0), (10, 3), (1, 0), (7, 7)])
def test_the_rate_rises_linearly_and_falls_as_half_a_cosine(total: int, warmup: int) -> None:
    for step in range(total):
        if step < warmup:
            expected = (step + 1) / warmup
        else:
            expected = math.cos(math.pi / 2 * (step - warmup) / (total - warmup)) ** 2
        assert rate(step, total=total, warmup=warmup) == pytest.approx(expected)


def test_the_rate_is_that_of_torchs_schedules() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for step in range(12):
        assert rate(step, total=12, warmup=0) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_every_trainable_parameter_has_one_group_and_only_weights_decay(name: str) -> None:
    method = _method()
    method.get_parameter("encoder.0.weight").requires_grad_(False)
    optimizer = build_optimizer(method, name=name, lr=0.1, weight_decay=0.3, encoder_lr_scale=0.5)
    settings = {
        parameter: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(settings)
    assert {path: settings.get(parameter) for path, parameter in method.named_parameters()} == {
        "encoder.0.weight": None,
        "encoder.0.bias": (0.05, 0.0),
        "encoder.1.weight": (0.05, 0.0),
        "encoder.1.bias": (0.05, 0.0),
        "head.weight": (0.1, 0.3),
        "head.bias": (0.1, 0.0),
    }


def test_an_unknown_optimiser_and_nothing_to_train_are_refused() -> None:
    known: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.0}
    with pytest.raises(RecipeError, match="'adam' is not known; choose one of adamw, sgd"):
        build_optimizer(_method(), name="adam", **known)
    with pytest.raises(RecipeError, match="every parameter is frozen"):
        build_optimizer(_method().requires_grad_(False), name="sgd", **known)
