"""Encoders that are given, each seeing one channel of a picture: what a stage adds is known beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from overtone import multistage
from overtone.contracts import Address, Batch
from overtone.datasets import arrays
from overtone.encoders import Encoder, as_encoder
from overtone.errors import RunError
from overtone.integration import load
from overtone.run_folder import Parts, ended
from overtone.stages import StageSpec
from overtone.stopping import Gain, adds_nothing, gain_of

LEVELS, FREQUENCIES = 12, 6
GIVEN = StageSpec(epochs=0, batch_size=16)
LATER = StageSpec(epochs=0, batch_size=16, cell_size=30)


class Sees(nn.Module):
    """The mean of the channels that it sees, as sines and cosines."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.register_buffer("sees", torch.zeros(3))
        self.sees: Tensor
        self.sees[list(channels)] = 1

    def forward(self, images: Tensor) -> Tensor:
        angles = images.mean((2, 3))[:, :, None] * torch.arange(1, FREQUENCIES + 1) * 3
        waves = torch.stack([angles.sin(), angles.cos()], -1) * self.sees[:, None, None]
        return waves.flatten(1)


def pictures(*levels: int) -> NDArray[np.uint8]:
    """600 pictures whose channels have so many levels each, all combinations alike often."""
    draw = np.random.default_rng(0)
    values = [draw.integers(0, n, 600) * 255 // max(n - 1, 1) for n in levels]
    return np.stack(values, 1).astype(np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)


def noisy(batch: Batch, address: Address) -> list[Batch]:
    """Two views, each a little brighter or darker."""
    draw = torch.Generator().manual_seed(address.seed % 2**31)
    shape = (*batch["image"].shape[:2], 1, 1)
    return [
        {**batch, "image": batch["image"] / 255 + 0.03 * torch.randn(shape, generator=draw)} for _ in range(2)
    ]


def parts(data: NDArray[np.uint8], channels: list[tuple[int, ...]], **changes: Any) -> Parts:
    dataset = arrays(data, channels_last=True)
    example = dataset.collate([dataset[0], dataset[1]])

    def encoder(stage: int) -> Encoder:
        return as_encoder(Sees(*channels[stage]), "image", example=example)

    stages = [GIVEN, *[LATER] * (len(channels) - 1)]
    given = {"dataset": dataset, "views": noisy, "encoder": encoder, "stages": stages, "stop": "auto"}
    return tiny.parts(**{**given, "duplicates": "keep", **changes})


def test_a_run_ends_with_the_first_stage_that_sees_nothing_new(tmp_path: Path) -> None:
    run = parts(pictures(LEVELS, LEVELS, 1), [(0,), (1,), (2,), (1,)])
    multistage.run(run, tmp_path)
    assert gain_of(run, tmp_path, 1).rise > 5
    assert gain_of(run, tmp_path, 2).rise == pytest.approx(0, abs=0.05)
    end = ended(tmp_path)
    assert end is not None
    assert end[0] == 3
    assert end[1].startswith("No stage follows stage 2: inside cells of 30 that stages 0-1 cannot tell apart")
    assert len(load(tmp_path, encoder=Sees()).stages) == 3
    assert not (tmp_path / "stage-3").exists()


def test_a_stage_that_sees_what_earlier_ones_see_adds_nothing(tmp_path: Path) -> None:
    multistage.run(parts(pictures(LEVELS, LEVELS, 1), [(0,), (0,), (1,)]), tmp_path)
    assert ended(tmp_path) == (2, adds_nothing(parts(pictures(LEVELS, LEVELS, 1), [(0,), (0,)]), tmp_path, 1))


def test_no_stage_is_trained_where_all_is_known_inside_its_cells(tmp_path: Path) -> None:
    def same(batch: Batch, address: Address) -> list[Batch]:
        return [{**batch, "image": batch["image"] / 255}] * 2

    multistage.run(parts(pictures(256, 256, 256), [(0, 1, 2), (0,), (1,)], views=same), tmp_path)
    end = ended(tmp_path)
    assert end is not None
    assert end[0] == 1
    assert end[1].startswith("Stage 1 is not trained: stage 0 knows")
    assert not (tmp_path / "stage-1" / "encoder").exists()


def test_a_stage_that_is_trained_is_not_asked_about_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = parts(pictures(LEVELS, LEVELS, 1), [(0,), (1,), (2,), (1,)])
    asked = []
    monkeypatch.setattr(multistage, "nothing_left", lambda _, folder, stage, levers: asked.append(stage))
    multistage.run(run, tmp_path)
    multistage.run(run, tmp_path)
    assert asked == [1, 2]


def test_without_stop_every_stage_is_trained_and_nothing_is_measured(tmp_path: Path) -> None:
    multistage.run(parts(pictures(LEVELS, 1, 1), [(0,), (1,), (2,)], stop=None), tmp_path)
    assert ended(tmp_path) == (3, "All stages of the recipe are trained.")
    assert not list(tmp_path.glob("stage-*/gain"))


def test_a_finished_run_that_is_called_again_decides_alike_and_writes_the_same(tmp_path: Path) -> None:
    run = parts(pictures(LEVELS, 1, 1), [(0,), (1,), (2,)])
    multistage.run(run, tmp_path)
    before = tiny.contents(tmp_path)
    multistage.run(run, tmp_path)
    assert tiny.contents(tmp_path) == before


@pytest.mark.parametrize(("before", "after", "rise"), [(0.2, 0.5, 3.0), (0.5, 0.5, 0.0), (0.5, 0.2, -0.75)])
def test_the_rise_is_that_of_the_odds(before: float, after: float, rise: float) -> None:
    assert Gain(30, before, after, 0.0, 1.0, 1.0, 1.0).rise == pytest.approx(rise)


def test_next_to_nothing_known_before_is_no_reason_to_go_on() -> None:
    assert Gain(30, 0.0, 1e-4, 0.0, 1.0, 1.0, 1.0).rise == 0


def test_a_damaged_end_is_named(tmp_path: Path) -> None:
    assert ended(tmp_path) is None
    (tmp_path / "end.json").write_text('{"stages": 0}')
    with pytest.raises(RunError, match=r"end\.json: damaged: expected a number of stages"):
        ended(tmp_path)


def test_no_less_than_nothing_is_said_to_be_known() -> None:
    assert str(Gain(30, -0.002, -0.0004, 0, 1, 1, 1)) == "0.0% known before it, 0.0% with it: odds +0%"
