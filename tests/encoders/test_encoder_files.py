from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.encoders import (
    BatchEncoder,
    Encoder,
    SeriesEncoder,
    as_encoder,
    build_encoder,
    load_encoder,
    load_weights,
    save_encoder,
)
from overtone.errors import RecipeError, RunError

IMAGES = {"image": torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))}


def own_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def trained(encoder: Encoder, batch: Batch) -> Encoder:
    """Moves the statistics of batch norm away from where they start."""
    for _ in range(3):
        encoder.train()(batch)
    return encoder.eval()


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "small_cnn"},
        {"name": "timm:vit_tiny_patch16_224", "image_size": 32, "depth": 1, "embed_dim": 24, "num_heads": 2},
        {"name": "torchvision:shufflenet_v2_x0_5", "image_size": 32},
    ],
    ids=lambda arguments: arguments["name"],
)
def test_a_reloaded_encoder_gives_the_same_bits(tmp_path: Path, arguments: dict[str, Any]) -> None:
    encoder = trained(build_encoder(**arguments), IMAGES)
    save_encoder(encoder, tmp_path)
    state = torch.get_rng_state()
    again = load_encoder(tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert (again.spec, again.dim, again.training) == (encoder.spec, encoder.dim, False)
    assert all(torch.equal(a, b) for a, b in zip(encoder.buffers(), again.buffers(), strict=True))
    assert torch.equal(again(IMAGES), encoder(IMAGES))


def test_series_encoders_reload_too(tmp_path: Path) -> None:
    encoder = SeriesEncoder(2, widths=(4, 8))
    save_encoder(encoder, tmp_path)
    batch = {"series": torch.rand(3, 9, 2), "length": torch.tensor([9, 9, 9])}
    assert torch.equal(load_encoder(tmp_path)(batch), encoder(batch))


def test_an_own_module_is_loaded_into_a_copy_of_the_given_one(tmp_path: Path) -> None:
    encoder = trained(as_encoder(own_network(), mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7]), IMAGES)
    save_encoder(encoder, tmp_path)
    with pytest.raises(RunError, match=r"architecture is your own \(ImageEncoder\).*pass the module"):
        load_encoder(tmp_path)
    other = own_network()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    for given in (other, as_encoder(other)):
        assert torch.equal(load_encoder(tmp_path, given)(IMAGES), encoder(IMAGES))
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


class Tied(nn.Module):
    """Two names for one weight, as in tied embeddings, and one that is not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.turned = nn.Parameter(torch.rand(4, 4).T)

    def forward(self, batch: Batch) -> Tensor:
        result: Tensor = self.second(self.first(batch["vector"])) @ self.turned
        return result


def test_shared_and_strided_weights_survive(tmp_path: Path) -> None:
    encoder, batch = BatchEncoder(Tied(), dim=4), {"vector": torch.rand(2, 4)}
    save_encoder(encoder, tmp_path)
    again = load_encoder(tmp_path, Tied())
    torch.testing.assert_close(again(batch), encoder(batch))
    picture_encoder = build_encoder("small_cnn").eval().to(memory_format=torch.channels_last)
    save_encoder(picture_encoder, tmp_path)
    torch.testing.assert_close(load_encoder(tmp_path)(IMAGES), picture_encoder(IMAGES))


def edited(folder: Path, **changes: Tensor | None) -> None:
    state = load_file(folder / "encoder.safetensors") | changes
    save_file(
        {name: value for name, value in state.items() if value is not None}, folder / "encoder.safetensors"
    )


CONVOLUTION, NORM = "backbone.blocks.0.0.weight", "backbone.blocks.0.1.bias"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NORM: None}, rf"1 missing: {NORM};"),
        ({"extra": torch.ones(1)}, r"1 unexpected: extra;"),
        ({NORM: torch.ones(3)}, rf"1 different: {NORM} \(float32 \(3,\), expected float32 \(32,\)\)"),
        ({NORM: torch.ones(32).double()}, rf"1 different: {NORM} \(float64 \(32,\), expected float32"),
        ({NORM: torch.full((32,), torch.nan)}, rf"1 not finite: {NORM};"),
        ({f"extra{i}": torch.ones(1) for i in range(9)}, r"9 unexpected: extra0, .*extra4, \.\.\.;"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Tensor | None], message: str
) -> None:
    save_encoder(build_encoder("small_cnn"), tmp_path)
    edited(tmp_path, **changes)
    with pytest.raises(RunError, match=message):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "os:system", "trust": True},
        {"name": "os:system"},
        {"name": "torchvision:resnet18", "pretrained": True},
        {"name": "timm:resnet18", "checkpoint_path": "x.pth"},
        {"name": "small_cnn", "no_such": 1},
        {"channels": 3},
        "small_cnn",
    ],
    ids=str,
)
def test_a_description_cannot_name_code_or_fetch_weights(tmp_path: Path, spec: object) -> None:
    save_encoder(build_encoder("small_cnn"), tmp_path)
    description = json.loads((tmp_path / "encoder.json").read_text()) | {"spec": spec}
    (tmp_path / "encoder.json").write_text(json.dumps(description))
    with pytest.raises(RunError, match=r"`spec` is|cannot be built"):
        load_encoder(tmp_path)


def test_missing_or_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"encoder\.json: missing"):
        load_encoder(tmp_path)
    save_encoder(build_encoder("small_cnn"), tmp_path)
    whole = (tmp_path / "encoder.safetensors").read_bytes()
    (tmp_path / "encoder.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"encoder\.safetensors: not readable as safetensors"):
        load_encoder(tmp_path)
    (tmp_path / "encoder.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match=r"not a description of an encoder in format 1"):
        load_encoder(tmp_path)


def test_a_state_that_is_not_tensors_is_refused(tmp_path: Path) -> None:
    class Counting(nn.Flatten):
        def get_extra_state(self) -> int:
            return 7

        def set_extra_state(self, state: int) -> None: ...

    with pytest.raises(RecipeError, match="_extra_state' is a int: only tensors"):
        save_encoder(as_encoder(Counting()), tmp_path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_own_weights_load_with_or_without_a_prefix(tmp_path: Path, suffix: str, prefix: str) -> None:
    source, target, path = own_network(), own_network(), tmp_path / f"weights{suffix}"
    state = {prefix + name: value for name, value in source.state_dict().items()}
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3}, path)
    load_weights(target, path)
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])


def test_the_head_of_a_model_without_one_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = torchvision.models.shufflenet_v2_x0_5(num_classes=5)
    torch.save(model.half().state_dict(), tmp_path / "weights.pt")
    encoder = build_encoder("torchvision:shufflenet_v2_x0_5", image_size=32)
    with caplog.at_level(logging.INFO):
        load_weights(encoder.get_submodule("backbone"), tmp_path / "weights.pt")
    assert "left out fc.bias, fc.weight" in caplog.text
    assert "tensors to the precision of the module" in caplog.text
    expected = model.float().conv1[0].weight
    assert torch.equal(encoder.get_parameter("backbone.conv1.0.weight"), expected)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not be printed",)


def test_files_that_are_more_than_tensors_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(Harmful(), tmp_path / "code.pt")
    with pytest.raises(RunError, match="not readable as tensors alone"):
        load_weights(own_network(), tmp_path / "code.pt")
    assert capsys.readouterr().out == ""
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(RunError, match="holds no state_dict"):
        load_weights(own_network(), tmp_path / "list.pt")
    for name in ("weights.bin", "missing.pt", "missing.safetensors"):
        with pytest.raises(RunError, match=name):
            load_weights(own_network(), tmp_path / name)
    (tmp_path / "empty.pt").write_bytes(b"")
    with pytest.raises(RunError, match=r"empty\.pt: not readable"):
        load_weights(own_network(), tmp_path / "empty.pt")
