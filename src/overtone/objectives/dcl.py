"""DCL, decoupled contrastive learning: NT-Xent whose positive leaves the denominator.

Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, section 3. The variant that weights positives (DCLW)
is not in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from overtone.contracts import Ids
from overtone.objectives.logits import check_temperature, own_and_others


def dcl(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor = 0.1,
) -> Tensor:
    """Mean over rows of -s_p + log(sum of exp s_j over the row's allowed negatives j).

    In NT-Xent a row whose positive is near already hardly learns from its negatives, most of all in small
    batches; here it learns from them as much as any other. Arguments as `nt_xent`.

    Returns:
        Scalar loss, which may be negative. A row without negatives is exactly 0 and counts in the mean.

    Raises:
        RecipeError: The temperature is not a finite number > 0.

    >>> z, ids = torch.eye(3), Ids(cell=torch.zeros(3), identity=torch.arange(3))
    >>> dcl(z, z, torch.arange(3), ids, ids, temperature=1.0)  # -1 + log(2 exp 0)
    tensor(-0.3069)
    """
    own, others = own_and_others(rows, columns, positive, row_ids, column_ids, temperature)
    none = others == -torch.inf
    return (others.masked_fill(none, 0) - own.masked_fill(none, 0)).mean()


class DCL:
    """`dcl` at a fixed temperature: an `Objective`."""

    def __init__(self, temperature: float = 0.1) -> None:
        check_temperature(temperature)
        self.temperature = temperature

    def __call__(
        self, rows: Tensor, columns: Tensor, positive: Tensor, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        """See `dcl`."""
        return dcl(rows, columns, positive, row_ids, column_ids, self.temperature)
