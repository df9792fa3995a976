from __future__ import annotations

import oracles
import pytest
import torch
from hypothesis import given, settings
from pairs import Problem, alone, gradients, problem, problems, together
from torch.nn.functional import normalize

from overtone.contracts import Ids
from overtone.errors import RecipeError
from overtone.objectives import DCL, dcl, nt_xent


@settings(max_examples=40, deadline=None, derandomize=True)
@given(problems())
def test_value_and_gradients_equal_the_formula_written_as_loops(batch: Problem) -> None:
    ours, loops = dcl(*batch, 0.3), oracles.dcl(*batch, 0.3)
    torch.testing.assert_close(ours, loops, rtol=0, atol=1e-12)
    for a, b in zip(gradients(ours, *batch[:2]), gradients(loops, *batch[:2]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_with_one_cell_it_is_the_published_form_over_both_views() -> None:
    n = 8
    z = torch.randn(2 * n, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = Ids(torch.zeros(2 * n, dtype=torch.int64), torch.arange(2 * n) % n)
    partner = (torch.arange(2 * n) + n) % (2 * n)
    logits = normalize(z) @ normalize(z).T / 0.1
    own = logits.gather(1, partner[:, None])
    others = logits.fill_diagonal_(-torch.inf).scatter(1, partner[:, None], -torch.inf)
    expected = (others.logsumexp(1, keepdim=True) - own).mean()
    torch.testing.assert_close(dcl(z, z, partner, ids, ids, 0.1), expected, rtol=0, atol=1e-12)


def test_nt_xent_is_its_softplus_row_by_row() -> None:
    rows, columns, positive, _, _ = problem(n=1, cells=1)
    pairs = (rows, columns, positive, Ids(torch.zeros(1), torch.tensor([-1])), together(13))
    torch.testing.assert_close(nt_xent(*pairs, 0.3), torch.nn.functional.softplus(dcl(*pairs, 0.3)))


def test_rows_without_negatives_are_exactly_zero_and_have_no_gradient() -> None:
    rows, columns, positive, _, _ = problem(n=5, m=5)
    loss = dcl(rows, columns, positive, alone(5), alone(5))
    assert loss.item() == 0
    assert not any(g.any() for g in gradients(loss, rows, columns))


def test_autocast_leaves_the_logits_in_float32() -> None:
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = dcl(z, z, torch.arange(16), together(16), together(16))
    assert loss.dtype == torch.float32
    assert loss == dcl(z.float(), z.float(), torch.arange(16), together(16), together(16))


def test_the_class_is_the_function_at_its_temperature_which_is_above_zero() -> None:
    assert DCL(0.3)(*problem()) == dcl(*problem(), 0.3)
    with pytest.raises(RecipeError, match=r"temperature=0\.0"):
        DCL(0.0)
