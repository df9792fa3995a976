"""Cross-entropy against a mixture of what a teacher sees and the one true pair.

Li et al., "Align before Fuse: Vision and Language Representation Learning with Momentum Distillation",
NeurIPS 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor

from overtone.errors import RecipeError


def soft_targets(
    logits: Tensor, teacher_logits: Tensor, positive: Tensor, negatives: Tensor, alpha: float
) -> Tensor:
    """Mean over rows of -sum_j t_ij log softmax(s_i)_j, over each row's positive and its negatives.

    t = alpha softmax(teacher's s_i) + (1 - alpha) one-hot; both softmaxes are over these columns alone, so
    what is barred leaves target and denominator. At alpha = 0 it is NT-Xent.

    Args:
        logits: (n, m), similarities over the temperature.
        teacher_logits: (n, m) likewise; no gradient flows into them.
        positive: (n,) int64, the column of each row's positive.
        negatives: (n, m) bool, see `many_positives.allowed`.
        alpha: How much the teacher is believed, in [0, 1].

    Returns:
        Scalar. A row without negatives is exactly 0 and counts in the mean.

    Raises:
        RecipeError: alpha is out of range.

    >>> eye = torch.eye(2, dtype=torch.bool)
    >>> soft_targets(torch.eye(2), torch.zeros(2, 2), torch.arange(2), ~eye, alpha=0.5)  # t = 3/4, 1/4
    tensor(0.5633)
    """
    if not 0 <= alpha <= 1:
        raise RecipeError(f"alpha={alpha}: expected a number from 0 to 1, such as 0.4")
    own = torch.zeros_like(negatives).scatter(1, positive[:, None], True)
    barred = ~(negatives | own)
    with torch.no_grad():
        seen = teacher_logits.masked_fill(barred, -torch.inf).softmax(dim=1)
        target = alpha * seen + (1 - alpha) * own.to(seen.dtype)
    surprise = -logits.masked_fill(barred, -torch.inf).log_softmax(dim=1).masked_fill(barred, 0)
    return (target * surprise).sum(dim=1).mean()
