"""Whole runs of two stages on several processes, against the same run on one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray
from processes import finished, start
from safetensors.numpy import load_file
from torch import nn

from overtone import multistage
from overtone.encoders import ImageEncoder
from overtone.methods import SimCLR
from overtone.run_folder import Parts, ended
from overtone.stages import StageSpec
from overtone.stopping import Gain

# No batch norm: its statistics are those of a process.
STAGES = [StageSpec(epochs=2, batch_size=36), StageSpec(epochs=2, batch_size=36, cell_size=20, erase=0.3)]


def parts(**changes: Any) -> Parts:
    def encoder(stage: int) -> ImageEncoder:
        backbone = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.GELU(), nn.Flatten(), nn.Linear(72, 16))
        return ImageEncoder(backbone, mean=[0.5] * 3, std=[0.25] * 3, dim=16)

    def method(encoder: Any) -> SimCLR:
        return SimCLR(encoder, out_dim=8, norm="none")

    given = {"stages": STAGES, "stop": "auto", "checkpoint_seconds": 0.0}
    return tiny.parts(encoder=encoder, method=method, **given, **changes)


RUN = """
import os, signal, sys
from functools import partial
from pathlib import Path
import test_many_processes as here
from overtone import distributed, lloyd, multistage
from overtone.errors import OvertoneError
from overtone.levers import hiding

folder, shard, stage, at, rank = Path(sys.argv[1]), *map(int, sys.argv[2:])
multistage.Pace = partial(multistage.Pace, log_every=1)
multistage.EMBEDDED_AT_ONCE = hiding.AT_ONCE = 64  # so that each of two processes has a share of 200
lloyd.CHUNK = 1024

class Sends:
    def advance(self, task, done, total, note=""):
        if (task, done, distributed.rank()) == (f"stage {stage}", at, rank):
            os.kill(os.getpid(), signal.SIGTERM)
    def line(self, text): ...

try:
    multistage.run(here.parts(shard=bool(shard)), folder, Sends())
except OvertoneError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def run(world_size: int, folder: Path, shard: bool = False, signal: tuple[int, int, int] = (9, 9, 9)) -> None:
    """One run; `signal`: at which stage and step which process is asked to stop."""
    expected = 0 if signal[0] == 9 else 143
    for code, output in finished(start(world_size, RUN, folder, int(shard), *signal)):
        assert code == expected, output


def weights(folder: Path) -> dict[str, NDArray[Any]]:
    return {
        f"{stage} {name}": value
        for stage in range(2)
        for name, value in load_file(folder / f"stage-{stage}" / "encoder" / "encoder.safetensors").items()
    }


def ledger(folder: Path, stage: int, rank: int) -> list[dict[str, Any]]:
    lines = (folder / f"stage-{stage}" / f"ledger-{rank}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def require_close(one: Path, other: Path) -> None:
    expected = weights(one)
    for name, value in weights(other).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=2e-4, err_msg=name)
        assert np.abs(value).max() > 1e-2


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    multistage.run(parts(), folder)
    return folder


def test_a_run_on_two_processes_ends_in_the_weights_of_one_on_one(tmp_path: Path, alone: Path) -> None:
    run(2, tmp_path)
    require_close(alone, tmp_path)
    for made in ("stage-0/embeddings/train", "stage-1/embeddings/train", "stage-0/saliency/saliency"):
        one, other = (np.load(place / f"{made}.npy") for place in (alone, tmp_path))
        assert one.shape == other.shape
        np.testing.assert_allclose(other, one, atol=1e-2)
    here, there = (Gain.kept(place / "stage-1" / "gain") for place in (alone, tmp_path))
    assert there[:-1] == pytest.approx(here[:-1], rel=0.05, abs=0.01)
    assert ended(tmp_path) is not None


def test_a_run_begun_on_two_processes_ends_on_one_with_a_ledger_that_agrees(
    tmp_path: Path, alone: Path
) -> None:
    run(2, tmp_path, signal=(1, 4, 1))  # the second process alone is asked
    # It hears of it when step 3 is logged, and step 4 is the next at which the processes agree.
    assert [line["step"] for line in ledger(tmp_path, 1, 1)] == [0, 1, 2, 3, 4]
    multistage.run(parts(), tmp_path)
    require_close(alone, tmp_path)
    steps = {line["step"]: line["samples"] for line in ledger(tmp_path, 1, 0) if line["step"] > 4}
    assert steps == {line["step"]: line["samples"] for line in ledger(alone, 1, 0) if line["step"] in steps}
    assert len(steps) == 5


def test_parameters_split_over_processes_end_in_the_same_weights_and_resume(
    tmp_path: Path, alone: Path
) -> None:
    run(2, tmp_path, shard=True, signal=(0, 3, 0))
    run(2, tmp_path, shard=True)
    require_close(alone, tmp_path)
