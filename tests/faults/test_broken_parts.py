"""A part of a run that breaks: numbers, the workers that load, what one of two processes sees."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
from processes import finished
from processes import start as start_joined
from trials import PATHS, ledger, parts, require_same, run, uninterrupted

from overtone import artifacts, multistage
from overtone.contracts import Sample
from overtone.datasets import ImageDataset
from overtone.loading import TIMEOUT

__all__ = ["uninterrupted"]

pytestmark = pytest.mark.slow

ONE_OF_TWO = """
import math, os, sys
from pathlib import Path
import trials
from overtone import distributed, multistage, training
from overtone.errors import OvertoneError

folder, broken = Path(sys.argv[1]), sys.argv[2]
made = training.gradients_of

def gradients_of(*arguments):
    healthy, steps = made(*arguments), iter(range(100))
    def sick(views):
        loss, z = healthy(views)
        return (loss * math.nan if distributed.rank() == 1 and next(steps) == 4 else loss), z
    return sick

if broken == "nan":
    training.gradients_of = gradients_of
if broken == "other disk" and int(os.environ["RANK"]) == 1:
    newest_first = trials.checkpoints._newest_first
    trials.checkpoints._newest_first = lambda folder: newest_first(folder)[1:]
try:
    multistage.run(trials.parts(), folder)
except OvertoneError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def on_two(folder: Path, broken: str = "") -> list[tuple[int, str]]:
    with mock.patch.dict(os.environ, PATHS):
        return finished(start_joined(2, ONE_OF_TWO, folder, broken))


def test_a_loss_that_is_not_finite_on_one_of_two_ends_both_and_the_checkpoint_before_goes_on_exactly(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    first, second = on_two(folder, "nan")
    assert (first[0], second[0]) == (6, 6)
    assert "stage 0, step 4: the loss of another process is not finite" in first[1]
    assert "stage 0, step 4: the loss is nan. The batch held samples" in second[1]
    found = [json.loads((folder / "stage-0" / f"failed-step-{rank}.json").read_text()) for rank in range(2)]
    assert [(one["step"], one["loss"] == "nan", len(one["samples"])) for one in found] == [
        (4, False, 24),
        (4, True, 24),
    ]
    newest = max((folder / "stage-0" / "checkpoints").iterdir())
    assert newest.name == "step-00000004"
    artifacts.verify(newest)
    # The sick step stands in the ledger as it was; what follows is that of a run that was never sick.
    (folder / "stage-0" / "ledger-1.jsonl").unlink()
    assert [code for code, _ in on_two(folder)] == [0, 0]
    assert [code for code, _ in on_two(tmp_path / "whole")] == [0, 0]
    require_same(folder, tmp_path / "whole")


def test_two_processes_that_see_different_checkpoints_both_say_so_and_train_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert [code for code, _ in on_two(folder, "nan")] == [6, 6]
    before = ledger(folder)
    for code, said in on_two(folder, "other disk"):
        assert code == 4
        assert "others 3 to 4. All processes must see one run folder" in said
    assert ledger(folder) == before


class Sick(ImageDataset):
    """In a worker process the picture 7 kills it, or takes for ever, as long as a file is there."""

    def __init__(self, healthy: ImageDataset, sign: Path) -> None:
        self.__dict__ |= healthy.__dict__
        self.sign = sign

    def __getitem__(self, index: int) -> Sample:
        if index == 7 and self.sign.exists() and multiprocessing.parent_process() and _in_stage_1(self.sign):
            how = self.sign.read_text()
            if how == "dead":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        return super().__getitem__(index)


def _in_stage_1(sign: Path) -> bool:
    return bool(list(sign.parent.glob("run/stage-1/checkpoints/step-*")))


def _impatient() -> None:
    os.environ[TIMEOUT] = "2"


@pytest.mark.parametrize(("how", "cause"), [("dead", "samples died ("), ("hung", "it hangs")])
def test_a_loader_worker_that_dies_or_hangs_ends_the_run_with_its_cause_and_the_run_goes_on_exactly(
    tmp_path: Path, uninterrupted: Path, how: str, cause: str
) -> None:
    folder, sign = tmp_path / "run", tmp_path / "sign"
    sign.write_text(how)
    healthy = parts().dataset
    assert isinstance(healthy, ImageDataset)
    broken = run(folder, _impatient, dataset=Sick(healthy, sign), num_workers=1)
    assert broken.code == 7, broken.said
    assert cause in broken.said
    assert "Traceback" not in broken.said
    sign.unlink()
    assert run(folder, num_workers=1).code == 0
    require_same(folder, uninterrupted)


def test_a_run_in_a_thread_of_another_program_is_exact_as_well(tmp_path: Path, uninterrupted: Path) -> None:
    thread = threading.Thread(target=multistage.run, args=(parts(), tmp_path / "run"))
    thread.start()
    thread.join()
    shutil.rmtree(tmp_path / "run" / "stage-0" / "checkpoints", ignore_errors=True)
    require_same(tmp_path / "run", uninterrupted)
