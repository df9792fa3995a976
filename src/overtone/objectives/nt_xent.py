"""NT-Xent over the pairs that may be negatives, in memory of one tile.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, eq. 1;
with the negatives of the anchor's own cell, MCL (Zhang et al., ECCV 2024), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from overtone.contracts import Ids
from overtone.errors import RecipeError

_TILE = 2**22  # logits in memory at once: 16 MB of float32


def nt_xent(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor = 0.2,
) -> Tensor:
    """Mean over rows of -s_p + log(exp s_p + sum of exp s_j over the row's allowed negatives j).

    s are cosines over the temperature, in float32 at least. Column j may be a negative of row i if and only
    if their cells agree and their identities differ; the positive never is. A row without negatives is
    exactly 0 and counts in the mean. SimCLR is the case `rows = columns = [z1; z2]`.

    Args:
        rows: (n, d) anchors, of any length: they are normalised here.
        columns: (m, d) what they are compared with, likewise.
        positive: (n,) int64, the column of each row's positive.
        row_ids: Cells and identities of the rows, (n,) each.
        column_ids: Of the columns, (m,) each.
        temperature: Softmax scale, > 0. A tensor may be learned (CLIP's 1 / exp(logit_scale)); keeping it in
            bounds is the caller's.

    Returns:
        Scalar loss. Backward computes the logits anew, tile by tile: memory grows as n + m, not n m.

    Raises:
        RecipeError: The temperature is not a finite number > 0.

    >>> z, ids = torch.eye(2), Ids(cell=torch.tensor([0, 0]), identity=torch.tensor([0, 1]))
    >>> nt_xent(z, z, torch.arange(2), ids, ids, temperature=1.0)  # log(1 + exp(0 - 1))
    tensor(0.3133)
    """
    if not isinstance(temperature, Tensor):
        _check_temperature(temperature)
    with torch.autocast(rows.device.type, enabled=False):
        scaled, unit_columns = _unit(rows) / temperature, _unit(columns)
        losses: Tensor = _RowLosses.apply(scaled, unit_columns, positive, *row_ids, *column_ids)
        return losses.mean()


class NTXent:
    """`nt_xent` at a fixed temperature: an `Objective`."""

    def __init__(self, temperature: float = 0.2) -> None:
        _check_temperature(temperature)
        self.temperature = temperature

    def __call__(
        self, rows: Tensor, columns: Tensor, positive: Tensor, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        """See `nt_xent`."""
        return nt_xent(rows, columns, positive, row_ids, column_ids, self.temperature)


@torch.no_grad()
def contrastive_accuracy(
    rows: Tensor, columns: Tensor, positive: Tensor, row_ids: Ids, column_ids: Ids
) -> Tensor:
    """Share of rows whose positive is more similar than every allowed negative; arguments as `nt_xent`.

    Returns:
        Scalar in [0, 1] over the rows that have negatives; nan where none has.

    >>> z, ids = torch.eye(2), Ids(cell=torch.tensor([0, 0]), identity=torch.tensor([0, 1]))
    >>> contrastive_accuracy(z[[0, 0]], z, torch.tensor([0, 1]), ids, ids)
    tensor(0.5000)
    """
    with torch.autocast(rows.device.type, enabled=False):
        margins = []
        for tile, cosines in _tiles(_unit(rows), _unit(columns), positive, row_ids, column_ids):
            target = positive[tile, None]
            own = cosines.gather(1, target)
            margins.append(own.squeeze(1) - cosines.scatter_(1, target, -torch.inf).amax(dim=1))
    margin = torch.cat(margins)
    return (margin[margin != torch.inf] > 0).float().mean()


class _RowLosses(torch.autograd.Function):
    """The loss of each row, (n,). By hand, so that every tile reuses the memory of the first."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, positive: Tensor, *ids: Tensor) -> Tensor:
        log_sums, own = rows.new_empty(len(rows)), rows.new_empty(len(rows))
        for tile, logits in _tiles(rows, columns, positive, Ids(*ids[:2]), Ids(*ids[2:])):
            own[tile] = logits.gather(1, positive[tile, None]).squeeze(1)
            largest = logits.amax(dim=1, keepdim=True)
            log_sums[tile] = logits.sub_(largest).exp_().sum(dim=1).log_().add_(largest.squeeze(1))
        ctx.save_for_backward(rows, columns, positive, log_sums, *ids)
        return log_sums - own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, positive, log_sums, *ids = ctx.saved_tensors
        d_rows, d_columns = torch.empty_like(rows), torch.zeros_like(columns)
        with torch.autocast(rows.device.type, enabled=False):
            for tile, logits in _tiles(rows, columns, positive, Ids(*ids[:2]), Ids(*ids[2:])):
                # The derivative by a logit is its softmax, less one at the positive.
                d_logits = logits.sub_(log_sums[tile, None]).exp_()
                d_logits.scatter_add_(1, positive[tile, None], -torch.ones_like(d_logits[:, :1]))
                d_logits.mul_(upstream[tile, None])
                torch.mm(d_logits, columns, out=d_rows[tile])
                d_columns.addmm_(d_logits.T, rows[tile])
        return d_rows, d_columns, None, *(None for _ in ids)


def _tiles(
    rows: Tensor, columns: Tensor, positive: Tensor, row_ids: Ids, column_ids: Ids
) -> Iterator[tuple[slice, Tensor]]:
    """A tile of rows at a time: which, and their products (t, m), -inf where neither positive nor negative.

    The next tile overwrites them.
    """
    n, m = len(rows), len(columns)
    height = max(1, min(n, _TILE // m))
    products, barred = rows.new_empty(height, m), rows.new_empty(height, m, dtype=torch.bool)
    same = torch.empty_like(barred)
    for begin in range(0, n, height):
        tile = slice(begin, min(begin + height, n))
        here = slice(0, tile.stop - begin)
        torch.mm(rows[tile], columns.T, out=products[here])
        torch.ne(row_ids.cell[tile, None], column_ids.cell, out=barred[here])
        torch.eq(row_ids.identity[tile, None], column_ids.identity, out=same[here])
        barred[here].logical_or_(same[here]).scatter_(1, positive[tile, None], False)
        yield tile, products[here].masked_fill_(barred[here], -torch.inf)


def _unit(x: Tensor) -> Tensor:
    x = x if x.dtype == torch.float64 else x.float()
    # The direction does not depend on the scale, but squares of values above 1e19 overflow float32.
    return normalize(x / x.detach().abs().amax(dim=1, keepdim=True).clamp_min(1), dim=1)


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise RecipeError(f"temperature={temperature}: expected a finite number > 0, such as 0.2")
