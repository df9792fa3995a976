from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate

from overtone.errors import DataError, ProcessError
from overtone.loading import TIMEOUT, chunks, loaded


class Numbers:
    """Ten numbers, of which the eighth is bad in some way."""

    collate = staticmethod(default_collate)

    def __init__(self, bad: str) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        if index == 7 and self.bad == "unreadable":
            raise DataError("pictures: 'seven.jpg' can no longer be read")
        if index == 7 and self.bad == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        while index == 7 and self.bad == "hanging":
            time.sleep(60)
        return index


def _read(bad: str, num_workers: int = 1) -> Iterator[list[int]]:
    dataset: Any = Numbers(bad)
    order, draws = chunks(range(10), 3), torch.Generator()
    with loaded(dataset, order, num_workers=num_workers, generator=draws) as batches:
        for batch in batches:
            yield batch.tolist()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_batch_comes_once_and_in_order(num_workers: int) -> None:
    assert list(_read("none", num_workers)) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_the_same_short_message_from_a_worker(num_workers: int) -> None:
    with pytest.raises(DataError) as caught:
        list(_read("unreadable", num_workers))
    assert str(caught.value) == "pictures: 'seven.jpg' can no longer be read"


def test_a_worker_that_was_killed_is_an_error_that_says_so() -> None:
    with pytest.raises(ProcessError, match=r"died \(.*memory ran out.*num_workers \(now 1\)"):
        list(_read("deadly"))


@pytest.mark.slow
def test_a_worker_that_hangs_is_an_error_that_says_so_and_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TIMEOUT, "1")
    with pytest.raises(ProcessError, match="gave no batch for 1 s: it hangs"):
        list(_read("hanging"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_goes_to_a_whole_group_leaves_the_workers_at_work(number: signal.Signals) -> None:
    batches = _read("none")
    assert next(batches) == [0, 1, 2]
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, number)
    assert len(list(batches)) == 3
