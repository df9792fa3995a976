from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from overtone import loggers
from overtone.errors import RecipeError
from overtone.loggers import Loggers


def _lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_records_are_lines_of_json_and_a_second_training_appends(tmp_path: Path) -> None:
    for step in (1, 2):
        with Loggers(tmp_path / "new", []) as log:
            log({"step": step, "loss": 2.5, "alarm": None})
    assert _lines(tmp_path / "new") == [{"step": s, "loss": 2.5, "alarm": None} for s in (1, 2)]


def test_a_record_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    with Loggers(tmp_path, []) as log:
        log({"step": 1})
        assert _lines(tmp_path) == [{"step": 1}]


def test_half_a_line_left_by_a_killed_process_spoils_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "lo')
    with Loggers(tmp_path, []) as log:
        log({"step": 2})
    assert _lines(tmp_path) == [{"step": 1}, {"step": 2}]


def test_a_full_disk_ends_no_training_for_its_log_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with Loggers(tmp_path, []) as log:
        log({"step": 1})
        log({"step": 2})
    (said,) = (record.getMessage() for record in caplog.records)
    assert "metrics.jsonl: lines are lost: No space left on device" in said


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Loggers(tmp_path, ["tensorboard"]) as log:
        log({"step": 7, "loss": 2.5, "knn/shape": 40, "alarm": None})
    read = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]} == {
        "loss": [(7, 2.5)],
        "knn/shape": [(7, 40.0)],
    }


def test_a_logger_that_is_not_installed_is_refused_with_the_way_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert loggers.available() == []
    for name in ("tensorboard", "wandb"):
        with pytest.raises(RecipeError, match=rf"overtone\[{name}\]"), Loggers(tmp_path, [name]):
            pass
