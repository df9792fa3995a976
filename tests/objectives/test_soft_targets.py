from __future__ import annotations

import math

import pytest
import torch
from pairs import gradients, problem
from torch import Tensor
from torch.nn.functional import cross_entropy

from overtone.errors import RecipeError
from overtone.objectives import nt_xent
from overtone.objectives.many_positives import allowed, cosines
from overtone.objectives.soft_targets import soft_targets
from overtone.rng import generator

N, M = 5, 7


def _drawn() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, a teacher's, positives; negatives, of which the first row has none."""
    draw = generator(0, "soft targets")
    logits, seen = 2 * torch.randn(2, N, M, dtype=torch.float64, generator=draw)
    positive = torch.randint(M, (N,), generator=draw)
    negatives = (torch.rand(N, M, generator=draw) < 0.5).scatter(1, positive[:, None], False)
    negatives[0] = False
    return logits.requires_grad_(), seen.requires_grad_(), positive, negatives


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_it_is_the_loop_over_the_positive_and_the_negatives_of_each_row(alpha: float) -> None:
    logits, seen, positive, negatives = _drawn()
    total = torch.zeros((), dtype=torch.float64)
    for i, p in enumerate(positive.tolist()):
        columns = [j for j in range(M) if negatives[i, j] or j == p]
        below = sum(logits[i, j].exp() for j in columns)
        seen_below = sum(seen[i, j].detach().exp() for j in columns)
        for j in columns:
            target = alpha * seen[i, j].detach().exp() / seen_below + (1 - alpha) * (j == p)
            total = total - target * torch.log(logits[i, j].exp() / below)
    found = soft_targets(logits, seen, positive, negatives, alpha)
    torch.testing.assert_close(found, total / N, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        *(gradients(loss, logits)[0] for loss in (found, total / N)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("cells", [1, 3])
def test_a_teacher_that_is_not_believed_leaves_nt_xent(cells: int) -> None:
    rows, columns, positive, row_ids, column_ids = problem(cells=cells)
    one = torch.zeros(len(rows), len(columns), dtype=torch.bool).scatter(1, positive[:, None], True)
    logits = cosines(rows, columns) / 0.3
    found = soft_targets(logits, -logits, positive, allowed(row_ids, column_ids, one), 0.0)
    expected = nt_xent(rows, columns, positive, row_ids, column_ids, 0.3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_teacher_that_is_believed_alone_gives_the_cross_entropy_to_its_softmax() -> None:
    logits, seen, positive, _ = _drawn()
    all_others = torch.ones(N, M, dtype=torch.bool).scatter(1, positive[:, None], False)
    found = soft_targets(logits, seen, positive, all_others, 1.0)
    torch.testing.assert_close(found, cross_entropy(logits, seen.softmax(1)), rtol=0, atol=1e-12)


def test_a_row_without_negatives_is_zero_and_the_teacher_takes_no_gradient() -> None:
    logits, seen, positive, _ = _drawn()
    loss = soft_targets(logits, seen, positive, torch.zeros(N, M, dtype=torch.bool), 0.4)
    assert loss.item() == 0
    assert not gradients(loss, logits)[0].any()
    (gradient,) = torch.autograd.grad(loss, seen, allow_unused=True)
    assert gradient is None


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_a_share_out_of_range_is_refused(alpha: float) -> None:
    logits, seen, positive, negatives = _drawn()
    with pytest.raises(RecipeError, match=f"alpha={alpha}: expected a number from 0 to 1"):
        soft_targets(logits, seen, positive, negatives, alpha)
