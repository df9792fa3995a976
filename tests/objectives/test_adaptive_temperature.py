from __future__ import annotations

import oracles
import pytest
import torch
from hypothesis import given, settings
from pairs import Problem, alone, gradients, problem, problems, together
from torch import Tensor

from overtone.errors import RecipeError
from overtone.objectives import AdaptiveTemperature, adaptive_temperature, nt_xent


def objective(heads: int, out_dim: int, *, weight: float = 0.1) -> AdaptiveTemperature:
    torch.manual_seed(0)
    return AdaptiveTemperature(heads, out_dim, weight=weight).double()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(problems())
def test_value_and_gradients_equal_the_formula_written_as_loops(batch: Problem) -> None:
    width = batch[0].shape[1]
    ours = objective(width, width)

    def temperature(a: Tensor, b: Tensor) -> Tensor:
        score: Tensor = ours.phi(a) @ ours.phi(b)
        return 0.05 + 1.95 / (1 + score.exp())

    found, loops = ours(*batch), oracles.adaptive_temperature(*batch, temperature, width, 0.1)
    torch.testing.assert_close(found, loops, rtol=0, atol=1e-11)
    inputs = (*batch[:2], *ours.parameters())
    for a, b in zip(gradients(found, *inputs), gradients(loops, *inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_one_head_of_a_constant_temperature_is_nt_xent_and_more_heads_are_their_sum() -> None:
    rows, columns, positive, row_ids, column_ids = problem(d=6)
    constant = {"lowest": 0.3, "highest": 0.3, "weight": 0.0}
    for heads in (1, 3):
        parts = zip(rows.chunk(heads, 1), columns.chunk(heads, 1), strict=True)
        each = [nt_xent(a, b, positive, row_ids, column_ids, 0.3) for a, b in parts]
        found = AdaptiveTemperature(heads, 6, **constant).double()(
            rows, columns, positive, row_ids, column_ids
        )
        torch.testing.assert_close(found, torch.stack(each).sum(), rtol=0, atol=1e-12)


def test_temperatures_keep_their_bounds_and_fall_as_pairs_score_higher() -> None:
    ours = objective(1, 5)
    z = torch.nn.functional.normalize(torch.randn(40, 5, dtype=torch.float64))
    torch.nn.init.normal_(list(ours.phi.parameters())[2], std=2)  # beyond where the sigmoid is steep
    found, scores = ours.temperatures(z, z), ours.phi(z) @ ours.phi(z).T
    assert 0.05 <= found.min() < 0.1 < 1.9 < found.max() <= 2.0
    order = scores.flatten().argsort()
    assert (found.flatten()[order].diff() <= 1e-12).all()


def test_a_pair_pays_least_for_the_temperature_two_over_the_width() -> None:
    eye, pay = torch.eye(2, dtype=torch.bool), []
    around = torch.linspace(0.1, 0.6, 51, dtype=torch.float64)
    for t in around:  # the negative stays at 1: only the positive's own price moves the loss
        temperatures = torch.where(eye, t, 1.0)
        cosines = torch.zeros(2, 2, dtype=torch.float64)
        pay.append(adaptive_temperature(cosines, temperatures, eye, ~eye, dim=8, weight=1.0))
    assert around[torch.stack(pay).argmin()].item() == pytest.approx(2 / 8)


def test_it_is_never_below_zero_and_zero_without_negatives() -> None:
    for seed in range(20):
        assert objective(2, 6)(*problem(d=6, seed=seed)) >= 0
    rows, columns, positive, _, _ = problem(n=5, m=5, d=6)
    loss = objective(2, 6)(rows, columns, positive, alone(5), alone(5))
    assert loss.item() == 0
    assert not any(g.any() for g in gradients(loss, rows, columns))


def test_autocast_leaves_the_logits_in_float32() -> None:
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours = objective(2, 8).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ours(z, z, torch.arange(16), together(16), together(16))
    assert loss.dtype == torch.float32
    assert loss == ours(z.float(), z.float(), torch.arange(16), together(16), together(16))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"heads": 3}, "heads=3, out_dim=128"),
        ({"lowest": 0.0}, r"lowest=0\.0"),
        ({"lowest": 3.0}, r"lowest=3\.0, highest=2\.0"),
        ({"weight": -1.0}, r"weight=-1\.0"),
    ],
)
def test_values_out_of_bounds_are_refused(values: dict[str, float], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        AdaptiveTemperature(**values)  # type: ignore[arg-type]


def test_another_width_of_z_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"objective\.out_dim=8: z has width 5"):
        objective(2, 8)(*problem(d=5))
