"""NT-Xent over the pairs that may be negatives.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, eq. 1;
with the negatives of the anchor's own cell, MCL (Zhang et al., ECCV 2024), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from overtone.contracts import Ids
from overtone.objectives.logits import check_temperature, own_and_others, tiles, unit


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
        margins = [
            own - cosines.amax(dim=1)
            for _, own, cosines in tiles(unit(rows), unit(columns), positive, row_ids, column_ids)
        ]
    margin = torch.cat(margins)
    return (margin[margin != torch.inf] > 0).float().mean()
