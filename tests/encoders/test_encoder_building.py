from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from overtone.encoders import ImageEncoder, build_encoder, resnet18_cifar, small_cnn
from overtone.errors import RecipeError

TINY_VIT: dict[str, Any] = {"depth": 1, "embed_dim": 24, "num_heads": 2}
BUILDS: list[dict[str, Any]] = [
    {"name": "small_cnn", "channels": 5},
    {"name": "resnet18_cifar", "channels": 1, "mean": [0.1], "std": [0.2]},
    {"name": "series_cnn", "channels": 2, "widths": [8, 12]},
    {"name": "sequence_transformer", "k": 2, "dim": 16},
    {"name": "series_transformer", "channels": 2, "patch": 8, "stride": 4, "dim": 16},
    {"name": "torchvision:shufflenet_v2_x0_5", "channels": 4, "image_size": [64, 48]},
    {"name": "timm:vit_tiny_patch16_224", "channels": 2, "image_size": 32, **TINY_VIT},
    {"name": "timm:test_convnext", "image_size": 64},
]


def batch(channels: int, side: int = 32) -> dict[str, Tensor]:
    return {"image": torch.rand(2, channels, side, side)}


@pytest.mark.parametrize("arguments", BUILDS, ids=lambda arguments: arguments["name"])
def test_the_spec_is_json_and_builds_the_same_architecture(arguments: dict[str, Any]) -> None:
    encoder = build_encoder(**arguments)
    again = build_encoder(**json.loads(json.dumps(encoder.spec)))
    assert (again.spec, again.dim) == (encoder.spec, encoder.dim)
    shapes = [{name: value.shape for name, value in e.state_dict().items()} for e in (encoder, again)]
    assert shapes[0] == shapes[1]
    assert "pretrained" not in (encoder.spec or {})


def test_small_cnn_is_three_strided_convolutions_and_a_mean() -> None:
    network = small_cnn(3).eval()
    values = sum(parameter.numel() for parameter in network.parameters())
    assert values == 9 * (3 * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128)
    images = torch.rand(2, 3, 32, 32)
    for block in network.blocks:  # type: ignore[union-attr]
        convolved = nn.functional.conv2d(images, block[0].weight, stride=2, padding=1)
        images = (convolved / (1 + 1e-5) ** 0.5).clamp(min=0)
    torch.manual_seed(0)
    inputs = torch.rand(2, 3, 32, 32)
    features = network.blocks(inputs)  # type: ignore[operator]
    assert (images.shape, features.shape) == ((2, 128, 4, 4), (2, 128, 4, 4))
    assert torch.equal(network(inputs), features.mean((2, 3)))


def test_resnet18_cifar_keeps_the_resolution_of_its_stem() -> None:
    network = resnet18_cifar(3)
    seen: list[torch.Size] = []
    network.layer1.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))  # type: ignore[union-attr]
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 512)
    assert seen == [(2, 64, 32, 32)]


@pytest.mark.parametrize(
    ("name", "dim"),
    [("resnet18", 512), ("mobilenet_v3_small", 1024), ("convnext_tiny", 768), ("densenet121", 1024)],
)
def test_torchvision_models_lose_their_head(name: str, dim: int) -> None:
    encoder = build_encoder(f"torchvision:{name}", image_size=32)
    assert encoder.dim == dim
    assert encoder(batch(3)).shape == (2, dim)
    assert isinstance(encoder, ImageEncoder)
    torch.testing.assert_close(encoder.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


def test_timm_models_take_the_size_channels_and_statistics_of_their_own_configuration() -> None:
    encoder = build_encoder("timm:vit_tiny_patch16_224", image_size=32, channels=3, **TINY_VIT)
    assert encoder(batch(3)).shape == (2, 24)
    assert isinstance(encoder, ImageEncoder)
    assert (encoder.mean.flatten().tolist(), encoder.std.flatten().tolist()) == ([0.5] * 3, [0.5] * 3)


def test_statistics_of_the_user_take_precedence() -> None:
    encoder = build_encoder("small_cnn", channels=2, mean=[0.1, 0.2], std=[0.3, 0.4])
    assert isinstance(encoder, ImageEncoder)
    torch.testing.assert_close(encoder.mean.flatten(), torch.tensor([0.1, 0.2]))
    with pytest.raises(
        RecipeError, match=r"encoder.mean=\[0.1\]: expected one number for each of 3 channels"
    ):
        build_encoder("small_cnn", mean=[0.1], std=[0.3])


def test_a_class_of_the_users_needs_trust() -> None:
    name = f"{__name__}:Pool"
    with pytest.raises(RecipeError, match="needs trust=True"):
        build_encoder(name, factor=2.0)
    encoder = build_encoder(name, trust=True, factor=2.0)
    assert (encoder.dim, encoder.spec) == (3, None)
    with pytest.raises(RecipeError, match="cannot be built with"):
        build_encoder(name, trust=True, factr=2.0)
    with pytest.raises(RecipeError, match=r"expected package\.module:Class"):
        build_encoder("no_such_package.here:Net", trust=True)


class Pool(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) * self.factor


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smal_cnn", "did you mean 'small_cnn'"),
        ("torchvision:resnet5", "did you mean 'torchvision:resnet"),
        ("timm:vit_tiny_patch16_242", "did you mean 'timm:vit_tiny_patch16_224'"),
        ("timm:hf-hub:someone/model", "is unknown"),
        ("resnet50", "Known: small_cnn, resnet18_cifar, "),
        ("torchvision:squeezenet1_0", "has no linear head"),
    ],
)
def test_an_unknown_name_is_refused_with_a_guess(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_encoder(name)


def test_arguments_that_do_not_fit_or_would_read_files_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"'small_cnn' cannot be built with .*widht"):
        build_encoder("small_cnn", widht=3)
    with pytest.raises(RecipeError, match=r"encoder\.checkpoint_path: not an argument"):
        build_encoder("timm:resnet18", checkpoint_path="weights.pth")
    with pytest.raises(RecipeError, match="small_cnn has no published weights"):
        build_encoder("small_cnn", pretrained=True)
    with pytest.raises(RecipeError, match="torchvision's weights take 3"):
        build_encoder("torchvision:resnet18", channels=1, pretrained=True)
