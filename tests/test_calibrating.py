from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from overtone import calibrating
from overtone.calibrating import WAYS, Way, fastest, speeds
from overtone.contracts import Batch
from overtone.datasets import trifeature
from overtone.encoders import ImageEncoder, small_cnn
from overtone.errors import RecipeError
from overtone.fitting import fit
from overtone.methods import SimCLR
from overtone.recipe import parse, read
from overtone.study import settled
from overtone.training import place
from overtone.views import ImageViews

CPU = torch.device("cpu")
AUTO = parse(
    {
        "data": {"source": "trifeature", "n": 64, "image_size": 16},
        "train": {"batch_size": 16},
        "precision": "auto",
    }
)


def _method(backbone: nn.Module) -> SimCLR:
    return SimCLR(ImageEncoder(backbone, mean=[0.5] * 3, std=[0.25] * 3, image_size=(16, 16)), out_dim=8)


def _batch() -> Batch:
    data = trifeature(8, image_size=16)
    return data.collate([data[row] for row in range(8)])


def test_rounding_less_wins_unless_another_way_is_clearly_faster() -> None:
    plain, last, half = WAYS
    assert fastest({plain: 100, last: 104, half: 109}) == plain
    assert fastest({plain: 100, last: 106, half: 109}) == last
    assert fastest({plain: 100, last: 106, half: 120}) == half


def test_layouts_are_measured_only_where_there_are_convolutions_and_no_stream_is_touched() -> None:
    before = torch.get_rng_state()
    assert list(speeds(lambda: _method(small_cnn()), ImageViews(), _batch(), CPU)) == list(WAYS)

    def flat() -> SimCLR:
        return _method(nn.Sequential(nn.Flatten(), nn.Linear(768, 8)))

    assert [way.layout for way in speeds(flat, ImageViews(), _batch(), CPU)] == [None, None]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("precision", "layout", "last"),
    [("fp32", None, False), ("fp32", "channels_last", True), ("bf16", None, True)],
)
def test_fp32_keeps_the_layout_unless_asked(precision: str, layout: str | None, last: bool) -> None:
    method = nn.Conv2d(3, 4, 3)
    place(method, precision, CPU, layout)
    assert method.weight.is_contiguous(memory_format=torch.channels_last) == last


def test_auto_is_measured_once_said_and_kept_by_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object) -> dict[Way, float]:
        return {Way("fp32"): 100.0, Way("fp32", "channels_last"): 200.0}

    monkeypatch.setattr(calibrating, "speeds", measured)
    said: list[str] = []
    recipe = settled(AUTO, tmp_path / "none", said.append)
    assert (recipe.precision, recipe.layout) == ("fp32", "channels_last")
    measurements = "samples/s, 16 at a time: fp32 100, fp32 channels_last 200"
    assert said == [f"precision: auto takes fp32 channels_last ({measurements})."]
    pictures = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)

    def again() -> None:
        fit(pictures, out=tmp_path, stages=1, epochs=1, batch_size=16, precision="auto", progress=False)

    again()
    kept = read(tmp_path / "recipe.yaml")
    assert (kept.precision, kept.layout) == ("fp32", "channels_last")
    monkeypatch.setattr(calibrating, "speeds", None)  # which cannot be called
    again()


def test_several_processes_have_to_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="precision: auto measures with one process"):
        settled(AUTO, tmp_path, print)
