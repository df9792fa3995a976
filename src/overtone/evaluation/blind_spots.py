"""Pairs that one encoder cannot tell apart and another can: candidates for blind pairs.

As the pairs of MMVP were found (Tong et al., "Eyes Wide Shut? Exploring the Visual Shortcomings of
Multimodal LLMs", CVPR 2024, section 2): cosine above 0.95 for CLIP, below 0.6 for DINOv2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from overtone.errors import DataError, NumericalError, RecipeError

ALIKE, DIFFERENT = 0.95, 0.6
PARTNERS = 8  # of a sample that are kept as candidates


class BlindSpot(NamedTuple):
    """Two samples, by row, and their cosines for the encoder that is asked and for the other one."""

    first: int
    second: int
    cosine: float
    other_cosine: float


def blind_spots(
    embeddings: NDArray[Any],
    others: NDArray[Any],
    *,
    alike: float = ALIKE,
    different: float = DIFFERENT,
    most: int | None = None,
    per_sample: int = 1,
    partners: int = PARTNERS,
    chunk: int = 4096,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[BlindSpot]:
    """Looks at all pairs for those that are alike for one encoder and different for another.

    The pair with the greatest difference of both cosines comes first; a pair is left out where one of its
    samples has enough pairs already. Takes N² / 2 products, and the memory of a chunk and of N x `partners`.

    Args:
        embeddings: (N, D) of the encoder that is asked; may be a memory map, for it is read by chunks.
        others: (N, E) of the other one.
        alike: The cosine of the first must lie above.
        different: The cosine of the other must lie below.
        most: The most pairs.
        per_sample: The most pairs with the same sample.
        partners: The most candidates of a sample, its best; where these have enough pairs, it gets none.
        chunk: Rows and columns at a time; changes nothing else, up to rounding.
        device: Where to compute.
        progress: Called after each block with the blocks done and their number.

    Raises:
        DataError: The embeddings are not two matrices with a row a sample.
        RecipeError: A number is out of range.
        NumericalError: An embedding is not finite.

    >>> embeddings = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> blind_spots(embeddings, np.eye(3))
    [BlindSpot(first=0, second=1, cosine=0.9950371384620667, other_cosine=0.0)]
    """
    _check(embeddings, others, alike, different)
    for name, number in {"most": most or 1, "per_sample": per_sample, "partners": partners}.items():
        if number < 1:
            raise RecipeError(f"{name}={number}: expected 1 or more.")
    n = len(embeddings)
    gaps = torch.full((n, partners), -torch.inf)
    found = torch.full((n, partners), -1)
    begins = range(0, n, chunk)
    blocks = [(i, j) for i in begins for j in begins if i <= j]
    for done, (i, j) in enumerate(blocks, 1):
        if j == i:
            rows = [_unit(side, i, chunk, device) for side in (embeddings, others)]
        columns = rows if i == j else [_unit(side, j, chunk, device) for side in (embeddings, others)]
        block = _gaps(rows, columns, alike, different)
        if block is not None:
            if i == j:
                block.fill_diagonal_(-torch.inf)
            _keep(gaps, found, block, i, j)
            if i != j:
                _keep(gaps, found, block.T, j, i)
        if progress is not None:
            progress(done, len(blocks))
    chosen = _chosen(gaps.numpy(), found.numpy(), most, per_sample)
    return [BlindSpot(*pair, _cosine(embeddings, *pair), _cosine(others, *pair)) for pair in chosen]


def _gaps(rows: list[Tensor], columns: list[Tensor], alike: float, different: float) -> Tensor | None:
    """(rows, columns): the difference of both cosines, -inf for no candidate; None where all are none."""
    cosines = rows[0] @ columns[0].T
    near = cosines > alike
    if not near.any():
        return None
    others = rows[1] @ columns[1].T
    return (cosines - others).masked_fill(~near | (others >= different), -torch.inf).cpu()


def _keep(gaps: Tensor, found: Tensor, block: Tensor, row: int, column: int) -> None:
    """Takes the best of a block into the best of its rows."""
    part = slice(row, row + len(block))
    numbers = torch.arange(column, column + block.shape[1]).expand_as(block)
    merged = torch.cat([gaps[part], block], dim=1)
    gaps[part], order = merged.topk(gaps.shape[1], dim=1)
    found[part] = torch.cat([found[part], numbers], dim=1).gather(1, order)


def _chosen(
    gaps: NDArray[np.float32], found: NDArray[np.int64], most: int | None, per_sample: int
) -> list[tuple[int, int]]:
    """Greedily the best candidates of all, each sample in few."""
    rows, places = np.nonzero(np.isfinite(gaps))
    partners = found[rows, places]
    first, second = np.minimum(rows, partners), np.maximum(rows, partners)
    _, once = np.unique(first * len(gaps) + second, return_index=True)
    order = once[np.lexsort((second[once], first[once], -gaps[rows, places][once]))]
    used = np.zeros(len(gaps), dtype=np.int64)
    pairs: list[tuple[int, int]] = []
    for one, other in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if most is not None and len(pairs) == most:
            break
        if max(used[one], used[other]) < per_sample:
            used[[one, other]] += 1
            pairs.append((one, other))
    return pairs


def _unit(embeddings: NDArray[Any], begin: int, chunk: int, device: torch.device | str) -> Tensor:
    rows = torch.from_numpy(np.array(embeddings[begin : begin + chunk], dtype=np.float32))
    if bad := torch.nonzero(~rows.isfinite().all(1)).flatten().tolist():
        raise NumericalError(f"embeddings: row {begin + bad[0]} is not finite; expected finite numbers.")
    return F.normalize(rows.to(device), dim=1)


def _cosine(embeddings: NDArray[Any], one: int, other: int) -> float:
    rows = torch.cat([_unit(embeddings, row, 1, "cpu") for row in (one, other)])
    return float((rows[0] * rows[1]).sum())


def _check(embeddings: NDArray[Any], others: NDArray[Any], alike: float, different: float) -> None:
    if embeddings.ndim != 2 or others.ndim != 2 or len(embeddings) != len(others):
        raise DataError(
            f"embeddings of shapes {embeddings.shape} and {others.shape}; expected (samples, dimension) of "
            "the same samples."
        )
    for name, cosine in {"alike": alike, "different": different}.items():
        if not -1 <= cosine <= 1:
            raise RecipeError(f"{name}={cosine}: expected a cosine, from -1 to 1.")
