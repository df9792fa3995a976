"""The pairwise sigmoid loss (Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.utils.checkpoint import checkpoint

from overtone.contracts import Ids
from overtone.objectives.logits import unit

_TILE = 2**22  # logits in memory at once


def sigmoid(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor,
    bias: float | Tensor,
) -> Tensor:
    """Every pair by itself: is it a positive or not? No row competes with another.

    The sum over the positive and the allowed negatives of -log sigmoid(s (cosine / temperature + bias)),
    s = 1 for a positive and -1 for a negative, as a mean over the rows (algorithm 1 of the paper). Arguments
    as `nt_xent`, and:

    Args:
        bias: Added to every logit; the authors begin at -10, with a temperature of 0.1.

    Returns:
        Scalar loss. A row without negatives still has its positive.

    >>> z, ids = torch.eye(2), Ids(cell=torch.tensor([0, 0]), identity=torch.tensor([0, 1]))
    >>> sigmoid(z, z, torch.arange(2), ids, ids, temperature=1.0, bias=0.0)  # log(1 + 1 / e) and log 2
    tensor(1.0064)
    """
    with torch.autocast(rows.device.type, enabled=False):
        scaled, columns = unit(rows) / temperature, unit(columns)
        offset = torch.as_tensor(bias, dtype=scaled.dtype, device=scaled.device)
        total = scaled.new_zeros(())
        height = max(1, _TILE // len(columns))
        for begin in range(0, len(rows), height):
            tile = slice(begin, begin + height)
            ids = (row_ids.cell[tile], row_ids.identity[tile], *column_ids)
            total = total + checkpoint(
                _tile, scaled[tile], columns, offset, positive[tile], *ids, use_reentrant=False
            )
        return total / len(rows)


def _tile(
    rows: Tensor,
    columns: Tensor,
    bias: Tensor,
    positive: Tensor,
    cell: Tensor,
    identity: Tensor,
    column_cell: Tensor,
    column_identity: Tensor,
) -> Tensor:
    logits = rows @ columns.T + bias
    allowed = (cell[:, None] == column_cell) & (identity[:, None] != column_identity)
    allowed.scatter_(1, positive[:, None], False)
    own = logits.gather(1, positive[:, None])
    return -logsigmoid(own).sum() - torch.where(allowed, logsigmoid(-logits), 0).sum()
