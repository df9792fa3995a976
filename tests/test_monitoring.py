from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from overtone import monitoring
from overtone.contracts import Batch
from overtone.datasets import arrays, trifeature
from overtone.encoders import build_encoder
from overtone.monitoring import Monitor, online_knn
from overtone.rng import generator


class Seen:
    """A display that keeps what it is shown."""

    def __init__(self) -> None:
        self.advances: list[tuple[str, int, int, str]] = []

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        self.advances.append((task, done, total, note))

    def line(self, text: str) -> None: ...


class Colours(nn.Module):
    """Gives the mean of each channel: colour, and nothing else."""

    def forward(self, batch: Batch) -> Tensor:
        mean: Tensor = batch["image"].float().mean((2, 3))
        return mean - mean.mean(1, keepdim=True)


def _monitor(epochs: int = 4, encoder: nn.Module | None = None) -> tuple[Monitor, list[Any], Seen]:
    records: list[Any] = []
    display = Seen()
    data = trifeature(400, image_size=16)
    monitor = Monitor(encoder or Colours(), data, 1, epochs, 10, torch.device("cpu"), records.append, display)
    return monitor, records, display


def _record(step: int) -> dict[str, Any]:
    return {"step": step, "loss": 1.5, "samples_per_second": 100.0}


def test_a_record_is_passed_on_and_shown_with_its_share_of_the_stage() -> None:
    monitor, records, display = _monitor()
    monitor.log(_record(20), torch.randn(64, 8, generator=generator(0)))
    assert records == [{**_record(20), "alarm": records[0]["alarm"], "effective_rank": 7.89}]
    assert records[0]["alarm"] is None
    ((task, done, total, note),) = display.advances
    assert (task, done, total) == ("stage 1", 20, 40)
    assert "loss 1.500" in note


def test_a_warm_start_is_a_task_of_its_own() -> None:
    monitor, records, display = _monitor()
    monitor.warm_start_steps = 5
    for step in (-4, 0, 1):
        monitor.log(_record(step), torch.randn(64, 8, generator=generator(0)))
    assert [record["step"] for record in records] == [-4, 0, 1]
    assert [seen[:3] for seen in display.advances] == [
        ("stage 1 warm start", 1, 5),
        ("stage 1 warm start", 5, 5),
        ("stage 1", 1, 40),
    ]


def test_a_collapse_is_warned_of_once_and_recorded_every_time(caplog: pytest.LogCaptureFixture) -> None:
    monitor, records, _ = _monitor()
    for step in (20, 40):
        monitor.log(_record(step), torch.ones(64, 8))
    assert all(record["alarm"] for record in records)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "stage 1, step 20" in caplog.text


def test_knn_reads_what_the_encoder_tells_apart_and_little_else() -> None:
    accuracies = online_knn(Colours(), trifeature(1000, image_size=16), torch.device("cpu"))
    assert accuracies["colour"] > 90
    assert accuracies["texture"] < 60
    assert accuracies["shape"] < 30


def test_knn_is_the_same_each_time_and_leaves_the_encoder_in_training() -> None:
    encoder = build_encoder("small_cnn").train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    data, device = trifeature(300, image_size=16), torch.device("cpu")
    assert online_knn(encoder, data, device) == online_knn(encoder, data, device)
    assert encoder.training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


@pytest.mark.parametrize(("epochs", "checked"), [(3, [1, 2, 3]), (20, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20])])
def test_knn_runs_after_some_epochs_and_always_after_the_last(
    epochs: int, checked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "online_knn", lambda *_: {"shape": 50.0})
    monitor, records, _ = _monitor(epochs)
    for done in range(1, epochs + 1):
        monitor.on_epoch(done)
    assert records == [{"step": 10 * done, "knn/shape": 50.0} for done in checked]
    monitor.log(_record(10 * epochs), torch.randn(64, 8, generator=generator(0)))
    assert monitor.summary() == "loss 1.500, kNN shape 50"


def test_without_labels_there_is_no_knn() -> None:
    data = arrays(np.zeros((40, 8, 8, 3), dtype=np.uint8))
    assert online_knn(Colours(), data, torch.device("cpu")) == {}


def test_a_class_that_is_asked_about_without_any_voter_is_left_out_of_the_count() -> None:
    data = trifeature(400, image_size=16)
    data.labels = {
        "id": np.arange(400),
        "colour": np.where(np.arange(400) < 9, np.arange(9, 409), data.labels["colour"]),
    }
    accuracies = online_knn(Colours(), data, torch.device("cpu"))
    assert set(accuracies) == {"colour"}
    assert accuracies["colour"] > 90


def test_an_attribute_that_is_hardly_labelled_is_left_out() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    few = [0, 1] + [-1] * 38
    data = arrays(pixels, {"few": few, "all": list(range(2)) * 20, "one": [0] * 40})
    assert set(online_knn(Colours(), data, torch.device("cpu"))) <= {"all", "few"}
    assert "one" not in online_knn(Colours(), data, torch.device("cpu"))
