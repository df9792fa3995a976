from __future__ import annotations

import dataclasses
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from overtone import artifacts, interrupts, multistage
from overtone.datasets import trifeature
from overtone.errors import OvertoneError, RunError
from overtone.multistage import run
from overtone.run_folder import embeddings_of


class Sends:
    """A display that sends SIGINT at the first sign of a task."""

    def __init__(self, task: str) -> None:
        self.task: str | None = task

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        if task == self.task:
            self.task = None
            signal.raise_signal(signal.SIGINT)

    def line(self, text: str) -> None: ...


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; nobody writes into it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(tiny.parts(), folder)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))


@pytest.mark.parametrize(
    ("number", "stage", "step", "workers"), [(signal.SIGTERM, 1, 2, 0), (signal.SIGKILL, 0, 3, 1)]
)
def test_a_run_whose_process_was_stopped_or_killed_ends_in_the_same_bytes(
    finished: Path, tmp_path: Path, number: signal.Signals, stage: int, step: int, workers: int
) -> None:
    code = tiny.interrupted(tmp_path, number, stage=stage, step=step, num_workers=workers)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    home = tmp_path / f"stage-{stage}"
    assert not artifacts.is_complete(home / "encoder")
    assert artifacts.is_complete(max((home / "checkpoints").iterdir()))
    run(tiny.parts(), tmp_path)
    assert tiny.artifacts_of(tmp_path) == tiny.artifacts_of(finished)


def test_a_signal_after_the_last_step_of_a_stage_stops_before_the_next(tmp_path: Path) -> None:
    with pytest.raises(interrupts.Stopped):
        run(tiny.parts(), tmp_path, Sends("stage 0 embeds"))
    assert artifacts.is_complete(tmp_path / "stage-0" / "embeddings")
    assert not (tmp_path / "stage-1").exists()


def test_a_second_call_touches_nothing_that_is_complete(copied: Path) -> None:
    def stamps() -> dict[str, tuple[int, int]]:
        files = [p for p in copied.rglob("*") if p.is_file() and p.name != "lock"]
        return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}

    before = stamps()
    run(tiny.parts(), copied)
    assert stamps() == before


def test_what_is_missing_is_made_again_alike_and_the_rest_is_kept(finished: Path, copied: Path) -> None:
    kept = (copied / "stage-0" / "encoder" / "encoder.safetensors").stat().st_mtime_ns
    for lost in ("stage-0/embeddings", "stage-1/encoder", "encoder"):
        shutil.rmtree(copied / lost)
    run(tiny.parts(), copied)
    assert tiny.artifacts_of(copied) == tiny.artifacts_of(finished)
    assert (copied / "stage-0" / "encoder" / "encoder.safetensors").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dataset": trifeature(200, image_size=16, seed=1)}, "identities: was made from another data"),
        ({"seed": 1}, "another seed: 0, now 1"),
        ({"stages": [dataclasses.replace(tiny.FIRST, lr=0.1), tiny.SECOND]}, r"another lr: 0\.002, now 0\.1"),
        (
            {"stages": [tiny.FIRST, dataclasses.replace(tiny.SECOND, cell_size=10)]},
            "stage-1/partition: was made from another cells: .*cell_size=20.*cell_size=10",
        ),
        ({"test": trifeature(20, image_size=16)}, "stage-0/embeddings: was made from another test: none"),
        ({"normalise": "once"}, "encoder: was made from another normalise: each, now once"),
    ],
)
def test_what_was_made_from_other_data_or_another_recipe_is_refused_by_name(
    copied: Path, changes: dict[str, Any], complaint: str
) -> None:
    before = tiny.artifacts_of(copied)
    with pytest.raises(RunError, match=complaint):
        run(tiny.parts(**changes), copied)
    assert tiny.artifacts_of(copied) == before


def test_a_half_trained_stage_is_not_continued_with_another_recipe(tmp_path: Path) -> None:
    long = dataclasses.replace(tiny.FIRST, epochs=2)
    with pytest.raises(interrupts.Stopped):
        run(tiny.parts(stages=[long]), tmp_path, Sends("stage 0"))  # after its first epoch of six steps
    with pytest.raises(RunError, match=r"step-00000007: was made from another lr"):
        run(tiny.parts(stages=[dataclasses.replace(long, lr=0.1)]), tmp_path)


def test_cells_that_were_made_from_other_embeddings_are_refused(copied: Path) -> None:
    place = copied / "stage-0" / "embeddings"
    embeddings, inputs = embeddings_of(copied, 0) * 2, artifacts.verify(place)["inputs"]
    with artifacts.writing(place, inputs) as beside:
        np.save(beside / "train.npy", embeddings)
    with pytest.raises(RunError, match="stage-1/partition: was made from another embeddings 0"):
        run(tiny.parts(), copied)


def test_a_damaged_artifact_is_named_and_nothing_is_trained_over_it(copied: Path) -> None:
    file = copied / "stage-0" / "embeddings" / "train.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"stage-0/embeddings/train\.npy: damaged"):
        run(tiny.parts(), copied)


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_works(tmp_path: Path) -> None:
    with artifacts.locked(tmp_path), pytest.raises(OvertoneError, match="locked by process"):
        multistage.run(tiny.parts(), tmp_path)
