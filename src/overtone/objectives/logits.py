"""The logits of each row: its positive's, and those of its negatives as one sum, in memory of one tile."""

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


def own_and_others(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor,
    sharpness: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The logit of each row's positive, and the log of the sum of exp over those of its allowed negatives.

    Logits are cosines over the temperature, in float32 at least; arguments as `nt_xent`, and:

    Args:
        sharpness: Scales the logits; at 0 the sum is the number of negatives.

    Returns:
        (n,) each; the second is -inf where a row has no negative. Backward computes the logits anew, tile by
        tile: memory grows as n + m, not n m.

    Raises:
        RecipeError: The temperature is not a finite number > 0.

    >>> z, ids = torch.eye(2), Ids(cell=torch.tensor([0, 0]), identity=torch.tensor([0, 1]))
    >>> own_and_others(z, z, torch.arange(2), ids, ids, temperature=0.5)
    (tensor([2., 2.]), tensor([0., 0.]))
    """
    if not isinstance(temperature, Tensor):
        check_temperature(temperature)
    with torch.autocast(rows.device.type, enabled=False):
        scaled, columns = unit(rows) * sharpness / temperature, unit(columns)
        found: tuple[Tensor, Tensor] = _OwnAndOthers.apply(scaled, columns, positive, *row_ids, *column_ids)
        return found


class _OwnAndOthers(torch.autograd.Function):
    """By hand, so that every tile reuses the memory of the first."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, positive: Tensor, *ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        own, others = rows.new_empty(len(rows)), rows.new_empty(len(rows))
        lowest = torch.finfo(rows.dtype).min  # stands for -inf, which cannot be subtracted from itself
        for tile, logit, logits in tiles(rows, columns, positive, Ids(*ids[:2]), Ids(*ids[2:])):
            own[tile] = logit
            largest = logits.amax(dim=1, keepdim=True).clamp_min_(lowest)
            others[tile] = logits.sub_(largest).exp_().sum(dim=1).log_().add_(largest.squeeze(1))
        ctx.save_for_backward(rows, columns, positive, others.clamp_min(lowest), *ids)
        return own, others

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_own: Tensor, d_others: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, positive, others, *ids = ctx.saved_tensors
        d_rows, d_columns = torch.empty_like(rows), torch.zeros_like(columns)
        with torch.autocast(rows.device.type, enabled=False):
            for tile, _, logits in tiles(rows, columns, positive, Ids(*ids[:2]), Ids(*ids[2:])):
                # The derivative of the log of the sum by a logit is its softmax.
                d_logits = logits.sub_(others[tile, None]).exp_().mul_(d_others[tile, None])
                d_logits.scatter_(1, positive[tile, None], d_own[tile, None])
                torch.mm(d_logits, columns, out=d_rows[tile])
                d_columns.addmm_(d_logits.T, rows[tile])
        return d_rows, d_columns, None, *(None for _ in ids)


def tiles(
    rows: Tensor, columns: Tensor, positive: Tensor, row_ids: Ids, column_ids: Ids
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """A tile of rows at a time: which, their products with their positives (t,) and with all columns (t, m).

    The latter are -inf where there is no negative; the next tile overwrites them.
    """
    n, m = len(rows), len(columns)
    height = max(1, min(n, _TILE // m))
    products, barred = rows.new_empty(height, m), rows.new_empty(height, m, dtype=torch.bool)
    same = torch.empty_like(barred)
    for begin in range(0, n, height):
        tile = slice(begin, min(begin + height, n))
        here, target = slice(0, tile.stop - begin), positive[tile, None]
        torch.mm(rows[tile], columns.T, out=products[here])
        torch.ne(row_ids.cell[tile, None], column_ids.cell, out=barred[here])
        torch.eq(row_ids.identity[tile, None], column_ids.identity, out=same[here])
        barred[here].logical_or_(same[here]).scatter_(1, target, True)
        own = products[here].gather(1, target).squeeze(1)
        yield tile, own, products[here].masked_fill_(barred[here], -torch.inf)


def unit(x: Tensor) -> Tensor:
    """The rows of x at length 1, in float32 at least."""
    x = x if x.dtype == torch.float64 else x.float()
    # The direction does not depend on the scale, but squares of values above 1e19 overflow float32.
    return normalize(x / x.detach().abs().amax(dim=1, keepdim=True).clamp_min(1), dim=1)


def check_temperature(temperature: float) -> None:
    """Raises a RecipeError unless the temperature is a finite number > 0."""
    if not 0 < temperature < math.inf:
        raise RecipeError(f"temperature={temperature}: expected a finite number > 0, such as 0.2")
