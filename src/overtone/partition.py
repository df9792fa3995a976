"""The cells of a stage: which samples the stages so far cannot tell apart.

>>> cells = Partition.intersect([np.array([0, 0, 1, 1]), np.array([5, 7, 7, 7])])
>>> cells.pseudo_labels, cells.sizes
(array([0, 1, 2, 2]), array([1, 1, 2]))
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone import cell_files
from overtone.errors import DataError


class PartitionSummary(NamedTuple):
    """How many cells there are and how large, in samples."""

    n_samples: int
    n_cells: int
    smallest: int
    median: float
    largest: int

    def __str__(self) -> str:
        return (
            f"{self.n_samples:,} samples in {self.n_cells:,} cells of {self.smallest:,}-{self.largest:,}"
            f" (median {self.median:,.0f})"
        )


class Partition:
    """Samples grouped into cells, stored as compressed rows: cell c is `order[offsets[c]:offsets[c + 1]]`.

    All in memory when made from labels; `load` and `build` map files instead, int32 where that is enough.

    Attributes:
        pseudo_labels: (N,) int64, the cell of each sample, in range(n_cells) without gaps.
        n_cells: How many cells there are, C.
        sizes: (C,) int64, samples a cell, never 0.
        order: (N,) int64, sample ids grouped by cell, ascending in each.
        offsets: (C + 1,) int64, where each cell begins in `order`.

    Args:
        pseudo_labels: (N,) integers >= 0, any values: equal ones share a cell. They are numbered anew in
            ascending order.

    Raises:
        DataError: The labels are not a vector of integers >= 0, or there are none.

    >>> cells = Partition(np.array([9, 4, 9]))
    >>> cells.pseudo_labels, cells.order, cells.offsets
    (array([1, 0, 1]), array([1, 0, 2]), array([0, 1, 3]))
    """

    def __init__(self, pseudo_labels: NDArray[np.integer[Any]]) -> None:
        labels = _checked(pseudo_labels, "pseudo_labels")
        order = np.argsort(labels, kind="stable")
        ascending = labels[order]
        begins = np.flatnonzero(ascending[1:] != ascending[:-1]) + 1
        offsets = np.concatenate(([0], begins, [len(labels)])).astype(np.int64)
        compact = np.empty(len(labels), np.int64)
        compact[order] = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        self._hold(compact, order, offsets)

    def _hold(
        self, pseudo_labels: NDArray[np.int64], order: NDArray[np.int64] | None, offsets: NDArray[np.int64]
    ) -> Partition:
        self.pseudo_labels, self._order, self.offsets = pseudo_labels, order, offsets
        self.n_cells = len(offsets) - 1
        return self

    @property
    def order(self) -> NDArray[np.int64]:
        return np.arange(len(self)) if self._order is None else self._order

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples at these places of `order`.

        Raises:
            DataError: A mapped file holds an id that is no sample's: it is damaged.
        """
        if self._order is None:
            return places
        samples = self._order[places].astype(np.int64, copy=False)
        if samples.size and not 0 <= samples.min() <= samples.max() < len(self):
            raise DataError(
                f"order holds sample {samples.min() if samples.min() < 0 else samples.max()}, expected 0 to"
                f" {len(self) - 1}: the file is damaged; build the cells again"
            )
        return samples

    def __len__(self) -> int:
        return len(self.pseudo_labels)

    def __repr__(self) -> str:
        return f"Partition({self.describe()})"

    @classmethod
    def whole(cls, n: int) -> Partition:
        """One cell of `n` samples: what stage 0 trains on. It takes no memory, however many they are."""
        labels = np.broadcast_to(np.int64(0), n)
        cell_files.require_vector(labels.dtype, labels.shape, "whole")
        return cls.__new__(cls)._hold(labels, None, np.array([0, n]))

    @classmethod
    def build(cls, labels: NDArray[np.integer[Any]] | Path, folder: Path) -> Partition:
        """The same cells as `Partition(labels)`, made in files for which memory need not suffice, and mapped.

        Takes memory for the cells and for some millions of samples, and three passes over the labels.

        Args:
            labels: (N,) integers >= 0 of any type, such as a memory map, or the .npy file that holds them.
            folder: Where the files go: 8 bytes a sample, and 4 a cell; twice that beyond 2**31.

        Raises:
            DataError: The labels are not a vector of integers >= 0.
            DiskError: The disk is full.

        >>> import tempfile
        >>> Partition.build(np.array([9, 4, 9], np.uint8), Path(tempfile.mkdtemp())).order
        array([1, 0, 2], dtype=int32)
        """
        cell_files.sort(labels, folder)
        return cls.load(folder)

    @classmethod
    def intersect(cls, cluster_labels: Sequence[NDArray[np.integer[Any]]]) -> Partition:
        """Samples share a cell if and only if they share the cluster of every stage (MCL, section 3).

        The joint ids are numbered anew after each stage, so they stay below N however many stages.

        Args:
            cluster_labels: For each stage (N,) integers >= 0.

        Raises:
            DataError: No stage, or stages of different lengths.
        """
        if not cluster_labels:
            raise DataError("cluster_labels is empty: intersecting needs the labels of at least one stage")
        joint = cls(cluster_labels[0])
        for stage, labels in enumerate(cluster_labels[1:], start=1):
            _check_length(len(labels), len(joint), f"cluster_labels[{stage}]", "cluster_labels[0]")
            newest = cls(labels)
            joint = cls(joint.pseudo_labels * newest.n_cells + newest.pseudo_labels)
        return joint

    def merged(self, floor: int = 2, parents: NDArray[np.integer[Any]] | None = None) -> Partition:
        """Joins cells of fewer than `floor` samples with their smallest siblings.

        Args:
            floor: The least number of samples of a cell; a cell of one has no negatives.
            parents: (N,) coarser labels; siblings share one. Where all cells of a parent together stay
                below the floor, they join the smallest cells of all. None: all cells are siblings.

        Raises:
            DataError: A cell lies in two parents, or there are not N parent labels.

        >>> Partition(np.array([0, 1, 1, 2, 3, 3, 3])).merged(parents=np.array([0, 0, 0, 1, 1, 1, 1])).sizes
        array([3, 4])
        """
        if self.sizes.min() >= floor:
            return self
        if parents is None:
            group = _groups(self.sizes, np.zeros(self.n_cells, np.int64), floor)
            return Partition(group[self.pseudo_labels])
        group = _groups(self.sizes, self._parent_of_cell(parents), floor)
        return Partition(group[self.pseudo_labels]).merged(floor)

    def save(self, folder: Path) -> None:
        """Writes labels, order and offsets into `folder`."""
        cell_files.save(cell_files.Rows(self.pseudo_labels, self.order, self.offsets), folder)

    @classmethod
    def load(cls, folder: Path, n_samples: int | None = None) -> Partition:
        """Maps what `save` or `build` wrote; sorts labels that lie there alone.

        Args:
            folder: The folder given to `save` or `build`.
            n_samples: The length of the dataset that the cells must belong to.

        Raises:
            DataError: A file is missing, damaged, not labels, or of another length.
        """
        rows = cell_files.load(folder)
        labels = rows.pseudo_labels if isinstance(rows, cell_files.Rows) else rows
        if n_samples is not None:
            _check_length(len(labels), n_samples, str(folder), "the dataset")
        if isinstance(rows, cell_files.Rows):
            return cls.__new__(cls)._hold(*rows)
        return cls(_checked(labels, str(folder)))

    def digest(self) -> str:
        """The SHA-256 of the labels as int64, whatever type they are kept in: equal cells, equal digest."""
        total = hashlib.sha256()
        for _, labels in cell_files.chunks(self.pseudo_labels):
            total.update(labels.astype("<i8").tobytes())
        return total.hexdigest()

    def describe(self) -> PartitionSummary:
        """The number of cells and their sizes, for a line of a report."""
        smallest, largest = int(self.sizes.min()), int(self.sizes.max())
        return PartitionSummary(len(self), self.n_cells, smallest, float(np.median(self.sizes)), largest)

    def _parent_of_cell(self, parents: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        _check_length(len(parents), len(self), "parents", "pseudo_labels")
        of_cell = _checked(parents, "parents")[self.order[self.offsets[:-1]]].astype(np.int64)
        torn = np.flatnonzero(of_cell[self.pseudo_labels] != parents)
        if len(torn):
            sample = int(torn[0])
            cell = self.pseudo_labels[sample]
            raise DataError(
                f"parents: sample {sample} of cell {cell} has parent {parents[sample]}, but the cell's first"
                f" sample {of_cell[cell]}; give labels of which these cells are subdivisions"
            )
        return of_cell


def _groups(sizes: NDArray[np.int64], parent: NDArray[np.int64], floor: int) -> NDArray[np.int64]:
    """The cell that each cell joins, itself where it is large enough."""
    group = np.arange(len(sizes))
    ascending = np.lexsort((sizes, parent))
    for siblings in np.split(ascending, np.flatnonzero(np.diff(parent[ascending])) + 1):
        _join(siblings, sizes, floor, group)
    return group


def _join(
    siblings: NDArray[np.int64], sizes: NDArray[np.int64], floor: int, group: NDArray[np.int64]
) -> None:
    """Gathers siblings, smallest first, until each gathering reaches the floor; the last may join another."""
    head, previous, total = siblings[0], None, 0
    for cell in siblings:
        if total >= floor:
            if sizes[cell] >= floor:
                return
            head, previous, total = cell, head, 0
        group[cell] = head
        total += sizes[cell]
    if total < floor and previous is not None:
        group[siblings[group[siblings] == head]] = previous


def _checked(labels: NDArray[np.integer[Any]], name: str) -> NDArray[np.integer[Any]]:
    labels = np.asarray(labels)
    cell_files.require_vector(labels.dtype, labels.shape, name)
    if labels.min() < 0:
        n_negative, first = int((labels < 0).sum()), int(np.argmax(labels < 0))
        raise DataError(
            f"{name}: {n_negative:,} of {len(labels):,} labels are negative (first: {labels[first]} of sample"
            f" {first}), expected integers >= 0; give unlabelled samples a label of their own"
        )
    return labels


def _check_length(length: int, expected: int, name: str, reference: str) -> None:
    if length != expected:
        raise DataError(
            f"{name} has {length:,} labels but {reference} has {expected:,}: they belong to other samples;"
            " build them again from this dataset"
        )
