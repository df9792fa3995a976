"""IFM, implicit feature modification: a rival of stages against feature suppression.

Robinson et al., "Can contrastive learning avoid shortcut solutions?", NeurIPS 2021, section 3.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import logsigmoid

from overtone.contracts import Ids
from overtone.errors import RecipeError
from overtone.objectives.logits import check_temperature, own_and_others


def ifm(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor = 0.2,
    epsilon: float = 0.1,
) -> Tensor:
    """The mean of NT-Xent, and of NT-Xent with the positive's cosine less epsilon, each negative's plus it.

    To move a negative by epsilon towards its anchor, and the positive away from it, is the worst that can be
    done to both within that distance: what tells them apart easily is taken out of them. As only differences
    count, the second term is that of NT-Xent with its positive lowered by 2 epsilon over the temperature.
    Arguments as `nt_xent`, and:

    Args:
        epsilon: >= 0, in units of the cosine. 0 is NT-Xent. The authors' best on ImageNet-100, of 0.05, 0.1
            and 0.2, was 0.1.

    Returns:
        Scalar loss. A row without negatives is exactly 0 and counts in the mean.

    Raises:
        RecipeError: A value is out of bounds.

    >>> import torch
    >>> z, ids = torch.eye(2), Ids(cell=torch.tensor([0, 0]), identity=torch.tensor([0, 1]))
    >>> ifm(z, z, torch.arange(2), ids, ids, temperature=1.0, epsilon=0.5)  # of log(1 + 1 / e) and log 2
    tensor(0.5032)
    """
    _check_epsilon(epsilon)
    own, others = own_and_others(rows, columns, positive, row_ids, column_ids, temperature)
    margin = own - others
    return -(logsigmoid(margin) + logsigmoid(margin - 2 * epsilon / temperature)).mean() / 2


class IFM:
    """`ifm` at fixed values: an `Objective`."""

    def __init__(self, temperature: float = 0.2, epsilon: float = 0.1) -> None:
        check_temperature(temperature)
        _check_epsilon(epsilon)
        self.temperature, self.epsilon = temperature, epsilon

    def __call__(
        self, rows: Tensor, columns: Tensor, positive: Tensor, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        """See `ifm`."""
        return ifm(rows, columns, positive, row_ids, column_ids, self.temperature, self.epsilon)


def _check_epsilon(epsilon: float) -> None:
    if not 0 <= epsilon < math.inf:
        raise RecipeError(f"epsilon={epsilon}: expected a finite number >= 0, such as 0.1")
