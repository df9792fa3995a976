"""Batches that worker processes load ahead; a worker that dies or hangs ends in an error, not in waiting."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader

from overtone.contracts import Dataset
from overtone.errors import OvertoneError, ProcessError

TIMEOUT = "OVERTONE_LOADER_TIMEOUT"
"""Environment variable: after how many seconds without a batch a worker counts as hung; 300 by default."""


@contextmanager
def loaded(
    dataset: Dataset,
    batches: Iterable[list[int]],
    *,
    generator: torch.Generator,
    num_workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
) -> Iterator[Iterator[Any]]:
    """The batches of a data set, for as long as the block lasts; its workers end with it.

    Args:
        dataset: Where the samples come from.
        batches: The indices of each batch.
        generator: Seeds the workers; without one a loader would draw from the global stream.
        num_workers: How many processes load; with 0 this one does.
        collate: Makes a batch of samples; by default the data set's own.

    Raises:
        ProcessError: A worker died or hung.
        OvertoneError: What a worker raised.

    >>> class Pair(list):
    ...     collate = staticmethod(torch.utils.data.default_collate)
    >>> with loaded(Pair([5, 6, 7]), [[2, 0], [1]], generator=torch.Generator()) as batches:
    ...     print(list(batches))
    [tensor([7, 5]), tensor([6])]
    """
    found = iter(
        DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=collate or dataset.collate,
            timeout=float(os.environ.get(TIMEOUT, "300")) if num_workers else 0,
            worker_init_fn=_ignore_signals,
            generator=generator,
        )
    )
    try:
        yield found
    except (OvertoneError, RuntimeError, OSError, EOFError) as error:
        if (said := _in_words(error, getattr(found, "_workers", []))) is not None:
            raise said from error
        raise
    finally:
        _end(found)


def chunks(rows: range, size: int) -> Iterator[list[int]]:
    """Rows in their order, so many at a time.

    >>> list(chunks(range(3, 8), 2))
    [[3, 4], [5, 6], [7]]
    """
    return (list(rows[begin : begin + size]) for begin in range(0, len(rows), size))


def _ignore_signals(_: int) -> None:
    """A signal that goes to a whole group of processes must leave the batches for the step in hand."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _in_words(error: Exception, workers: Sequence[BaseProcess]) -> OvertoneError | None:
    """What a worker raised without the way it took, its death, or its silence; None for any other error."""
    text = str(error)
    if isinstance(error, OvertoneError):
        kind = type(error)
        own = text.rpartition(f"{kind.__module__}.{kind.__qualname__}: ")[2].strip()
        return kind(own) if text.startswith("Caught ") else None
    if isinstance(error, RuntimeError) != text.startswith("DataLoader"):
        return None
    if "timed out" in text:
        reason = (
            f"gave no batch for {os.environ.get(TIMEOUT, '300')} s: it hangs, often because a disk does not "
            f"answer. If loading is only slow, raise {TIMEOUT}"
        )
    elif isinstance(error, RuntimeError) or any(map(_died, workers)):
        how = text.partition("\n")[0] or type(error).__name__
        advice = f"Lower batch_size or num_workers (now {len(workers)})"
        reason = f"died ({how}): often because memory ran out. {advice}"
    else:
        return None
    return ProcessError(
        f"a worker process that loads samples {reason}. The last checkpoint is kept; then run the same "
        "command again."
    )


def _died(worker: BaseProcess) -> bool:
    worker.join(0.5)  # its connections break a little before its end can be seen
    return worker.exitcode not in (None, 0)


def _end(batches: Any) -> None:
    """Ends the workers, also those that hang."""
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()
        for worker in batches._workers:
            worker.kill()
