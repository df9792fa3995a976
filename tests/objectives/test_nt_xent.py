from __future__ import annotations

import math

import oracles
import pytest
import torch
from pairs import alone, gradients, problem, together
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from overtone.contracts import Ids
from overtone.errors import RecipeError
from overtone.objectives import NTXent, contrastive_accuracy, logits, nt_xent


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cells", [1, 3, 13])
def test_value_and_gradients_equal_the_formula_written_as_loops(seed: int, cells: int) -> None:
    rows, columns, positive, row_ids, column_ids = problem(cells=cells, seed=seed)
    ours = nt_xent(rows, columns, positive, row_ids, column_ids, 0.3)
    loops = oracles.nt_xent(rows, columns, positive, row_ids, column_ids, 0.3)
    torch.testing.assert_close(ours, loops, rtol=0, atol=1e-12)
    for a, b in zip(gradients(ours, rows, columns), gradients(loops, rows, columns), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_with_one_cell_it_is_simclr_as_cross_entropy_over_both_views() -> None:
    n = 8
    z = torch.randn(2 * n, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = Ids(torch.zeros(2 * n, dtype=torch.int64), torch.arange(2 * n) % n)
    partner = (torch.arange(2 * n) + n) % (2 * n)
    cosines = normalize(z) @ normalize(z).T
    simclr = cross_entropy(cosines.fill_diagonal_(-torch.inf) / 0.1, partner)
    torch.testing.assert_close(nt_xent(z, z, partner, ids, ids, 0.1), simclr)


def test_rows_without_negatives_are_exactly_zero_and_count_in_the_divisor() -> None:
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    pair, index = Ids(torch.tensor([0, 0, 1, 2]), torch.arange(4)), torch.arange(4)
    two = nt_xent(z[:2], z[:2], index[:2], together(2), together(2))
    torch.testing.assert_close(nt_xent(z, z, index, pair, pair), two / 2)


def test_all_cells_distinct_give_loss_zero_and_no_gradient() -> None:
    rows = torch.randn(5, 3, requires_grad=True)
    columns = torch.randn(5, 3, requires_grad=True)
    loss = nt_xent(rows, columns, torch.arange(5), alone(5), alone(5))
    assert loss.item() == 0
    assert all(not g.any() for g in gradients(loss, rows, columns))


def test_equal_identities_are_never_pushed_apart() -> None:
    rows, columns = torch.eye(2), torch.eye(2, requires_grad=True)
    twins = Ids(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    assert nt_xent(rows, columns, torch.arange(2), twins, twins).item() == 0


@pytest.mark.parametrize("seed", range(5))
def test_removing_negatives_never_raises_the_loss(seed: int) -> None:
    rows, columns, positive, row_ids, column_ids = problem(cells=2, seed=seed)
    last = nt_xent(rows, columns, positive, row_ids, column_ids)
    for j in range(len(columns)):
        column_ids.cell[j] = 100 + j
        loss = nt_xent(rows, columns, positive, row_ids, column_ids)
        assert loss <= last + 1e-12
        last = loss
    assert last == 0


@pytest.mark.parametrize("side", [1, 3, 10])
def test_tiles_change_neither_value_nor_gradients(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns, positive, row_ids, column_ids = problem()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    inputs = (rows, columns, temperature)

    def loss() -> Tensor:
        return nt_xent(rows, columns, positive, row_ids, column_ids, temperature)

    whole, whole_accuracy = loss(), contrastive_accuracy(*problem())
    monkeypatch.setattr(logits, "_SIDE", side)
    tiled = loss()
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-14)
    for a, b in zip(gradients(tiled, *inputs), gradients(whole, *inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
    assert contrastive_accuracy(*problem()) == whole_accuracy


def test_gradcheck_holds_for_rows_columns_and_temperature() -> None:
    rows, columns, positive, row_ids, column_ids = problem(n=4, m=6)
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def loss(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        return nt_xent(a, b, positive, row_ids, column_ids, t)

    assert torch.autograd.gradcheck(loss, (rows, columns, temperature))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e30])
def test_it_stays_finite_and_scale_free_at_temperature_one_hundredth(scale: float) -> None:
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    scaled = (z * scale).requires_grad_()
    loss = nt_xent(scaled, -scaled, torch.arange(6), together(6), together(6), 0.01)
    torch.testing.assert_close(loss, nt_xent(z, -z, torch.arange(6), together(6), together(6), 0.01))
    assert gradients(loss, scaled)[0].isfinite().all()


def test_autocast_leaves_the_logits_in_float32() -> None:
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(z, z, torch.arange(16), together(16), together(16), 0.05)
    full = nt_xent(z.float(), z.float(), torch.arange(16), together(16), together(16), 0.05)
    assert loss.dtype == torch.float32
    assert loss == full


def test_contrastive_accuracy_is_the_share_of_rows_whose_positive_beats_its_negatives() -> None:
    rows, columns, positive, row_ids, column_ids = problem(n=40, m=30)
    similarity = normalize(rows) @ normalize(columns).T
    allowed = oracles.allowed_negatives(positive, row_ids, column_ids)
    beaten = [
        all(similarity[i, positive[i]] > similarity[i, j] for j in range(30) if allowed[i, j])
        for i in range(40)
        if allowed[i].any()
    ]
    assert contrastive_accuracy(rows, columns, positive, row_ids, column_ids).item() == pytest.approx(
        sum(beaten) / len(beaten)
    )


def test_contrastive_accuracy_of_collapsed_embeddings_is_zero() -> None:
    z = torch.full((7, 3), 0.3)
    assert contrastive_accuracy(z, z, torch.arange(7), together(7), together(7)) == 0


def test_contrastive_accuracy_of_rows_without_negatives_is_nan() -> None:
    z = torch.eye(3)
    assert contrastive_accuracy(z, z, torch.arange(3), alone(3), alone(3)).isnan()


@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan, math.inf])
def test_a_temperature_that_is_no_positive_number_is_refused(temperature: float) -> None:
    with pytest.raises(RecipeError, match=f"temperature={temperature}"):
        NTXent(temperature)
    z = torch.eye(2)
    with pytest.raises(RecipeError, match="expected a finite number > 0"):
        nt_xent(z, z, torch.arange(2), together(2), together(2), temperature)


def test_the_class_is_the_function_at_its_temperature() -> None:
    arguments = problem()
    assert NTXent(0.07)(*arguments) == nt_xent(*arguments, 0.07)
