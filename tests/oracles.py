"""Slow and obvious versions of what the library computes cleverly: loops and dense masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from overtone.contracts import Ids


def allowed_negatives(positive: Tensor, row_ids: Ids, column_ids: Ids) -> Tensor:
    """(n, m) bool: cells agree, identities differ, and it is not the positive."""
    rows = zip(row_ids.cell.tolist(), row_ids.identity.tolist(), positive.tolist(), strict=True)
    columns = list(zip(column_ids.cell.tolist(), column_ids.identity.tolist(), strict=True))
    return torch.tensor(
        [[a == c and b != d and j != p for j, (c, d) in enumerate(columns)] for a, b, p in rows]
    )


def nt_xent(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor,
) -> Tensor:
    """The formula, one pair at a time."""
    allowed = allowed_negatives(positive, row_ids, column_ids)
    total = rows.new_zeros(())
    for i, p in enumerate(positive.tolist()):
        s = [rows[i] @ c / (rows[i].norm() * c.norm()) / temperature for c in columns]
        negatives = [s[j].exp() for j in range(len(columns)) if allowed[i, j]]
        total = total - s[p] + torch.log(s[p].exp() + sum(negatives))
    return total / len(rows)


def dcl(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor,
) -> Tensor:
    """The formula, one pair at a time; a row without negatives is left out of the sum."""
    allowed = allowed_negatives(positive, row_ids, column_ids)
    total = 0 * (rows.sum() + columns.sum())
    for i, p in enumerate(positive.tolist()):
        s = [rows[i] @ c / (rows[i].norm() * c.norm()) / temperature for c in columns]
        negatives = [s[j].exp() for j in range(len(columns)) if allowed[i, j]]
        if negatives:
            total = total - torch.log(s[p].exp() / torch.stack(negatives).sum())
    return total / len(rows)


def ifm(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor,
    epsilon: float,
) -> Tensor:
    """As its name says: the features are moved, the positive from the anchor and the negatives towards it."""
    allowed = allowed_negatives(positive, row_ids, column_ids)
    total = rows.new_zeros(())
    for moved in (0.0, epsilon):
        for i, p in enumerate(positive.tolist()):
            anchor = rows[i] / rows[i].norm()
            features = [c / c.norm() for c in columns]
            own = (anchor @ (features[p] - moved * anchor) / temperature).exp()
            negatives = [
                (anchor @ (feature + moved * anchor) / temperature).exp()
                for j, feature in enumerate(features)
                if allowed[i, j]
            ]
            total = total - torch.log(own / (own + sum(negatives)))
    return total / (2 * len(rows))


def hard_negatives(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor,
    beta: float,
    tau_plus: float,
) -> Tensor:
    """The published estimator, one row at a time over the list of its own negatives."""
    allowed = allowed_negatives(positive, row_ids, column_ids)
    total = rows.new_zeros(())
    for i, p in enumerate(positive.tolist()):
        e = [torch.exp(rows[i] @ c / (rows[i].norm() * c.norm()) / temperature) for c in columns]
        negatives = [e[j] for j in range(len(columns)) if allowed[i, j]]
        if not negatives:
            continue
        n = len(negatives)
        weights = [x**beta for x in negatives]
        reweighted = sum(w * x for w, x in zip(weights, negatives, strict=True)) / (sum(weights) / n)
        estimate = (reweighted - tau_plus * n * e[p]) / (1 - tau_plus)
        floor = n * torch.exp(rows.new_tensor(-1.0) / temperature)
        total = total - torch.log(e[p] / (e[p] + max(estimate, floor)))
    return total / len(rows)


def joint_labels(cluster_labels: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Tuples of labels, numbered in ascending order."""
    tuples = list(zip(*(labels.tolist() for labels in cluster_labels), strict=True))
    number = {label: i for i, label in enumerate(sorted(set(tuples)))}
    return np.array([number[label] for label in tuples])


def nearest(points: NDArray[np.float64], centers: NDArray[np.float64]) -> NDArray[np.int64]:
    """The center of the largest cosine, point by point."""
    return np.array(
        [
            max(range(len(centers)), key=lambda k: float(p @ centers[k] / np.linalg.norm(centers[k])))
            for p in points
        ]
    )


def blobs(
    k: int = 5, size: int = 40, d: int = 16, spread: float = 0.05, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Well separated directions, of many scales, in mixed order, with their blob."""
    draws = np.random.default_rng(seed)
    blob = draws.permutation(np.repeat(np.arange(k), size))
    points = np.eye(d)[blob] + spread * draws.standard_normal((k * size, d))
    return points * draws.uniform(0.1, 50, (k * size, 1)), blob


def adaptive_temperature(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: Callable[[Tensor, Tensor], Tensor],
    heads: int,
    weight: float,
) -> Tensor:
    """The formula, one pair of one head at a time."""
    allowed = allowed_negatives(positive, row_ids, column_ids)
    width = rows.shape[1] // heads
    total = rows.new_zeros(())
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for i, p in enumerate(positive.tolist()):
            scores = []
            for column in columns:
                a, b = rows[i, part] / rows[i, part].norm(), column[part] / column[part].norm()
                t = temperature(a, b)
                scores.append(a @ b / t - weight * (width / 2 * t.log() + 1 / t))
            negatives = [scores[j].exp() for j in range(len(columns)) if allowed[i, j]]
            total = total - scores[p] + torch.log(scores[p].exp() + sum(negatives))
    return total / len(rows)
