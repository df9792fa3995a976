"""An encoder that someone else trained, as stage 0, and stages that start from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from overtone import multistage
from overtone.encoders import Encoder, build_encoder, load_encoder
from overtone.recipe import build_parts, open_data, parse, resolved
from overtone.rng import seeded


def given_weights(path: Path, *, whole: bool) -> dict[str, torch.Tensor]:
    """Writes the weights of an encoder, or of its backbone alone; gives the backbone's."""
    with seeded(7, "someone else's"):
        encoder = build_encoder("small_cnn", image_size=16)
    backbone = encoder.get_submodule("backbone").state_dict()
    save_file(encoder.state_dict() if whole else backbone, path)
    return backbone


def trained(folder: Path, weights: Path, stage: dict[str, Any]) -> list[Encoder]:
    values = {
        "data": {"source": "trifeature", "n": 120, "image_size": 16},
        "encoder": {"name": "small_cnn", "weights": str(weights)},
        "train": {"epochs": 1, "batch_size": 40},
        "stages": [{"epochs": 0}, {"cell_size": 20, **stage}],
        "loggers": [],
        "threads": 1,
    }
    recipe = resolved(parse(values))
    multistage.run(build_parts(recipe, *open_data(recipe)), folder)
    return [load_encoder(folder / f"stage-{number}" / "encoder") for number in range(2)]


@pytest.mark.parametrize("whole", [True, False])
def test_stage_0_is_the_given_encoder_and_a_later_stage_trains_only_what_it_may(
    tmp_path: Path, whole: bool
) -> None:
    given = given_weights(tmp_path / "given.safetensors", whole=whole)
    first, second = trained(tmp_path / "run", tmp_path / "given.safetensors", {"trainable": "last:1"})
    kept, learned = first.state_dict(), second.state_dict()
    blocks = sorted({name.rsplit(".", 2)[0] for name in given})
    for name, value in given.items():
        assert torch.equal(kept[f"backbone.{name}"], value)
    changed = {name for name, value in given.items() if not torch.equal(learned[f"backbone.{name}"], value)}
    assert changed
    assert {name.rsplit(".", 2)[0] for name in changed} == {blocks[-1]}


def test_a_lower_rate_for_the_encoder_moves_it_less(tmp_path: Path) -> None:
    given = given_weights(tmp_path / "given.safetensors", whole=False)
    moved = []
    for scale in (1.0, 0.01):
        folder = tmp_path / f"run-{scale}"
        _, second = trained(folder, tmp_path / "given.safetensors", {"encoder_lr_scale": scale})
        after = {name: second.state_dict()[f"backbone.{name}"] for name in given if name.endswith("weight")}
        moved.append(sum(float((after[name] - given[name]).abs().sum()) for name in after))
    assert 0 < moved[1] < moved[0] / 20


def test_a_stage_from_scratch_does_not_start_from_the_given_weights(tmp_path: Path) -> None:
    given = given_weights(tmp_path / "given.safetensors", whole=False)
    _, second = trained(
        tmp_path / "run", tmp_path / "given.safetensors", {"init": "scratch", "encoder_lr_scale": 1e-9}
    )
    weight = next(name for name in given if name.endswith("weight") and given[name].ndim == 4)
    assert not torch.allclose(second.get_parameter(f"backbone.{weight}"), given[weight], atol=1e-3)
