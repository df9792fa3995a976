"""How well an encoder tells the samples of a cell apart: what the negatives of these cells leave to learn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn import functional as F

from overtone import rng
from overtone.contracts import Address, Dataset, Views
from overtone.embedding import evaluating, to_device
from overtone.partition import Partition

SAMPLES = 4096  # that are looked at, in whole cells
COMPANIONS = 1024  # the most samples of one cell that are looked at
TEMPERATURES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_BATCH = 256
_LOG_WEIGHTS = (-6.0, 6.0)  # of an encoder: from no say to a temperature of 0.0025

Sides: TypeAlias = tuple[Tensor, Tensor]
"""The embeddings (n, D) of two views of the same n samples, by one encoder."""


class Discrimination(NamedTuple):
    """How two views of a sample find each other among the samples of its cell.

    Attributes:
        accuracy: Share of samples whose other view is the nearest of its cell.
        known: Share of the cells' entropy that the encoder resolves, 1 - H(sample | view, cell) / log(cell):
            0 where all samples of a cell look alike to it, 1 where each is told from all others.
    """

    accuracy: float
    known: float


def discrimination(first: Tensor, second: Tensor, cells: NDArray[np.int64]) -> Discrimination:
    """Reads from the embeddings of two views what an encoder knows inside cells.

    H(sample | view, cell) is the cross entropy of a softmax over the cell's cosines, at the temperature of
    a fixed few at which it is smallest: InfoNCE as a bound on information (van den Oord et al., arXiv
    1807.03748, section 2.3), with negatives from the cell alone.

    Args:
        first: (n, D) embeddings of one view of n samples.
        second: (n, D) of another view of the same samples.
        cells: (n,) int64. A cell of a single sample tells nothing and is left out.

    Returns:
        Both figures are nan where no cell has two samples.

    >>> apart = torch.eye(4)
    >>> discrimination(apart, apart, np.array([0, 0, 1, 1]))
    Discrimination(accuracy=1.0, known=1.0)
    """
    first, second = F.normalize(first.float(), dim=1), F.normalize(second.float(), dim=1)
    losses = torch.zeros(len(TEMPERATURES), dtype=torch.float64)
    found, samples, entropy = 0, 0, 0.0
    for members in _members(cells):
        cosines = first[members] @ second[members].T
        own = torch.arange(len(members), device=cosines.device)
        losses += torch.stack(
            [F.cross_entropy(cosines / t, own, reduction="sum") for t in TEMPERATURES]
        ).cpu()
        rivals = cosines.clone().fill_diagonal_(-torch.inf).amax(dim=1)
        found += int((cosines.diagonal() > rivals).sum())
        samples += len(members)
        entropy += len(members) * math.log(len(members))
    if not samples:
        return Discrimination(math.nan, math.nan)
    return Discrimination(found / samples, max(0.0, 1 - float(losses.min()) / entropy))


def known_together(encoders: Sequence[Sides], cells: NDArray[np.int64]) -> float:
    """The share of the cells' entropy that several encoders resolve together.

    As `Discrimination.known`, of a softmax over the sum of all encoders' cosines, each with a weight of its
    own: a conditional logit. The weights are fitted on every other cell and read on the rest, and the other
    way round, so an encoder that adds nothing adds nothing.

    Args:
        encoders: What each makes of two views of n samples; all of the same samples.
        cells: (n,) int64. A cell of fewer than two samples tells nothing and is left out.

    Returns:
        From about 0 to 1; nan where no two cells have two samples.

    >>> cells = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    >>> coarse = torch.eye(2)[[0, 0, 1, 1, 0, 0, 1, 1]]
    >>> fine = torch.eye(2)[[0, 1, 0, 1, 0, 1, 0, 1]]
    >>> sides = [(coarse, coarse), (fine, fine)]
    >>> round(known_together(sides[:1], cells), 3), round(known_together(sides, cells), 3)
    (0.5, 1.0)
    """
    unit = [tuple(F.normalize(side.double(), dim=1) for side in sides) for sides in encoders]
    cosines = [
        torch.stack([first[members] @ second[members].T for first, second in unit])
        for members in _members(cells)
    ]
    if len(cosines) < 2:
        return math.nan
    halves = (cosines[::2], cosines[1::2])
    left = sum(_cross_entropy(_weights(halves[1 - side]), halves[side]).item() for side in (0, 1))
    return 1 - left / sum(cell.shape[1] * math.log(cell.shape[1]) for cell in cosines)


def _weights(cosines: Sequence[Tensor]) -> Tensor:
    """(E,) weights of the encoders under which the views of some cells find each other best."""
    samples = sum(cell.shape[1] for cell in cosines)

    def loss(logarithms: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        free = torch.from_numpy(logarithms).requires_grad_()
        value = _cross_entropy(free.exp(), cosines) / samples
        value.backward()  # type: ignore[no-untyped-call]
        assert free.grad is not None
        return value.item(), free.grad.numpy()

    start = np.ones(len(cosines[0]))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[_LOG_WEIGHTS] * len(start))
    return torch.from_numpy(found.x).exp()


def _cross_entropy(weights: Tensor, cosines: Sequence[Tensor]) -> Tensor:
    losses = [
        F.cross_entropy(torch.einsum("e,eij->ij", weights, cell), torch.arange(len(cell[0])), reduction="sum")
        for cell in cosines
    ]
    return torch.stack(losses).sum()


def _members(cells: NDArray[np.int64]) -> Iterator[Tensor]:
    partition = Partition(cells)
    for begin, end in zip(partition.offsets[:-1], partition.offsets[1:], strict=True):
        if end - begin > 1:
            yield torch.from_numpy(np.sort(partition.order[begin:end]).astype(np.int64))


def known_inside(
    encoders: Sequence[nn.Module],
    dataset: Dataset,
    views: Views,
    partition: Partition,
    *,
    seed: int,
    device: torch.device,
) -> list[Discrimination]:
    """What each encoder knows inside the cells of a partition, from two views of some of its cells.

    Looks at whole cells in a seeded order up to `SAMPLES` samples, at no more than `COMPANIONS` of a cell.

    Args:
        encoders: Each takes a batch and gives (B, D).
        dataset: Where the samples come from.
        views: Makes the views; the first two are looked at, or the only one beside the sample itself.
        partition: The cells.
        seed: Address of the draws, with "discrimination".
        device: Where to compute.

    Returns:
        One `Discrimination` an encoder.
    """
    return Looks(encoders, dataset, views, seed=seed, device=device).inside(partition)


class Looks:
    """`known_inside` of several partitions of the same samples, of which each is embedded once.

    The arguments are those of `known_inside`.

    >>> from overtone.datasets import trifeature
    >>> class Pixels(nn.Module):
    ...     def forward(self, batch): return batch["image"].flatten(1)
    >>> alike = lambda batch, address: [batch, batch]
    >>> looks = Looks([Pixels()], trifeature(8), alike, seed=0, device=torch.device("cpu"))
    >>> [looks.inside(Partition(np.arange(8) % cells))[0].accuracy for cells in (1, 2, 4)]
    [1.0, 1.0, 1.0]
    """

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        dataset: Dataset,
        views: Views,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.seed = seed
        self._made = partial(two_views, encoders, dataset, views, seed=seed, device=device)
        self._rows = np.empty(0, np.int64)  # ascending, as are those of what was made of them
        self._sides: list[Sides] = []

    def inside(self, partition: Partition) -> list[Discrimination]:
        """One `Discrimination` an encoder."""
        rows = some_cells(partition, self.seed)
        self._look_at(np.setdiff1d(rows, self._rows))
        places, cells = torch.from_numpy(np.searchsorted(self._rows, rows)), partition.pseudo_labels[rows]
        return [discrimination(first[places], second[places], cells) for first, second in self._sides]

    def _look_at(self, rows: NDArray[np.int64]) -> None:
        """Adds samples that were not looked at."""
        if not len(rows):
            return
        rows, made = np.concatenate([self._rows, rows]), self._made(rows=rows)
        order = np.argsort(rows)
        before = self._sides or [(side[0][:0], side[1][:0]) for side in made]
        self._rows = rows[order]
        self._sides = [
            (torch.cat([old[0], new[0]])[order], torch.cat([old[1], new[1]])[order])
            for old, new in zip(before, made, strict=True)
        ]


def some_cells(partition: Partition, seed: int, most: int = SAMPLES) -> NDArray[np.int64]:
    """Samples of whole cells in a seeded order, ascending: at most `most`, and `COMPANIONS` of a cell."""
    chosen: list[NDArray[np.int64]] = []
    held = 0
    order = rng.permuted(
        np.arange(len(partition.sizes)), len(partition.sizes), rng.derive(seed, "discrimination", "cells")
    )
    for cell in order.tolist():
        members = partition.order[partition.offsets[cell] : partition.offsets[cell + 1]]
        if len(members) > COMPANIONS:
            key = rng.derive(seed, "discrimination", "companions", cell)
            members = members[rng.permuted(np.arange(COMPANIONS), len(members), key)]
        if chosen and held + len(members) > most:
            break
        chosen.append(members)
        held += len(members)
    return np.sort(np.concatenate(chosen)).astype(np.int64)


@torch.no_grad()
def two_views(
    encoders: Sequence[nn.Module],
    dataset: Dataset,
    views: Views,
    rows: NDArray[np.int64],
    *,
    seed: int,
    device: torch.device,
) -> list[Sides]:
    """For each encoder, the embeddings (n, D) of the first and of the second view of some samples.

    The arguments are those of `known_inside`; `rows` (n,) are the samples.
    """
    address = Address(rng.derive(seed, "discrimination"), 0, 0)
    found: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in encoders]
    for begin in range(0, len(rows), _BATCH):
        batch = dataset.collate([dataset[row] for row in rows[begin : begin + _BATCH].tolist()])
        batch = to_device(batch, device)
        made = [*views(batch, address), batch][:2]  # the sample itself, where there is one view
        for encoder, sides in zip(encoders, found, strict=True):
            with evaluating(encoder):
                for view, side in zip(made, sides, strict=True):
                    side.append(encoder.to(device)(view).float().cpu())
    return [(torch.cat(first), torch.cat(second)) for first, second in found]
