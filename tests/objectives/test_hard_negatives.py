from __future__ import annotations

import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import Problem, alone, gradients, problem, problems, together
from torch import Tensor

from overtone.contracts import Ids
from overtone.errors import RecipeError
from overtone.objectives import HardNegatives, hard_negatives, nt_xent


@settings(max_examples=100, deadline=None, derandomize=True)
@given(problems(), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([0.0, 0.1, 0.6]))
def test_value_and_gradients_equal_the_published_estimator_over_each_rows_own_negatives(
    batch: Problem, beta: float, tau_plus: float
) -> None:
    ours = hard_negatives(*batch, 0.3, beta, tau_plus)
    loops = oracles.hard_negatives(*batch, 0.3, beta, tau_plus)
    torch.testing.assert_close(ours, loops, rtol=0, atol=1e-11)
    if loops.requires_grad:  # it does not where no row has negatives
        for a, b in zip(gradients(ours, *batch[:2]), gradients(loops, *batch[:2]), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(problems())
def test_with_beta_and_tau_plus_zero_it_is_nt_xent(batch: Problem) -> None:
    ours, plain = hard_negatives(*batch, 0.2, 0.0, 0.0), nt_xent(*batch, 0.2)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    for a, b in zip(gradients(ours, *batch[:2]), gradients(plain, *batch[:2]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_weights_are_normalised_in_the_cell_so_other_cells_change_nothing() -> None:
    z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cells, index = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1]), torch.arange(8)
    both = Ids(cells, index)
    apart = [
        hard_negatives(z[i], z[i], torch.arange(len(i)), together(len(i)), together(len(i))) * len(i) / 8
        for i in (index[:5], index[5:])
    ]
    torch.testing.assert_close(hard_negatives(z, z, index, both, both), apart[0] + apart[1])


def test_rows_without_negatives_are_exactly_zero_and_have_no_gradient() -> None:
    rows, columns, positive, _, _ = problem(n=5, m=5)
    loss = hard_negatives(rows, columns, positive, alone(5), alone(5))
    assert loss.item() == 0
    assert not any(g.any() for g in gradients(loss, rows, columns))


def test_what_the_positive_takes_away_stops_at_the_floor() -> None:
    z = torch.eye(4, dtype=torch.float64)  # the positive at cosine 1, three negatives at 0
    loss = hard_negatives(z, z, torch.arange(4), together(4), together(4), 0.5, 1.0, 0.5)
    assert loss.item() == pytest.approx(math.log(1 + 3 * math.exp(-2) / math.exp(2)), abs=1e-12)


def test_a_large_beta_leaves_the_hardest_negative_alone_n_times() -> None:
    rows, columns, positive, _, _ = problem(n=1, m=6)
    one, six = Ids(torch.tensor([0]), torch.tensor([-1])), together(6)
    cosines = torch.cosine_similarity(rows, columns).detach()
    hardest = max(float(c) for j, c in enumerate(cosines) if j != positive.item())
    expected = math.log(1 + 5 * math.exp((hardest - float(cosines[positive])) / 0.2))
    assert hard_negatives(rows, columns, positive, one, six, 0.2, 1e3, 0.0).item() == pytest.approx(expected)


def test_gradcheck_holds_for_rows_columns_and_temperature() -> None:
    rows, columns, positive, row_ids, column_ids = problem(n=4, m=6)
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def loss(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        return hard_negatives(a, b, positive, row_ids, column_ids, t, 1.0, 0.1)

    assert torch.autograd.gradcheck(loss, (rows, columns, temperature))


@pytest.mark.parametrize("sign", [1, -1])
def test_it_stays_finite_in_float32_at_temperature_one_hundredth(sign: int) -> None:
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = hard_negatives(z, sign * z, torch.arange(6), together(6), together(6), 0.01, 2.0, 0.1)
    assert loss.isfinite()
    assert gradients(loss, z)[0].isfinite().all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta": -1.0}, "beta=-1.0: expected a finite number >= 0"),
        ({"beta": math.inf}, "beta=inf: expected a finite number >= 0"),
        ({"tau_plus": 1.0}, r"tau_plus=1.0: expected a share of the negatives, in \[0, 1\)"),
        ({"tau_plus": -0.1}, "tau_plus=-0.1"),
        ({"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_values_out_of_bounds_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        HardNegatives(**values)


def test_the_class_is_the_function_at_its_values() -> None:
    assert HardNegatives(0.3, 2.0, 0.2)(*problem()) == hard_negatives(*problem(), 0.3, 2.0, 0.2)
