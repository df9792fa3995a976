"""InfoNCE where a row may have several positives, any weights, and negatives that are allowed or not.

Two denominators are in use. "own": each positive against the negatives alone (UniCLIP's MP-NCE; Lee et al.,
NeurIPS 2022). "all": each positive against the negatives and all positives (SupCon's L_out; Khosla et al.,
"Supervised Contrastive Learning", NeurIPS 2020, eq. 2). With one positive a row both are NT-Xent.

Logits are a dense matrix here: for batches of up to a few thousand. `nt_xent`, which knows one positive a
row, goes through tiles and has no such limit.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from overtone.contracts import Ids
from overtone.objectives.logits import unit

Denominator: TypeAlias = Literal["own", "all"]


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """(n, m) cosines in float32 at least, also under autocast."""
    with torch.autocast(rows.device.type, enabled=False):
        return unit(rows) @ unit(columns).T


def allowed(row_ids: Ids, column_ids: Ids, positives: Tensor) -> Tensor:
    """(n, m) bool: which pairs may be negatives: cells agree, identities differ, and it is no positive.

    >>> ids = Ids(cell=torch.tensor([0, 0, 1]), identity=torch.tensor([0, 1, 2]))
    >>> allowed(ids, ids, torch.eye(3, dtype=torch.bool)).int().tolist()
    [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    same_cell = row_ids.cell[:, None] == column_ids.cell
    return same_cell & (row_ids.identity[:, None] != column_ids.identity) & ~positives


def many_positives(
    logits: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    denominator: Denominator = "own",
    log_weights: Tensor | None = None,
    positive_weights: Tensor | None = None,
) -> Tensor:
    """Mean over rows of the weighted mean over their positives p of -s_p + log(exp s_p + sum of w_j exp s_j).

    Args:
        logits: (n, m), similarities over the temperature.
        positives: (n, m) bool.
        negatives: (n, m) bool, none of them a positive; see `allowed`.
        denominator: "own": the sum holds the positive itself and the negatives j; "all": the row's other
            positives too.
        log_weights: (n, m), the log of w_j; of negatives alone. 0 by default.
        positive_weights: (n, m) >= 0, how much each positive counts in its row; equally by default.

    Returns:
        Scalar. A row without a positive is 0 and counts in the mean; one without negatives is 0 with "own",
        and with "all" where it has one positive.

    >>> eye = torch.eye(2, dtype=torch.bool)
    >>> many_positives(torch.eye(2), eye, ~eye)  # log(1 + exp(0 - 1))
    tensor(0.3133)
    """
    repelling = logits if log_weights is None else logits + log_weights
    others = repelling.masked_fill(~negatives, -torch.inf)
    if denominator == "all":
        # One row of the sum serves all its positives.
        whole = torch.logsumexp(torch.where(positives, logits, others), dim=1, keepdim=True)
        losses = whole - logits
    else:
        # Softplus of (others - own): exactly 0 where there is no negative.
        losses = torch.nn.functional.softplus(_sum(others) - logits)
    weights = positives.to(logits.dtype) if positive_weights is None else positive_weights * positives
    total = (weights * losses.masked_fill(~positives, 0)).sum(dim=1)
    return (total / weights.sum(dim=1).clamp_min(torch.finfo(logits.dtype).tiny)).mean()


def _sum(logits: Tensor) -> Tensor:
    """(n, 1) log of the sum of exp; so low that it vanishes, but finite, where a row is all -inf."""
    none = torch.isneginf(logits).all(dim=1, keepdim=True)
    lowest = torch.finfo(logits.dtype).min / 4
    return torch.logsumexp(logits.masked_fill(none, lowest), dim=1, keepdim=True)
