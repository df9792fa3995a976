from __future__ import annotations

import dataclasses
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from overtone import artifacts, interrupts, multistage
from overtone.encoders import Encoder, add_lora, as_encoder, build_encoder, load_encoder, merge_lora
from overtone.errors import RecipeError
from overtone.multistage import run
from overtone.progress import Silent
from overtone.recipe import parse
from overtone.run_folder import Parts
from overtone.stages import Lora
from overtone.training import Pace

pytest.importorskip("peft", reason="peft is not installed")

IMAGES = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
BATCH = {"image": IMAGES, "text": ["a red dot", "two", "a blue square", "b"]}


def _vit() -> Encoder:
    arguments: dict[str, Any] = {"depth": 2, "embed_dim": 16, "num_heads": 2, "patch_size": 8}
    return build_encoder("timm:vit_tiny_patch16_224", image_size=16, **arguments)


def _open_clip() -> Encoder:
    pytest.importorskip("open_clip", reason="open_clip is not installed")
    return build_encoder("open_clip:ViT-S-32-alt", image_size=32)


ENCODERS: dict[str, tuple[Callable[[], Encoder], str]] = {
    "timm": (_vit, "backbone.blocks.*"),
    "open_clip": (_open_clip, "*.mlp.c_fc"),
    "small_clip": (lambda: build_encoder("small_clip", width=8), "*"),
}


@pytest.fixture(params=sorted(ENCODERS))
def case(request: pytest.FixtureRequest) -> tuple[Encoder, str]:
    torch.manual_seed(0)
    make, pattern = ENCODERS[request.param]
    return make(), pattern


def _given(encoder: Encoder) -> torch.Tensor:
    images = IMAGES.repeat(1, 1, 2, 2) if "open_clip" in str(encoder.spec) else IMAGES
    given: torch.Tensor = encoder({**BATCH, "image": images})
    return given


def _stirred(encoder: Encoder) -> None:
    """As if every adapter had learned something."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / 10)


def test_before_training_it_is_the_encoder_bit_for_bit(case: tuple[Encoder, str]) -> None:
    encoder, pattern = case
    with torch.no_grad():
        before = _given(encoder.eval())
        add_lora(encoder, [pattern])
        assert torch.equal(_given(encoder), before)


def test_merged_it_has_the_names_of_before_and_gives_what_it_gave_with_adapters(
    case: tuple[Encoder, str],
) -> None:
    encoder, pattern = case
    names = [name for name, _ in encoder.eval().named_parameters()]
    add_lora(encoder, [pattern], rank=2, alpha=3)
    _stirred(encoder)
    with torch.no_grad():
        adapted = _given(encoder)
        merge_lora(encoder)
        torch.testing.assert_close(_given(encoder), adapted, atol=1e-5, rtol=1e-5)
    assert [name for name, _ in encoder.named_parameters()] == names


def test_what_is_merged_is_b_times_a_times_alpha_over_rank() -> None:
    encoder = as_encoder(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), mean=[0.5] * 3, std=[1.0] * 3, dim=3)
    add_lora(encoder, ["backbone.1"], rank=2, alpha=3)
    _stirred(encoder)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    merge_lora(encoder)
    base, a, b = (
        state[f"backbone.1.{part}.weight"] for part in ("base_layer", "lora_A.default", "lora_B.default")
    )
    torch.testing.assert_close(encoder.state_dict()["backbone.1.weight"], base + b @ a * 3 / 2)


def test_only_adapters_and_what_is_named_beside_them_train(case: tuple[Encoder, str]) -> None:
    encoder, pattern = case
    beside = [next(name for name, _ in encoder.named_parameters())]
    add_lora(encoder, [pattern], beside=beside)
    trains = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trains == {name for name, _ in encoder.named_parameters() if ".lora_" in name} | set(beside)


def test_a_pattern_that_fits_nothing_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(
        RecipeError, match=r"'backbone\.blocks\.0\.attn\.qvk' fits no linear layer; close names: "
    ):
        add_lora(_vit(), ["backbone.blocks.0.attn.qvk"])
    with pytest.raises(RecipeError, match="close names: none"):
        add_lora(build_encoder("small_cnn"), ["*"])


@pytest.mark.parametrize("pattern", ["*.attn", "*.attn.out_proj"])
def test_torchs_attention_which_would_pass_adapters_by_is_refused_with_what_can_be_chosen(
    pattern: str,
) -> None:
    encoder = _open_clip()
    with pytest.raises(RecipeError, match=r"only layers of torch's MultiheadAttention, .* such as \S*mlp"):
        add_lora(encoder, [pattern])
    assert not any("attn" in name for name in add_lora(encoder, ["*"]))


def test_an_adapter_that_is_passed_by_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.called = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            rows = self.called(images.mean((2, 3)))
            return torch.nn.functional.linear(rows, self.read.weight)

    encoder = as_encoder(Around())
    add_lora(encoder, ["*"])
    encoder({"image": IMAGES}).sum().backward()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad)
    with caplog.at_level(logging.WARNING):
        merge_lora(encoder)
    assert caplog.messages == ["lora: 1 adapters learned nothing: backbone.read."]


SPEC = Lora(("backbone.blocks.*",), rank=2)


def _parts() -> Parts:
    """A run whose second stage trains adapters on the first."""
    first = dataclasses.replace(tiny.FIRST, epochs=0, lora=SPEC)
    second = dataclasses.replace(tiny.SECOND, init="base", lora=SPEC)
    return tiny.parts(encoder=lambda stage: _vit(), stages=[first, second])


class StopsAt:
    """A display that interrupts stage 1 at its third step, where a checkpoint is due."""

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        if (task, done) == ("stage 1", 3):
            signal.raise_signal(signal.SIGINT)

    def line(self, text: str) -> None: ...


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "finished"
    run(_parts(), folder, Silent())
    return folder


def test_a_stage_moves_the_adapted_weights_alone_and_leaves_an_ordinary_encoder(finished: Path) -> None:
    before, after = (load_encoder(finished / f"stage-{stage}" / "encoder").state_dict() for stage in (0, 1))
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    linear = {name for name, part in _vit().named_modules() if isinstance(part, nn.Linear)}
    assert moved == {f"{name}.weight" for name in linear}


def test_a_stage_that_was_interrupted_ends_in_the_same_bytes(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every_step(*given: Any, **named: Any) -> Pace:
        return Pace(*given, **{**named, "checkpoint_seconds": 0.0, "log_every": 1})

    monkeypatch.setattr(multistage, "Pace", every_step)
    with pytest.raises(interrupts.Stopped):
        run(_parts(), tmp_path, StopsAt())
    checkpoint = max((tmp_path / "stage-1" / "checkpoints").iterdir())
    assert artifacts.is_complete(checkpoint)
    assert b".lora_A." in (checkpoint / "method.safetensors").read_bytes()
    run(_parts(), tmp_path, Silent())
    assert tiny.artifacts_of(tmp_path) == tiny.artifacts_of(finished)


@pytest.mark.parametrize(
    ("lora", "complaint"),
    [
        ({"modules": ["*"], "rnak": 2}, r"train\.lora\.rnak: unknown field; did you mean `rank`\?"),
        ({"rank": 2}, r"train\.lora\.modules: is missing"),
        ({"modules": ["*"], "rank": 0}, "'rank': 0.* expected rank of 1 or more"),
        ({"modules": []}, "patterns of names of linear layers"),
    ],
)
def test_a_wrong_value_is_refused_by_its_field(lora: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        parse({"data": {"source": "trifeature", "n": 100}, "train": {"lora": lora}})
