"""NT-Xent over the pairs that may be negatives, in memory of one tile.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, eq. 1;
with the negatives of the anchor's own cell, MCL (Zhang et al., ECCV 2024), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from ..contracts import Ids
from ..errors import RecipeError

# Logits held at once: 64 MB of float32, a few times that with their gradients.
_TILE = 2**24


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

    def losses(tile: slice, unit_rows: Tensor, unit_columns: Tensor) -> Tensor:
        logits = unit_rows[tile] @ unit_columns.T / temperature
        target = positive[tile, None]
        kept = _negatives(tile, positive, row_ids, column_ids).scatter_(1, target, True)
        return logits.where(kept, -torch.inf).logsumexp(dim=1) - logits.gather(1, target).squeeze(1)

    return _by_tile(losses, rows, columns).mean()


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

    def margins(tile: slice, unit_rows: Tensor, unit_columns: Tensor) -> Tensor:
        similarity = unit_rows[tile] @ unit_columns.T
        hardest = similarity.where(_negatives(tile, positive, row_ids, column_ids), -torch.inf).amax(dim=1)
        return similarity.gather(1, positive[tile, None]).squeeze(1) - hardest

    margin = _by_tile(margins, rows, columns)
    return (margin[margin != torch.inf] > 0).float().mean()


def _by_tile(function: Callable[[slice, Tensor, Tensor], Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    """`function` of every row, a tile of rows at a time, in full precision whatever autocast says."""
    n, height = len(rows), max(1, _TILE // len(columns))
    with torch.autocast(rows.device.type, enabled=False):
        unit_rows, unit_columns = _unit(rows), _unit(columns)
        if n <= height:
            return function(slice(0, n), unit_rows, unit_columns)
        tiles = [slice(begin, min(begin + height, n)) for begin in range(0, n, height)]
        parts = [
            checkpoint(function, tile, unit_rows, unit_columns, use_reentrant=False, preserve_rng_state=False)
            for tile in tiles
        ]
        return torch.cat(parts)


def _negatives(tile: slice, positive: Tensor, row_ids: Ids, column_ids: Ids) -> Tensor:
    """Which columns are negatives of the tile's rows, (t, m) bool."""
    same_cell = row_ids.cell[tile, None] == column_ids.cell
    other = row_ids.identity[tile, None] != column_ids.identity
    return (same_cell & other).scatter_(1, positive[tile, None], False)


def _unit(x: Tensor) -> Tensor:
    x = x if x.dtype == torch.float64 else x.float()
    # The direction does not depend on the scale, but squares of values above 1e19 overflow float32.
    return normalize(x / x.detach().abs().amax(dim=1, keepdim=True).clamp_min(1), dim=1)


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise RecipeError(f"temperature={temperature}: expected a finite number > 0, such as 0.2")
