"""NT-Xent over the pairs that may be negatives.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, eq. 1;
with the negatives of the anchor's own cell, MCL (Zhang et al., ECCV 2024), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from overtone.contracts import Ids
from overtone.objectives.logits import (
    arranged,
    check_temperature,
    own_and_others,
    own_and_others_both_ways,
    tiles,
    unit,
)


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
    own, others = own_and_others(rows, columns, positive, row_ids, column_ids, temperature)
    return -logsigmoid(own - others).mean()


def nt_xent_both_ways(rows: Tensor, columns: Tensor, ids: Ids, temperature: float | Tensor = 0.2) -> Tensor:
    """The mean of `nt_xent` of the rows among the columns, and of the columns among the rows (CLIP).

    It computes each product of a row and a column once, where two calls do so twice.

    Args:
        rows: (n, d).
        columns: (n, d); row i and column i are each other's positive.
        ids: Of both.
        temperature: As in `nt_xent`.

    Returns:
        Scalar loss.

    Raises:
        RecipeError: The temperature is not a finite number > 0.

    >>> ids = Ids(cell=torch.tensor([0, 0]), identity=torch.tensor([0, 1]))
    >>> nt_xent_both_ways(torch.eye(2), torch.eye(2), ids, temperature=1.0)  # log(1 + exp(0 - 1))
    tensor(0.3133)
    """
    own, of_rows, of_columns = own_and_others_both_ways(rows, columns, ids, temperature)
    return -(logsigmoid(own - of_rows) + logsigmoid(own - of_columns)).mean() / 2


class NTXent:
    """`nt_xent` at a fixed temperature: an `Objective`."""

    def __init__(self, temperature: float = 0.2) -> None:
        check_temperature(temperature)
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
        rows, columns = unit(rows), unit(columns)
        own = (rows * columns.index_select(0, positive)).sum(dim=1)
        row_order, column_order, pairs = arranged(positive, row_ids, column_ids)
        best = torch.full_like(own, -torch.inf)
        for tile in tiles(rows[row_order], columns[column_order], pairs):
            best[tile.rows] = torch.maximum(best[tile.rows], tile.logits.amax(dim=1))
    margin = own[row_order] - best
    # Two ways to sum a product differ in its last digits: what is equal up to them is not more similar.
    return (margin[margin != torch.inf] > 8 * torch.finfo(margin.dtype).eps).float().mean()
