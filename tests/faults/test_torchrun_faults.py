"""Two processes under `torchrun`, of which one or all are killed, frozen or asked to stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from trials import STEPS, ledger, lines, require_same, unfinished

pytestmark = pytest.mark.slow

RECIPE = """
data: {source: trifeature, n: 200, image_size: 16}
train: {epochs: 2, batch_size: 48}
stages: [{}, {cell_size: 24}, {cell_size: 12}]
checkpoint_seconds: 0
threads: 1
loggers: []
"""


class Command:
    """`overtone train` on so many processes, in a session of its own."""

    def __init__(
        self, folder: Path, n_processes: int = 2, timeout: int = 60, train: Sequence[str] = ()
    ) -> None:
        self.folder, self.log = folder, folder.with_name(f"{folder.name}.log")
        recipe = folder.with_name("recipe.yaml")
        recipe.write_text(RECIPE)
        runner = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n_processes)]
        train = [*(train or ("-m", "overtone", "train", str(recipe))), "--out", str(folder)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *(runner if n_processes > 1 else []), *train],
                env={**os.environ, "OMP_NUM_THREADS": "1", "OVERTONE_TIMEOUT": str(timeout)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self) -> tuple[int, str]:
        """The exit code and what was said; one that hangs is killed, whole, and fails the test."""
        try:
            code = self.process.wait(180)
        finally:
            for pid in (*self.ranks().values(), self.process.pid):
                if self.process.poll() is None:
                    os.kill(pid, signal.SIGKILL)
        return code, self.log.read_text()

    def ranks(self) -> dict[int, int]:
        """The number of each process -> its pid."""
        found = {}
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for pid in task.read_text().split():
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                if rank := re.search(rb"(?:^|\0)RANK=(\d+)\0", environment):
                    found[int(rank[1])] = int(pid)
        return found

    def until(self, happens: Callable[[], object]) -> dict[int, int]:
        """Waits for something in the folder of the run; gives the pids of its processes then."""
        while not happens():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.001)
        return self.ranks()

    def at(self, stage: int, step: int) -> dict[int, int]:
        """Waits for a step to be in the ledger."""
        place = self.folder / f"stage-{stage}" / "ledger-0.jsonl"
        return self.until(lambda: place.exists() and place.read_text().count("\n") > step)


def finish(folder: Path, n_processes: int = 2) -> None:
    """Continues a run to its end."""
    code, said = Command(folder, n_processes).ended()
    assert code == 0, said


def require_same_on_both(folder: Path, uninterrupted: Path) -> None:
    require_same(folder, uninterrupted)
    assert ledger(folder, rank=1) == ledger(uninterrupted, rank=1)


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on two processes."""
    folder = tmp_path_factory.mktemp("two") / "run"
    finish(folder)
    return folder


@pytest.fixture(scope="module")
def on_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on one process."""
    folder = tmp_path_factory.mktemp("one") / "run"
    finish(folder, 1)
    return folder


def _everyone(command: Command, ranks: dict[int, int]) -> Iterator[int]:
    """As a scheduler that signals all processes of a job."""
    yield command.process.pid
    yield from ranks.values()


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(lambda command, ranks: [command.process.pid], id="torchrun"),
        pytest.param(_everyone, id="all"),
        pytest.param(lambda command, ranks: [ranks[1]], id="the second process alone"),
    ],
)
def test_sigterm_saves_the_step_in_hand_on_all_and_the_run_goes_on_exactly(
    tmp_path: Path, on_two: Path, asked: Callable[[Command, dict[int, int]], Iterator[int]]
) -> None:
    command = Command(tmp_path / "run")
    ranks = command.at(stage=1, step=2)
    for pid in list(asked(command, ranks)):
        os.kill(pid, signal.SIGTERM)
    code, said = command.ended()
    assert code != 0
    assert "stopped by SIGTERM after saving" in said
    finish(tmp_path / "run")
    require_same_on_both(tmp_path / "run", on_two)
    assert len(list(lines(tmp_path / "run"))) == 3 * STEPS  # no step was done twice


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_is_named_and_the_run_goes_on_exactly(
    tmp_path: Path, on_two: Path, rank: int
) -> None:
    command = Command(tmp_path / "run")
    os.kill(command.at(stage=1, step=3)[rank], signal.SIGKILL)
    code, said = command.ended()
    assert code != 0
    assert f"process {rank} of 2 was lost" in said
    finish(tmp_path / "run")
    require_same_on_both(tmp_path / "run", on_two)


def test_a_run_whose_second_process_was_killed_goes_on_on_one_with_the_same_samples(
    tmp_path: Path, on_one: Path
) -> None:
    folder = tmp_path / "run"
    command = Command(folder)
    os.kill(command.at(stage=0, step=3)[1], signal.SIGKILL)
    assert command.ended()[0] != 0
    on_two = ledger(folder)  # of halves of batches
    finish(folder, 1)
    mine = [line for line in lines(folder) if line[0] == 0][len(on_two) :]
    samples = {step: samples for _, step, samples, _ in mine}
    assert samples == {step: ledger(on_one)[0, step][0] for step in samples}
    assert max(samples) == STEPS - 1


def test_the_first_process_killed_while_it_saves_loses_nothing(tmp_path: Path, on_two: Path) -> None:
    folder = tmp_path / "run"
    command = Command(folder)
    ranks = command.at(stage=1, step=1)
    checkpoints = folder / "stage-1" / "checkpoints"
    command.until(lambda: any(checkpoints.glob(".step-*.writing")))
    os.kill(ranks[0], signal.SIGKILL)
    code, said = command.ended()
    assert code != 0
    assert "process 0 of 2 was lost" in said
    finish(folder)
    require_same_on_both(folder, on_two)
    assert not unfinished(folder)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_frozen_process_ends_in_an_error_that_names_it_and_not_in_waiting(
    tmp_path: Path, on_two: Path, rank: int
) -> None:
    command = Command(tmp_path / "run", timeout=8)
    os.kill(command.at(stage=1, step=3)[rank], signal.SIGSTOP)
    code, said = command.ended()
    assert code != 0
    assert re.search(f"process {rank} of 2 (was lost|has given no sign of life)", said), said
    finish(tmp_path / "run")
    require_same_on_both(tmp_path / "run", on_two)
