from __future__ import annotations

import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import Problem, alone, gradients, problem, problems, together
from torch import Tensor

from overtone.errors import RecipeError
from overtone.objectives import IFM, ifm, nt_xent


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems(), st.sampled_from([0.05, 0.1, 0.5]))
def test_it_is_nt_xent_averaged_with_that_of_features_moved_by_epsilon(
    batch: Problem, epsilon: float
) -> None:
    ours, moved = ifm(*batch, 0.3, epsilon), oracles.ifm(*batch, 0.3, epsilon)
    torch.testing.assert_close(ours, moved, rtol=0, atol=1e-12)
    for a, b in zip(gradients(ours, *batch[:2]), gradients(moved, *batch[:2]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(problems())
def test_with_epsilon_zero_it_is_nt_xent(batch: Problem) -> None:
    torch.testing.assert_close(ifm(*batch, 0.2, 0.0), nt_xent(*batch, 0.2), rtol=0, atol=1e-12)


def test_rows_without_negatives_are_exactly_zero_and_have_no_gradient() -> None:
    rows, columns, positive, _, _ = problem(n=5, m=5)
    loss = ifm(rows, columns, positive, alone(5), alone(5))
    assert loss.item() == 0
    assert not any(g.any() for g in gradients(loss, rows, columns))


def test_gradcheck_holds_for_rows_columns_and_temperature() -> None:
    rows, columns, positive, row_ids, column_ids = problem(n=4, m=6)
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def loss(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        return ifm(a, b, positive, row_ids, column_ids, t, 0.1)

    assert torch.autograd.gradcheck(loss, (rows, columns, temperature))


def test_it_stays_finite_in_float32_at_temperature_one_hundredth() -> None:
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = ifm(z, -z, torch.arange(6), together(6), together(6), 0.01, 0.5)
    assert loss.isfinite()
    assert gradients(loss, z)[0].isfinite().all()


@pytest.mark.parametrize("epsilon", [-0.1, math.nan, math.inf])
def test_an_epsilon_that_is_no_distance_is_refused(epsilon: float) -> None:
    with pytest.raises(RecipeError, match=f"epsilon={epsilon}: expected a finite number >= 0"):
        IFM(epsilon=epsilon)
    with pytest.raises(RecipeError, match="temperature=0"):
        IFM(temperature=0)


def test_the_class_is_the_function_at_its_values() -> None:
    assert IFM(0.3, 0.2)(*problem()) == ifm(*problem(), 0.3, 0.2)
