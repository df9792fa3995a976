"""What is small enough for tests: a run of 200 pictures of 16 pixels, two stages of six steps; an encoder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.datasets import trifeature
from overtone.encoders import Encoder, build_encoder
from overtone.methods import SimCLR
from overtone.run_folder import Parts
from overtone.stages import StageSpec
from overtone.views import ImageViews

FIRST = StageSpec(epochs=1, batch_size=32)
SECOND = StageSpec(epochs=1, batch_size=32, cell_size=20)


class Flat(Encoder):
    """Two layers that read rows of numbers; no batch norm, so that a sample's embedding is its own."""

    def __init__(self, columns: int = 5) -> None:
        super().__init__()
        self.dim = 6
        self.layers = nn.Sequential(nn.Linear(columns, 7), nn.Tanh(), nn.Linear(7, 6))

    def forward(self, batch: Batch) -> Tensor:
        found: Tensor = self.layers(batch["series"])
        return found


def parts(**changes: Any) -> Parts:
    """The objects of the run, some of them exchanged."""
    given: dict[str, Any] = {
        "dataset": trifeature(200, image_size=16),
        "test": None,
        "views": ImageViews(),
        "encoder": lambda stage: build_encoder("small_cnn"),
        "method": lambda encoder: SimCLR(encoder, out_dim=16),
        "stages": [FIRST, SECOND],
    }
    return Parts(**{**given, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def artifacts_of(folder: Path) -> dict[str, bytes]:
    """What a run leaves for others: encoders, embeddings, partitions; neither logs nor checkpoints."""
    kept = ("encoder", "embeddings", "partition", "identities")
    return {name: content for name, content in contents(folder).items() if any(k in name for k in kept)}


_INTERRUPTED = """
import os, sys
from pathlib import Path
import tiny
from overtone import multistage
from overtone.training import Pace
from overtone.errors import OvertoneError

folder, number, stage, at, workers = Path(sys.argv[1]), *map(int, sys.argv[2:])
multistage.Pace = lambda *given, **named: Pace(*given, **{**named, "checkpoint_seconds": 0.0, "log_every": 1})

class Sends:
    def advance(self, task, done, total, note=""):
        if (task, done) == (f"stage {stage}", at):
            os.kill(os.getpid(), number)
    def line(self, text): ...

try:
    multistage.run(tiny.parts(num_workers=workers), folder, Sends())
except OvertoneError as error:
    sys.exit(error.exit_code)
"""


def interrupted(folder: Path, signal: int, *, stage: int, step: int, num_workers: int = 0) -> int:
    """Starts the run in a process of its own that sends itself a signal at a step; gives its exit code."""
    arguments = [str(n) for n in (folder, int(signal), stage, step, num_workers)]
    command = [sys.executable, "-c", _INTERRUPTED, *arguments]
    here = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": here}
    return subprocess.run(command, env=environment, check=False).returncode
