"""Small problems for objectives: rows, columns, positives, and ids that allow some pairs as negatives."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from overtone.contracts import Ids

Problem = tuple[Tensor, Tensor, Tensor, Ids, Ids]


def problem(
    n: int = 9, m: int = 13, d: int = 5, cells: int = 3, identities: int = 6, seed: int = 0
) -> Problem:
    """Random rows, columns, positives and ids in float64."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=g, dtype=torch.float64, requires_grad=True)
    columns = torch.randn(m, d, generator=g, dtype=torch.float64, requires_grad=True)
    row_ids = Ids(torch.randint(cells, (n,), generator=g), torch.randint(identities, (n,), generator=g))
    column_ids = Ids(torch.randint(cells, (m,), generator=g), torch.randint(identities, (m,), generator=g))
    positive = torch.randint(m, (n,), generator=g)
    return rows, columns, positive, row_ids, column_ids


def alone(n: int) -> Ids:
    """Every sample in a cell of its own."""
    return Ids(torch.arange(n), torch.arange(n))


def together(n: int) -> Ids:
    """All samples in one cell."""
    return Ids(torch.zeros(n, dtype=torch.int64), torch.arange(n))


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def problems() -> st.SearchStrategy[Problem]:
    """Of any shape: from every sample in a cell of its own to one cell, from one identity to all distinct."""
    few, some = st.integers(1, 5), st.integers(1, 7)
    return st.builds(problem, n=some, m=some, d=few, cells=few, identities=some, seed=st.integers(0, 999))
