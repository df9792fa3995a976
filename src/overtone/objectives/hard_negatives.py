"""NT-Xent with hard negatives weighted up: a rival of stages against feature suppression.

Robinson et al., "Contrastive learning with hard negative samples", ICLR 2021, section 3. At beta = 0 it is
the debiased loss of Chuang et al., "Debiased contrastive learning", NeurIPS 2020, with one positive.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from overtone.contracts import Ids
from overtone.errors import RecipeError
from overtone.objectives.logits import check_temperature, own_and_others


def hard_negatives(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor = 0.2,
    beta: float = 1.0,
    tau_plus: float = 0.1,
) -> Tensor:
    """Mean over rows of -s_p + log(exp s_p + G), G an estimate of what N true and hard negatives sum to.

    s are cosines over the temperature t, and N is the number of the row's own allowed negatives:

        G = max((N E - tau_plus N exp s_p) / (1 - tau_plus), N exp(-1 / t))

    E is the mean of exp s_j over these negatives under weights exp(beta s_j), normalised among them alone.
    It costs three passes over the pairs where NT-Xent takes one. Arguments as `nt_xent`, and:

    Args:
        beta: >= 0, how much more the hard negatives count. The authors' default is 1.
        tau_plus: In [0, 1), how likely a negative is of the anchor's own class. Theirs is 0.1.
            NT-Xent is `beta=0, tau_plus=0`.

    Returns:
        Scalar loss. A row without negatives is exactly 0 and counts in the mean.

    Raises:
        RecipeError: A value is out of bounds.

    >>> z, ids = torch.eye(3), Ids(cell=torch.zeros(3), identity=torch.arange(3))
    >>> hard_negatives(z, z, torch.arange(3), ids, ids, 1.0, tau_plus=0.0)  # log(1 + 2 exp(0 - 1))
    tensor(0.5514)
    """
    _check(beta, tau_plus)
    pairs = (rows, columns, positive, row_ids, column_ids, temperature)
    with torch.no_grad():
        log_n = own_and_others(*pairs, sharpness=0.0)[1]
    own, hard = own_and_others(*pairs, sharpness=1 + beta)
    own = own / (1 + beta)
    weights = own_and_others(*pairs, sharpness=beta)[1]
    # Without negatives all three are -inf, and so must their sum be.
    log_sum = log_n + hard - weights.masked_fill(weights == -torch.inf, 0)
    largest = torch.maximum(own, log_sum).detach()
    debiased = (log_sum - largest).exp() - tau_plus * (log_n + own - largest).exp()
    floor = (log_n - 1 / temperature - largest).exp()
    negatives = torch.maximum(debiased / (1 - tau_plus), floor)
    return (((own - largest).exp() + negatives).log() + largest - own).mean()


class HardNegatives:
    """`hard_negatives` at fixed values: an `Objective`."""

    def __init__(self, temperature: float = 0.2, beta: float = 1.0, tau_plus: float = 0.1) -> None:
        check_temperature(temperature)
        _check(beta, tau_plus)
        self.temperature, self.beta, self.tau_plus = temperature, beta, tau_plus

    def __call__(
        self, rows: Tensor, columns: Tensor, positive: Tensor, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        """See `hard_negatives`."""
        values = (self.temperature, self.beta, self.tau_plus)
        return hard_negatives(rows, columns, positive, row_ids, column_ids, *values)


def _check(beta: float, tau_plus: float) -> None:
    if not 0 <= beta < math.inf:
        raise RecipeError(f"beta={beta}: expected a finite number >= 0, such as 1")
    if not 0 <= tau_plus < 1:
        raise RecipeError(f"tau_plus={tau_plus}: expected a share of the negatives, in [0, 1), such as 0.1")
