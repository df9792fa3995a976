"""Samples that become unreadable after the first pass: another takes their place, and it is said.

Which one is a function of the unreadable sample's index alone, so neither workers, ranks, the size of a
batch nor a resume change it. It comes under its own index, thus with its own cell, identity and draws: the
batch is one that the sampler could have made, and where the other sample is in it already, the two share
an identity and are never negatives of each other. Embedded in the same way, the unreadable sample lands in
the cell of the one that takes its place, so a batch from one cell stays in one cell.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone import artifacts, rng
from overtone.contracts import Batch, Dataset, Sample
from overtone.errors import DataError

logger = logging.getLogger(__name__)

FILE = "skipped.jsonl"
_TRIES = 32  # of samples drawn at random; that all fail while half can be read has a chance of 2e-10


class Skip(NamedTuple):
    """A sample that could not be read, and why."""

    row: int
    reason: str


class _Marked(dict[str, object]):
    """A sample or a batch that knows which samples others stand for; whoever rebuilds it drops the mark."""

    skips: Sequence[Skip] = ()


class Replacing:
    """A data set of which samples may vanish; attributes as in `contracts.Dataset`, those of the whole.

    Args:
        dataset: Read through; a `DataError` or an `OSError` of it means that a sample cannot be read.
        folder: The run's; each sample that fails is a line of `skipped.jsonl` there.
        max_bad_fraction: How many samples may fail, of all, rounded up.

    >>> from overtone.datasets import tones
    >>> whole = Replacing(tones(10), Path("run"))
    >>> whole[3]["index"], whole.collate([whole[3], whole[4]])["index"]
    (3, tensor([3, 4]))
    """

    def __init__(self, dataset: Dataset, folder: Path, *, max_bad_fraction: float = 0.01) -> None:
        self.modality = dataset.modality
        self.ids: Sequence[str] = dataset.ids
        self.labels: Mapping[str, NDArray[np.int64]] = dataset.labels
        self.label_names: Mapping[str, Sequence[str]] = dataset.label_names
        self._dataset, self._file, self._tolerated = dataset, folder / FILE, max_bad_fraction
        self._met: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        """What only this kind of data set has."""
        if name.startswith("_"):  # asked for before there is anything, when a worker unpickles this
            raise AttributeError(name)
        return getattr(self._dataset, name)

    @property
    def fingerprint(self) -> str:
        """Of the data as they were first read."""
        return self._dataset.fingerprint

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        skips: list[Skip] = []
        for row in _in_turn(index, len(self)):
            try:
                sample = self._dataset[row]
            except (DataError, OSError) as error:
                skips.append(Skip(row, str(error)))
                continue
            return _marked(sample, skips) if skips else sample
        raise DataError(
            f"{skips[0].reason}; nor can {len(skips) - 1} others that could take its place. Look at the disk "
            "that holds the data, then run `overtone resume`."
        )

    def collate(self, samples: list[Sample]) -> Batch:
        """As the whole data set's."""
        batch = self._dataset.collate([dict(sample) for sample in samples])
        skips = [skip for sample in samples if isinstance(sample, _Marked) for skip in sample.skips]
        return _marked(batch, skips) if skips else batch

    def note(self, skips: Iterable[Skip]) -> None:
        """Warns of each sample once, by name, and writes it down.

        Raises:
            DataError: More of them than tolerated.
        """
        for row, reason in skips:
            if row in self._met:
                continue
            self._met.add(row)
            logger.warning("another sample takes the place of %r: %s", self.ids[row], reason)
            line = json.dumps({"index": row, "id": self.ids[row], "reason": reason})
            with artifacts.disk_errors(self._file), self._file.open("ab", buffering=0) as file:
                file.write(line.encode() + b"\n")  # whole, also beside those of other processes
        if len(self._met) > math.ceil(self._tolerated * len(self)):
            few = ", ".join(repr(self.ids[row]) for row in sorted(self._met)[:3])
            raise DataError(
                f"{len(self._met):,} of {len(self):,} samples can no longer be read, more than "
                f"max_bad_fraction={self._tolerated:g}: {few}, ... ({self._file} has them all). Bring them "
                "back, then run `overtone resume`."
            )


def noted(loader: Iterable[Batch], dataset: Dataset) -> Iterator[Batch]:
    """The batches of a loader over a data set; if that is `Replacing`, what it replaced is noted on the way.

    Here and not in the data set, because a loader's workers are other processes, whose log nobody shows.

    >>> from overtone.datasets import tones
    >>> [batch["index"] for batch in noted([{"index": [7]}], tones(10))]
    [[7]]
    """
    for batch in loader:
        if isinstance(dataset, Replacing) and isinstance(batch, _Marked):
            dataset.note(batch.skips)
        yield batch


def _in_turn(index: int, n: int) -> Iterator[int]:
    """The sample itself, then others drawn by its index alone."""
    yield index
    drawn = rng.permuted(np.arange(min(_TRIES, n)), n, rng.derive(0, "replacement", index))
    yield from (row for row in drawn.tolist() if row != index)


def _marked(content: Mapping[str, object], skips: Sequence[Skip]) -> _Marked:
    marked = _Marked(content)
    marked.skips = skips
    return marked
