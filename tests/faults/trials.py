"""Tiny runs in processes of their own, to be killed, starved and spoilt; and what none of it may change.

The oracle everywhere: what the run leaves for others, and its ledger, are those of the uninterrupted run.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import count
from multiprocessing import forkserver, get_context, set_start_method
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import sklearn.neighbors
import tiny

from overtone import artifacts, checkpoints, multistage
from overtone.errors import OvertoneError
from overtone.rng import numpy_generator
from overtone.run_folder import Parts
from overtone.stages import StageSpec

STAGES = [
    StageSpec(epochs=2, batch_size=48),
    StageSpec(epochs=2, batch_size=48, cell_size=24),
    StageSpec(epochs=2, batch_size=48, cell_size=12),
]
STEPS = 8  # a stage
NEEDED = (sklearn.neighbors,)  # what a run imports when it comes to it, imported once for all trials
Ledger = dict[tuple[int, int], tuple[str, str]]


def parts(**changes: Any) -> Parts:
    """A run of three stages of eight steps, saved after each."""
    return tiny.parts(**{"stages": STAGES, "checkpoint_seconds": 0.0, **changes})


# --- processes

_context = get_context("forkserver")
PATHS = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}


@cache
def _serving() -> None:
    """Starts the server from which each process is forked: it has imported everything and computed nothing.

    So a start costs milliseconds instead of the seconds that torch takes.
    """
    _context.set_forkserver_preload(["trials"])
    with mock.patch.dict(os.environ, PATHS):
        forkserver.ensure_running()


class Ended(NamedTuple):
    """How a process ended: a negative code is a signal."""

    code: int | None
    said: str


def start(folder: Path, change: Callable[[], object] | None = None, **changes: Any) -> BaseProcess:
    """Begins or continues a run in a process of its own, in which `change` was called first."""
    _serving()
    process = _context.Process(target=work, args=(folder, change, changes))
    process.start()
    return process


def ended(process: BaseProcess, folder: Path, seconds: float = 120) -> Ended:
    """Waits for the end of a process; one that does not end is killed, and that is told by the code None."""
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    said = _log(folder)
    return Ended(code, said.read_text() if said.exists() else "")


def run(folder: Path, change: Callable[[], object] | None = None, **changes: Any) -> Ended:
    """A run in a process of its own, from its start or from where it was left, to its end."""
    return ended(start(folder, change, **changes), folder)


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def work(folder: Path, change: Callable[[], object] | None, changes: dict[str, Any]) -> None:
    """What a process does; what it says goes into a file beside the folder."""
    said = os.open(_log(folder), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    logging.basicConfig(level=logging.WARNING)
    set_start_method("fork", force=True)  # the default; a process of the server has its way otherwise
    if change is not None:
        change()
    try:
        multistage.run(parts(**changes), folder)
    except OvertoneError as error:
        print(error, flush=True)
        sys.exit(error.exit_code)


# --- points at which a process kills itself


def _suicide(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _half_written(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content[: len(content) // 2])


def _half_removed(folder: Path, **_: object) -> None:
    max(folder.iterdir()).unlink()


class Point(NamedTuple):
    """Before a call, and after what it has half done."""

    owner: Any
    name: str
    first: Callable[..., object] = lambda *_, **__: None
    only: str = ""  # in the arguments of the call


POINTS = {
    "before the first file": Point(checkpoints, "serialized"),
    "inside a file": Point(Path, "write_bytes", _half_written),
    "between two files": Point(artifacts, "write_json", only="/state.json')"),
    "before the manifest": Point(artifacts, "_seal"),
    "inside the manifest": Point(Path, "replace", only="manifest.json"),
    "before the rename": Point(artifacts, "_replace"),
    "after the rename": Point(artifacts, "_sync", only="checkpoints')"),
    "while the old are removed": Point(shutil, "rmtree", _half_removed, only="/step-"),
    "between the two renames": Point(Path, "rename", only=".writing"),
}


def killing(at: str, number: int) -> Callable[[], None]:
    """Has the process kill itself when it comes to a point for the n-th time."""
    return partial(_kill_at, at, number)


def _kill_at(at: str, number: int) -> None:
    point, seen = POINTS[at], count(1)
    original = getattr(point.owner, point.name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if point.only in repr(arguments) and next(seen) == number:
            point.first(*arguments, **options)
            _suicide()
        return original(*arguments, **options)

    setattr(point.owner, point.name, wrapped)


# --- what must be so afterwards


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nothing happened to; nobody writes into it."""
    folder = tmp_path_factory.mktemp("faults") / "uninterrupted"
    assert run(folder) == (0, "")
    return folder


def require_same(folder: Path, uninterrupted: Path) -> None:
    """Nothing was lost: the same bytes in all artifacts, and the same ledger, each repeated line alike."""
    mine, other = tiny.artifacts_of(folder), tiny.artifacts_of(uninterrupted)
    assert [name for name in {*mine, *other} if mine.get(name) != other.get(name)] == []
    assert ledger(folder) == ledger(uninterrupted)


def ledger(folder: Path, rank: int = 0) -> Ledger:
    """(stage, step) -> its samples and its loss; of a line that stands there twice both must agree."""
    found: Ledger = {}
    for stage, step, samples, loss in lines(folder, rank):
        assert found.setdefault((stage, step), (samples, loss)) == (samples, loss), (stage, step)
    return found


def lines(folder: Path, rank: int = 0) -> Iterator[tuple[int, int, str, str]]:
    """Every line of the ledgers of a process, stage after stage."""
    for file in sorted(folder.glob(f"stage-*/ledger-{rank}.jsonl")):
        for line in map(json.loads, file.read_text().splitlines()):
            yield line["stage"], line["step"], line["samples"], line["loss"]


def unfinished(folder: Path) -> set[tuple[str, int]]:
    """What is only half written or half replaced: path and inode."""
    return {(str(p), p.stat().st_ino) for p in folder.rglob(".*") if p.suffix in (".writing", ".old")}


# --- kills at random moments


class Kills(NamedTuple):
    """What came of killing one run several times."""

    done: int
    inside_a_save: int
    redone_steps: int


def killed(folder: Path, moments: Iterable[float]) -> Kills:
    """Starts a run again and again, each time killed after so many seconds, then lets it finish."""
    done = inside = 0
    for seconds in moments:
        before, process = unfinished(folder), start(folder)
        process.join(seconds)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        done, inside = done + 1, inside + bool(unfinished(folder) - before)
    finished = run(folder)
    assert finished.code == 0, finished.said
    return Kills(done, inside, sum(1 for _ in lines(folder)) - len(ledger(folder)))


def moments(seed: int, kills: int, seconds: float) -> list[float]:
    """Seeded moments within so many seconds."""
    return [float(second) for second in numpy_generator(seed, "kills").uniform(0, seconds, kills)]
