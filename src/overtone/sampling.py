"""Batches that hold as few cells as possible, each a pure function of (seed, stage, epoch, position).

The cells of an epoch lie on one tape in a keyed order, and so do the samples in each cell. The tape is a
ring, rolled by a seeded offset and cut into global batches, of which rank r takes the r-th slice. Nothing of
the size of the dataset is shuffled or held: an epoch costs a sort of its cells, once, and a rank's slice of a
batch O(length log n_cells), wherever in a run it lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone import rng
from overtone.cell_files import narrow
from overtone.errors import RecipeError
from overtone.partition import Partition

Ints = NDArray[np.int64]

_BLOCK = 1 << 20  # cells looked at together
_AHEAD = 1 << 12  # samples drawn together, in whole batches


class Coverage(NamedTuple):
    """What an epoch of a sampler shows to the objective.

    Attributes:
        batches: Batches an epoch.
        samples: Samples of the partition.
        samples_used: Samples in the epoch's batches. The others differ from epoch to epoch.
        samples_never_used: Samples of cells too small for any batch.
        cells: Cells of the partition.
        cells_cut: Cells that no batch of the epoch holds whole, though one holds a part.
        cells_per_batch: Mean number of cells that a batch touches.
        negatives: (least, median, most) samples of the anchor's own cell beside it in the batch; copies of
            the anchor are among them, though no negatives.
        cell_sizes: (smallest, largest) cell.
    """

    batches: int
    samples: int
    samples_used: int
    samples_never_used: int
    cells: int
    cells_cut: int
    cells_per_batch: float
    negatives: tuple[int, int, int]
    cell_sizes: tuple[int, int]

    @property
    def share_used(self) -> float:
        """Share of the samples in an epoch's batches."""
        return self.samples_used / self.samples

    def __str__(self) -> str:
        least, median, most = self.negatives
        negatives = f"{least:,}" if least == most else f"{least:,}-{most:,} (median {median:,})"
        never = f", {self.samples_never_used:,} samples never used" if self.samples_never_used else ""
        return (
            f"{self._cells()}, {self.share_used:.1%} of samples used{never}, {negatives} negatives per anchor"
        )

    def _cells(self) -> str:
        smallest, largest = self.cell_sizes
        if self.cells == 1:
            return f"one cell of {largest:,}"
        sizes = f"{smallest:,}" if smallest == largest else f"{smallest:,}-{largest:,}"
        return f"{self.cells:,} cells of {sizes}, {self.cells_per_batch:.0f} a batch ({self.cells_cut:,} cut)"


class _Tape(NamedTuple):
    cells: Ints  # (C,) the cells in the order of this epoch; int32 where that is enough
    offsets: Ints  # (C + 1,) where each begins
    roll: int  # where the first batch begins


class CellBatchSampler:
    """A `batch_sampler` for torch's DataLoader, whose batches are packed with whole cells.

    No sample comes twice in an epoch. Every batch has `batch_size` samples over all ranks, at most two of its
    cells are cut, and the N mod batch_size samples left over differ from epoch to epoch.

    Its whole state is one integer, the global `step` (epoch * len + position). Iterating runs from there to
    the end of the epoch and does *not* move it, because a DataLoader draws ahead of the training: the
    training loop owns the step and says `sampler.seek(step)` before each `iter(loader)`.

    Args:
        partition: The cells.
        batch_size: Samples in a global batch, over all ranks.
        seed: The run's seed.
        stage: The stage, part of the address of every draw.
        cells_per_batch: None packs cells into batches. 1 cuts at cell borders: a batch comes from one cell,
            and what a cell has left beyond whole batches is a shorter batch or, below `min_batch_size`,
            waits for another epoch.
        min_batch_size: The smallest such batch; default a quarter of `batch_size`.
        rank: Which slice of each global batch.
        world_size: Into how many equal slices each global batch is cut.

    Raises:
        RecipeError: A size that cannot be: the message says which would.

    >>> sampler = CellBatchSampler(Partition(np.arange(12) // 3), batch_size=6)
    >>> len(sampler), sampler.batch(epoch=5, position=1).shape
    (2, (6,))
    """

    def __init__(
        self,
        partition: Partition,
        batch_size: int,
        *,
        seed: int = 0,
        stage: int = 0,
        cells_per_batch: Literal[1] | None = None,
        min_batch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check_sizes(len(partition), batch_size, rank, world_size)
        self.partition, self.batch_size = partition, batch_size
        self.rank, self.world_size = rank, world_size
        self.seed, self.stage, self.step = seed, stage, 0
        self._address = (seed, "sampler", stage)
        self._latest_tape: tuple[int, _Tape] | None = None
        self._latest: tuple[tuple[int, int], list[Ints]] | None = None
        self._ahead = max(1, _AHEAD // (batch_size // world_size))
        self._chunk_offsets: Ints | None = None
        if cells_per_batch is not None:
            floor = _floor(cells_per_batch, min_batch_size, batch_size)
            self._chunk_offsets = _chunk_offsets(partition.sizes, batch_size, floor, world_size)
        elif min_batch_size is not None:
            raise RecipeError(
                f"min_batch_size={min_batch_size} needs cells_per_batch=1: packed batches all have batch_size"
                " samples; leave it out"
            )

    def __len__(self) -> int:
        """Batches an epoch, the same for every epoch and rank."""
        if self._chunk_offsets is not None:
            return int(self._chunk_offsets[-1])
        return len(self.partition) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        epoch, first = divmod(self.step, len(self))
        for position in range(first, len(self)):
            yield self.batch(epoch, position).tolist()

    def batch(self, epoch: int, position: int) -> Ints:
        """This rank's slice of the `position`-th global batch of an epoch.

        Returns:
            (b,) int64 sample ids; b = batch_size / world_size, less for the short batches of
            `cells_per_batch=1`, equal on all ranks.
        """
        if epoch < 0 or not 0 <= position < len(self):
            raise RecipeError(f"batch {position} of epoch {epoch}: epochs have batches 0 to {len(self) - 1}")
        first = position - position % self._ahead
        if self._latest is None or self._latest[0] != (epoch, first):
            self._latest = (epoch, first), self._batches(epoch, first)
        return self._latest[1][position - first].copy()

    def _batches(self, epoch: int, first: int) -> list[Ints]:
        """Some batches from the `first`-th on: drawn one by one, each would cost as much as all of them."""
        positions = np.arange(first, min(first + self._ahead, len(self)))
        visits = rng.permuted(positions, len(self), self._key("batches", epoch)).tolist()
        laid = [
            self._packed(epoch, visited) if self._chunk_offsets is None else self._single(visited)
            for visited in visits
        ]
        cells, places = (np.concatenate(parts) for parts in zip(*laid, strict=True))
        ends = np.cumsum([len(place) for _, place in laid])
        return np.split(self._samples(epoch, cells, places), ends[:-1])

    def seek(self, step: int) -> None:
        """Sets the global step from which the next iteration runs."""
        if step < 0:
            raise RecipeError(f"step={step}: expected >= 0")
        self.step = step

    @property
    def sampler(self) -> CellBatchSampler:
        """Itself: Lightning and accelerate look here for `set_epoch`, or every epoch would be the first."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The next iteration runs through the whole of `epoch`."""
        self.seek(epoch * len(self))

    def state_dict(self) -> dict[str, int]:
        """The state: the global step."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes where `state_dict` was taken."""
        self.seek(state["step"])

    def coverage(self, epoch: int = 0) -> Coverage:
        """Counts, without drawing a sample, what the batches of an epoch hold; O(n_cells + batches)."""
        sizes = self.partition.sizes
        counts = np.arange(self.batch_size + 1)
        pieces = np.zeros_like(counts)  # pairs of a batch and a cell of which it holds so many samples
        touched, whole = 0, 0
        for slot, length, size_of in self._pieces(epoch):
            pieces += np.bincount(length, minlength=len(pieces))
            touched += int(np.count_nonzero(np.bincount(slot)))
            whole += int(np.count_nonzero(length == size_of[slot]))
        never = 0 if self._chunk_offsets is None else int(sizes[np.diff(self._chunk_offsets) == 0].sum())
        return Coverage(
            batches=len(self),
            samples=len(self.partition),
            samples_used=int((pieces * counts).sum()),
            samples_never_used=never,
            cells=self.partition.n_cells,
            cells_cut=touched - whole,
            cells_per_batch=int(pieces.sum()) / len(self),
            negatives=_negatives(pieces * counts),
            cell_sizes=(int(sizes.min()), int(sizes.max())),
        )

    def _key(self, what: str, epoch: int) -> int:
        return rng.derive(*self._address, epoch, what)

    def _samples(self, epoch: int, cell: Ints, place: Ints) -> Ints:
        """The samples at these places of the keyed order inside their cells."""
        begin, end = self.partition.offsets[cell], self.partition.offsets[cell + 1]
        keys = rng.keys(cell, *self._address, epoch, "inside")
        return self.partition.at(begin + rng.permuted(place, end - begin, keys))

    def _tape(self, epoch: int) -> _Tape:
        if self._latest_tape is None or self._latest_tape[0] != epoch:
            cells = self._order_of_cells(epoch)
            offsets = np.zeros(len(cells) + 1, np.int64)
            np.cumsum(self.partition.sizes[cells], out=offsets[1:])
            roll = self._key("roll", epoch) % len(self.partition)
            self._latest_tape = (epoch, _Tape(cells, offsets, roll))
        return self._latest_tape[1]

    def _order_of_cells(self, epoch: int) -> Ints:
        n_cells = self.partition.n_cells
        keys = np.empty(n_cells, np.uint64)
        for first in range(0, n_cells, _BLOCK):
            block = np.arange(first, min(first + _BLOCK, n_cells))
            keys[block] = rng.keys(block, *self._address, epoch, "cells")
        # No two keys are equal, so every way to sort them gives the same order: the fastest may.
        return np.argsort(keys).astype(narrow(n_cells), copy=False)

    def _packed(self, epoch: int, visited: int) -> tuple[Ints, Ints]:
        tape, share = self._tape(epoch), self.batch_size // self.world_size
        begin = tape.roll + visited * self.batch_size + self.rank * share
        spot = (begin + np.arange(share)) % len(self.partition)
        slot = np.searchsorted(tape.offsets, spot, side="right") - 1
        return tape.cells[slot], spot - tape.offsets[slot]

    def _pieces(self, epoch: int) -> Iterator[tuple[Ints, Ints, Ints]]:
        """Block after block of cells: (P,) which of them, and (P,) how many samples of it, for each pair of a
        batch and a cell in it; and the size of each cell of the block.
        """
        return self._packed_pieces(epoch) if self._chunk_offsets is None else self._single_pieces()

    def _packed_pieces(self, epoch: int) -> Iterator[tuple[Ints, Ints, Ints]]:
        tape, n = self._tape(epoch), len(self.partition)
        cuts = np.sort((tape.roll + np.arange(len(self) + 1) * self.batch_size) % n)
        for first in range(0, self.partition.n_cells, _BLOCK):
            borders = tape.offsets[first : first + _BLOCK + 1]
            inside = cuts[slice(*np.searchsorted(cuts, borders[[0, -1]]))]
            begins = np.sort(np.concatenate((borders[:-1], inside)))
            length = np.diff(begins, append=borders[-1])
            batch = (begins - tape.roll) % n // self.batch_size
            slot = np.searchsorted(borders, begins, side="right") - 1
            used = (batch < len(self)) & (length > 0)
            # A batch longer than the rest of the ring holds both ends of one cell: one piece, not two.
            joint, inverse = np.unique(batch[used] * len(borders) + slot[used], return_inverse=True)
            joined = np.bincount(inverse, weights=length[used]).astype(np.int64)
            yield joint % len(borders), joined, np.diff(borders)

    def _single(self, visited: int) -> tuple[Ints, Ints]:
        assert self._chunk_offsets is not None
        cell = np.searchsorted(self._chunk_offsets, visited, side="right") - 1
        begin = (visited - self._chunk_offsets[cell]) * self.batch_size
        size = self.partition.offsets[cell + 1] - self.partition.offsets[cell]
        share = min(self.batch_size, size - begin) // self.world_size
        return np.full(share, cell), begin + self.rank * share + np.arange(share)

    def _single_pieces(self) -> Iterator[tuple[Ints, Ints, Ints]]:
        assert self._chunk_offsets is not None
        sizes = self.partition.sizes
        for first in range(0, self.partition.n_cells, _BLOCK):
            chunk_offsets = self._chunk_offsets[first : first + _BLOCK + 1]
            slot = np.repeat(np.arange(len(chunk_offsets) - 1), np.diff(chunk_offsets))
            begin = (chunk_offsets[0] + np.arange(len(slot)) - chunk_offsets[slot]) * self.batch_size
            size_of = sizes[first : first + _BLOCK]
            length = np.minimum(self.batch_size, size_of[slot] - begin)
            yield slot, length // self.world_size * self.world_size, size_of


def _negatives(samples: Ints) -> tuple[int, int, int]:
    """Least, median (lower) and most companions of a sample; `samples[k]` of them lie in pieces of k."""
    lengths, below = np.flatnonzero(samples), np.cumsum(samples)
    median = np.searchsorted(below, (below[-1] + 1) // 2)
    return int(lengths[0]) - 1, int(median) - 1, int(lengths[-1]) - 1


def _chunk_offsets(sizes: Ints, batch_size: int, floor: int, world_size: int) -> Ints:
    """(C + 1,) where the batches of each cell begin when batches are cut at cell borders."""
    rest = sizes % batch_size // world_size * world_size
    offsets: Ints = np.concatenate(([0], np.cumsum(sizes // batch_size + (rest >= floor))))
    if offsets[-1] == 0:
        raise RecipeError(
            f"cells_per_batch=1: no cell gives a batch of min_batch_size={floor} (divisible by"
            f" world_size={world_size}); cells by size: {_histogram(sizes)}; take fewer clusters, a smaller"
            " batch_size or min_batch_size, or leave out cells_per_batch, which packs small cells"
        )
    return offsets


def _histogram(sizes: Ints) -> str:
    _, octaves = np.frexp(sizes)
    counts = np.bincount(octaves)
    return ", ".join(f"{2 ** (o - 1)}-{2**o - 1}: {counts[o]:,}" for o in np.flatnonzero(counts))


def _floor(cells_per_batch: int, min_batch_size: int | None, batch_size: int) -> int:
    if cells_per_batch != 1:
        raise RecipeError(
            f"cells_per_batch={cells_per_batch}: expected 1 (batches from one cell) or None (cells packed)"
        )
    floor = max(2, batch_size // 4) if min_batch_size is None else min_batch_size
    if not 2 <= floor <= batch_size:
        raise RecipeError(f"min_batch_size={floor}: expected 2 to batch_size={batch_size}")
    return floor


def _check_sizes(n_samples: int, batch_size: int, rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise RecipeError(f"rank={rank}: expected 0 to world_size - 1 = {world_size - 1}")
    if batch_size < 2:
        raise RecipeError(f"batch_size={batch_size}: a contrastive loss needs at least 2 samples a batch")
    if batch_size > n_samples:
        largest = n_samples // world_size * world_size
        raise RecipeError(
            f"batch_size={batch_size} but the dataset has {n_samples} samples; the largest legal batch_size"
            f" is {largest}"
        )
    if batch_size % world_size:
        below = batch_size // world_size * world_size
        valid = " or ".join(str(b) for b in (below, below + world_size) if 2 <= b <= n_samples)
        raise RecipeError(
            f"batch_size={batch_size} cannot be cut for world_size={world_size}: expected a multiple, such as"
            f" {valid or 'none: the dataset is too small'}"
        )
