"""Hard negatives that no sample has: the hardest that are allowed, mixed with each other or with the row.

Kalantidis et al., "Hard Negative Mixing for Contrastive Learning" (MoCHi), NeurIPS 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


@torch.no_grad()
def hardest(similarities: Tensor, negatives: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The most similar negatives of each row.

    Args:
        similarities: (n, m).
        negatives: (n, m) bool, see `many_positives.allowed`.
        most: How many of each row, at most.

    Returns:
        (n, min(most, m)) int64 columns, the hardest first, and (n,) int64, how many of them are negatives; a
        row's further columns mean nothing.

    >>> similarities = torch.tensor([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5]])
    >>> columns, count = hardest(similarities, torch.tensor([[1, 0, 1], [0, 0, 1]]).bool(), 2)
    >>> columns[0].tolist(), columns[1, :1].tolist(), count.tolist()
    ([2, 0], [2], [2, 1])
    """
    ranked = similarities.masked_fill(~negatives, -torch.inf)
    columns = ranked.topk(min(most, ranked.shape[1]), dim=1).indices
    return columns, negatives.sum(dim=1).clamp_max(columns.shape[1])


def mixed(keys: Tensor, hard: Tensor, count: Tensor, n: int, draw: torch.Generator) -> Tensor:
    """Type 1: two of a row's hard negatives, drawn with replacement, in a share drawn from (0, 1).

    Args:
        keys: (m, d), of unit length.
        hard: Columns, of `hardest`.
        count: How many of each row may be drawn, of `hardest`.
        n: How many to make for each row.
        draw: Of the step.

    Returns:
        (rows, n, d), of unit length; those of a row without negatives mean nothing.

    >>> hard, count = torch.tensor([[0, 1]]), torch.tensor([1])
    >>> mixed(torch.eye(2), hard, count, 1, torch.Generator())  # only the first may be drawn
    tensor([[[1., 0.]]])
    """
    one, other = _picked(keys, hard, count, n, draw), _picked(keys, hard, count, n, draw)
    return normalize(torch.lerp(one, other, _shares(one, draw)), dim=2)


def mixed_with_rows(
    rows: Tensor, keys: Tensor, hard: Tensor, count: Tensor, n: int, draw: torch.Generator
) -> Tensor:
    """Type 2: one of a row's hard negatives with a share of the row itself, drawn from (0, 1/2).

    Args:
        rows: (n, d), of unit length.
        keys: And the others as `mixed`.
        hard: Likewise.
        count: Likewise.
        n: Likewise.
        draw: Likewise.

    Returns:
        As `mixed`; each is nearer to its row than the negative of which it was made.

    >>> rows, keys, hard = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0]])
    >>> found = mixed_with_rows(rows, keys, hard, torch.tensor([1]), 1, torch.Generator().manual_seed(0))
    >>> bool(0 < found[0, 0, 1] < found[0, 0, 0])
    True
    """
    one = _picked(keys, hard, count, n, draw)
    return normalize(torch.lerp(one, rows[:, None], _shares(one, draw) / 2), dim=2)


def _picked(keys: Tensor, hard: Tensor, count: Tensor, n: int, draw: torch.Generator) -> Tensor:
    """(rows, n, d): keys drawn from the first `count` hard ones of each row."""
    uniform = torch.rand(len(hard), n, generator=draw).to(count.device)
    return keys[hard.gather(1, (uniform * count[:, None]).long())]


def _shares(like: Tensor, draw: torch.Generator) -> Tensor:
    return torch.rand(*like.shape[:2], 1, generator=draw).to(like)
