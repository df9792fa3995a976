from __future__ import annotations

import dataclasses
import json
import logging
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from processes import finished, start
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional as F

from overtone import interrupts, multistage
from overtone.contracts import Dataset
from overtone.datasets import Captioned, arrays, captioned_scenes, trifeature
from overtone.drift import check_drift, recall_at_1
from overtone.encoders import Encoder, ImageEncoder, TwoTowerEncoder, build_encoder
from overtone.encoders.two_towers import WordBag, small_clip
from overtone.errors import RecipeError
from overtone.methods import CLIP
from overtone.multistage import run
from overtone.rng import numpy_generator, seeded
from overtone.run_folder import Parts
from overtone.stages import Drift, StageSpec, complaints
from overtone.training import Pace
from overtone.views import ImageTextViews

FIRST = StageSpec(epochs=8, batch_size=36, lr=3e-3)
SLOW, DESTRUCTIVE = 1e-5, 0.3
LAST = StageSpec(epochs=1, batch_size=36, cell_size=20, init="base", lr=SLOW)


def colours(n: int, start: int) -> Captioned:
    """Pictures of one of 24 colours each, or a little off it, with its number as the text."""
    palette = numpy_generator(0, "palette").integers(0, 256, (24, 1, 1, 3))
    which = np.arange(start, start + n) % 24
    noise = numpy_generator(start, "noise").integers(-4, 5, (n, 8, 8, 3))
    pictures = np.clip(palette[which] + noise, 0, 255).astype(np.uint8)
    return Captioned(arrays(pictures), [f"colour{code}" for code in which])


def towers(_: int = 0) -> TwoTowerEncoder:
    """Two towers without batch norm, whose statistics are those of a process."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.GELU(), nn.Linear(64, 16))
    picture = ImageEncoder(layers, mean=[0.5] * 3, std=[0.25] * 3, dim=16)
    return TwoTowerEncoder(picture, WordBag(256, 16), width=16)


def guarded(lr: float, drift: Drift | None, **changes: Any) -> StageSpec:
    values = {"epochs": 4, "batch_size": 36, "cell_size": 20, "init": "base", "lr": lr, "drift": drift}
    return StageSpec(**{**values, **changes})


# It keeps enough in its first epoch and too little from the second on.
FALLING = guarded(0.01, Drift(keep=0.8, stop=True), warmup_epochs=4.0, optimizer_warm_start_steps=3)


def parts(*later: StageSpec, **changes: Any) -> Parts:
    given: dict[str, Any] = {
        "dataset": colours(144, 0),
        "test": colours(48, 1000),
        "views": ImageTextViews(),
        "encoder": towers,
        "method": CLIP,
        "stages": [FIRST, *later],
        "duplicates": "keep",
    }
    return Parts(**{**given, **changes})


def measured(folder: Path, stage: int = 1) -> dict[int, dict[str, float]]:
    """Step -> what the guard found."""
    lines = map(json.loads, (folder / f"stage-{stage}" / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line for line in lines if "drift/kept" in line}


def weights(folder: Path, stage: int) -> dict[str, Any]:
    return load_file(folder / f"stage-{stage}" / "encoder" / "encoder.safetensors")


class Ends:
    """A display that ends the run when a task stands at a step: asked to stop, or without a word."""

    def __init__(self, task: str, at: int, *, asked: bool) -> None:
        self.wanted, self.asked = (task, at), asked

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        if (task, done) == self.wanted:
            if not self.asked:
                raise RuntimeError("killed")
            signal.raise_signal(signal.SIGTERM)

    def line(self, text: str) -> None: ...


@pytest.fixture(scope="module")
def fallen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose guard ended stage 1; nobody writes into it."""
    folder = tmp_path_factory.mktemp("runs") / "fallen"
    run(parts(FALLING, LAST), folder)
    return folder


def test_the_figure_is_recall_at_1_as_a_plain_loop_finds_it() -> None:
    with seeded(0, "towers"):
        encoder = small_clip(width=8).train()
    scenes = captioned_scenes(30)
    texts = [*scenes.texts[:25], *scenes.texts[:5]]  # five texts stand there twice
    pairs = Captioned(
        arrays(torch.stack([scenes[row]["image"] for row in range(30)]), channels_last=False), texts
    )
    with torch.no_grad():
        encoder.eval()
        pictures = [
            F.normalize(encoder.encode_image(pairs[row]["image"][None]), dim=1)[0] for row in range(30)
        ]
        said = [F.normalize(encoder.encode_text([text]), dim=1)[0] for text in texts]
        encoder.train()
    right = 0
    for asked, answers in ((pictures, said), (said, pictures)):
        for row in range(30):
            best = max(range(30), key=lambda column: float(asked[row] @ answers[column]))
            right += texts[best] == texts[row]
    assert recall_at_1(encoder, pairs) == pytest.approx(100 * right / 60)
    assert right
    assert all(module.training for module in encoder.modules())


def test_a_destructive_rate_is_warned_of_once_and_trained_to_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(parts(guarded(DESTRUCTIVE, Drift(every=3))), tmp_path)
    found = measured(tmp_path)
    assert list(found) == [12, 16]  # after epoch 3 of 4 steps each, and at the end
    assert all(
        one["drift/kept"] == one["drift/recall@1"] / one["drift/at_start"] < 0.5 for one in found.values()
    )
    warnings = [
        r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "recall" in r.message
    ]
    assert len(warnings) == 1
    assert "stage 1, epoch 3: recall@1" in warnings[0]
    assert "kept where 90 were asked for" in warnings[0]


def test_the_reference_is_what_the_starting_encoder_finds_and_the_end_what_the_trained_one_does(
    tmp_path: Path,
) -> None:
    run(parts(guarded(0.003, Drift(every=9))), tmp_path)
    (found,) = measured(tmp_path).values()
    for stage, name in ((0, "drift/at_start"), (1, "drift/recall@1")):
        encoder = towers()
        encoder.load_state_dict({key: torch.tensor(value) for key, value in weights(tmp_path, stage).items()})
        assert found[name] == recall_at_1(encoder, colours(48, 1000))


def test_a_guard_that_may_stop_ends_the_stage_with_the_last_good_weights_and_the_run_goes_on(
    fallen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [one["drift/kept"] >= 0.8 for one in measured(fallen).values()]
    assert kept == [True, False]  # epochs 3 and 4 were not trained
    monkeypatch.setattr(multistage, "Pace", partial(Pace, log_every=1))
    with pytest.raises(interrupts.Stopped):  # a run without a guard leaves a checkpoint of its first epoch
        run(parts(dataclasses.replace(FALLING, drift=None)), tmp_path, Ends("stage 1", 3, asked=True))
    (saved,) = (tmp_path / "stage-1" / "checkpoints").iterdir()
    assert saved.name == "step-00000007"  # 3 of the warm start, 4 of the epoch
    expected = load_file(saved / "method.safetensors")
    for name, value in weights(fallen, 1).items():
        assert np.array_equal(value, expected[f"encoder.{name}"]), name
    assert (fallen / "stage-2" / "encoder").exists()
    assert not (fallen / "stage-1" / "checkpoints").exists()


def test_where_no_measurement_was_good_the_stage_ends_with_the_weights_it_started_from(
    tmp_path: Path,
) -> None:
    run(parts(guarded(DESTRUCTIVE, Drift(stop=True)), LAST), tmp_path)
    assert list(measured(tmp_path)) == [4]
    start = weights(tmp_path, 0)
    assert all(np.array_equal(value, start[name]) for name, value in weights(tmp_path, 1).items())


@pytest.mark.parametrize(
    ("task", "at", "asked"),
    [
        ("stage 1 warm start", 1, True),
        ("stage 1", 3, True),  # the step at which it hears of it, the next, ends an epoch that is measured
        ("stage 1", 6, True),
        ("stage 1", 6, False),  # no checkpoint but those of the guard
        ("stage 1", 8, False),
    ],
)
def test_an_interrupted_stage_is_ended_by_its_guard_at_the_same_step_with_the_same_bytes(
    fallen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, at: int, asked: bool
) -> None:
    monkeypatch.setattr(multistage, "Pace", partial(Pace, log_every=1))
    with pytest.raises(interrupts.Stopped if asked else RuntimeError):
        run(parts(FALLING, LAST), tmp_path, Ends(task, at, asked=asked))
    assert not (tmp_path / "stage-1" / "encoder").exists()
    run(parts(FALLING, LAST), tmp_path)
    assert tiny.artifacts_of(tmp_path) == tiny.artifacts_of(fallen)
    assert measured(tmp_path) == measured(fallen)


RUN = """
import sys
from pathlib import Path
import test_drift as here
from overtone import multistage

multistage.run(here.parts(here.FALLING, here.LAST, shard=bool(int(sys.argv[2]))), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("shard", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_decide_as_one_does(fallen: Path, tmp_path: Path, shard: bool) -> None:
    for code, output in finished(start(2, RUN, tmp_path, int(shard))):
        assert code == 0, output
    alone, both = measured(fallen), measured(tmp_path)
    assert list(both) == list(alone)
    assert [one["drift/kept"] for one in both.values()] == pytest.approx(
        [one["drift/kept"] for one in alone.values()], abs=0.05
    )
    expected = weights(fallen, 1)
    for name, value in weights(tmp_path, 1).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=2e-4, err_msg=name)


@pytest.mark.parametrize(
    ("encoder", "held_out", "complaint"),
    [
        (towers(), None, "held-out pairs, the recipe's `test`, but there is none"),
        (towers(), trifeature(5, image_size=16), "its 5 samples have no text"),
        (build_encoder("small_cnn"), colours(5, 0), "ImageEncoder lacks a tower"),
    ],
)
def test_a_guard_with_nothing_to_measure_is_refused(
    encoder: Encoder, held_out: Dataset | None, complaint: str
) -> None:
    with pytest.raises(RecipeError, match=rf"stages\[1\].drift: .*{complaint}"):
        check_drift([FIRST, guarded(0.01, Drift())], held_out, encoder)
    check_drift([guarded(0.01, Drift()), LAST], held_out, encoder)  # stage 0 starts from nothing earlier


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"drift": Drift(keep=1.5)}, "keep above 0 and at most 1"),
        ({"drift": Drift(every=0)}, "every 1 or more"),
        ({"drift": Drift(), "init": "scratch"}, "init: scratch starts from nothing"),
        ({"optimizer_warm_start_steps": 5, "optimizer": "sgd"}, "0 unless optimizer: adamw"),
        ({"optimizer_warm_start_steps": -1}, "0 or more"),
    ],
)
def test_values_that_cannot_be_are_named(values: dict[str, Any], complaint: str) -> None:
    (found,) = complaints([FIRST, StageSpec(**{"epochs": 1, "cell_size": 20, "init": "base", **values})])
    assert (found.stage, found.field) == (1, next(iter(values)))
    assert complaint in found.message
