from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

from overtone.encoders import Encoder, SeriesEncoder, as_encoder, build_encoder, trainable
from overtone.errors import RecipeError

IMAGES = {"image": torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))}


def trains(encoder: Encoder) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def names(encoder: Encoder, *prefixes: str) -> set[str]:
    return {name for name, _ in encoder.named_parameters() if name.startswith(prefixes)}


def test_all_and_none_train_everything_and_nothing() -> None:
    encoder = build_encoder("small_cnn")
    size = sum(parameter.numel() for parameter in encoder.parameters())
    assert trainable(encoder, "all") == {"trainable": size, "frozen": 0}
    assert trains(encoder) == names(encoder, "")
    assert trainable(encoder, "none") == {"trainable": 0, "frozen": size}
    assert trains(encoder) == set()
    assert not any(part.training for part in encoder.train().modules())


def test_last_counts_residual_and_transformer_blocks() -> None:
    resnet = build_encoder("resnet18_cifar")
    trainable(resnet, "last:3")
    assert trains(resnet) == names(resnet, "backbone.layer3.1.", "backbone.layer4.")
    arguments: dict[str, Any] = {"depth": 3, "embed_dim": 12, "num_heads": 1}
    vit = build_encoder("timm:vit_tiny_patch16_224", image_size=32, **arguments)
    trainable(vit, "last:2")
    assert trains(vit) == names(vit, "backbone.blocks.2.", "backbone.norm.")
    series = SeriesEncoder(2)
    trainable(series, "last:1")
    assert trains(series) == names(series, "norms.2")


def test_patterns_name_the_parameters_that_train() -> None:
    encoder = build_encoder("small_cnn")
    trainable(encoder, ["backbone.blocks.2.*", "*.blocks.1.1.bias"])
    assert trains(encoder) == names(encoder, "backbone.blocks.2.", "backbone.blocks.1.1.bias")


def test_frozen_batch_norm_keeps_its_statistics_in_training_and_the_rest_does_not() -> None:
    encoder = build_encoder("small_cnn")
    trainable(encoder, "last:1")
    wrapped = nn.Sequential(encoder)
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    wrapped.train()(IMAGES)
    wrapped.eval()
    wrapped.train()(IMAGES)
    moved = {name for name, value in encoder.named_buffers() if not torch.equal(value, before[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert moved == {f"backbone.blocks.2.1.{name}" for name in statistics}


def test_frozen_parameters_get_no_gradient_and_copies_stay_frozen() -> None:
    encoder = build_encoder("small_cnn")
    trainable(encoder, "last:1")
    copy = deepcopy(encoder).train()
    copy(IMAGES).sum().backward()
    assert {name for name, p in copy.named_parameters() if p.grad is not None} == trains(encoder)
    assert not copy.get_submodule("backbone.blocks.0.1").training


def test_a_frozen_copy_for_momentum_keeps_batch_norm_in_training() -> None:
    copy = deepcopy(build_encoder("small_cnn")).requires_grad_(False).train()
    assert copy.get_submodule("backbone.blocks.0.1").training


def test_what_the_user_froze_stays_frozen() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    network[0].requires_grad_(False)
    encoder = as_encoder(network)
    assert trainable(encoder, "last:2") == {"trainable": 10, "frozen": 16}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            ["backbone.bloks.2.*"],
            r"'backbone.bloks.2.\*' fits no parameter; close names: backbone\.blocks\.2",
        ),
        ("last:9", r"'last:9': the encoder has 3 blocks: backbone\.blocks\.0, "),
        ("last:0", r'expected "all", "none", "last:N"'),
        ("some", r"encoder\.trainable='some'"),
    ],
)
def test_an_unknown_spec_is_refused(spec: str | list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        trainable(build_encoder("small_cnn"), spec)
