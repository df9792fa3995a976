from __future__ import annotations

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import Problem, gradients, problem, problems, together
from torch import Tensor
from torch.nn.functional import normalize

from overtone.contracts import Ids, Objective
from overtone.objectives import IFM, HardNegatives, NTXent, logits, nt_xent, nt_xent_both_ways


@settings(max_examples=30, deadline=None, derandomize=True)
@given(problems(), st.sampled_from([0.0, 1.0, 3.0]))
def test_the_others_are_summed_over_the_allowed_negatives_and_no_more(
    batch: Problem, sharpness: float
) -> None:
    rows, columns, positive, row_ids, column_ids = batch
    own, others = logits.own_and_others(*batch, 0.5, sharpness)
    dense = normalize(rows) @ normalize(columns).T * sharpness / 0.5
    torch.testing.assert_close(own, dense[torch.arange(len(rows)), positive])
    allowed = oracles.allowed_negatives(positive, row_ids, column_ids)
    torch.testing.assert_close(others.exp(), (dense.exp() * allowed).sum(dim=1))


@pytest.mark.parametrize("objective", [NTXent(), IFM(), HardNegatives()])
def test_nothing_of_the_size_of_all_pairs_is_kept_for_backward(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logits, "_SIDE", 32)
    kept: list[int] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    z = torch.randn(512, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        objective(z, z, torch.arange(512), together(512), together(512))
    assert sum(kept) < 512 * 512 / 4


@pytest.mark.parametrize("objective", [IFM(0.3), HardNegatives(0.3)])
def test_tiles_change_neither_value_nor_gradient(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[Tensor, Tensor]:
        batch = problem()
        loss = objective(*batch)
        return loss.detach(), torch.autograd.grad(loss, batch[0])[0]

    whole = found()
    monkeypatch.setattr(logits, "_SIDE", 3)
    torch.testing.assert_close(found(), whole, rtol=0, atol=1e-14)


def dense_sums(
    z: Tensor, w: Tensor, positive: Tensor, row_ids: Ids, column_ids: Ids, temperature: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Every logit at once, in the precision of the input."""
    cosines = normalize(z) @ normalize(w).T / temperature
    allowed = (row_ids.cell[:, None] == column_ids.cell) & (row_ids.identity[:, None] != column_ids.identity)
    allowed[torch.arange(len(z)), positive] = False
    own = cosines[torch.arange(len(z)), positive]
    return own, cosines.masked_fill(~allowed, -torch.inf).logsumexp(dim=1)


def equal_with_gradients(found: Tensor, dense: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(found, dense, rtol=0, atol=1e-12)
    for a, b in zip(gradients(found, *inputs), gradients(dense, *inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def softplus_mean(own: Tensor, others: Tensor) -> Tensor:
    return (torch.logaddexp(own, others) - own).mean()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 9), st.sampled_from([1, 2, 3, 512]), st.data())
def test_rows_that_are_also_the_columns_are_each_summed_as_densely(
    n: int, cells: int, identities: int, side: int, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 999))
    z, _, _, ids, _ = problem(2 * n, 1, cells=cells, identities=identities, seed=seed)
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    partner = data.draw(st.sampled_from([torch.arange(2 * n).roll(n), torch.arange(2 * n).roll(1)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logits, "_SIDE", side)
        found = nt_xent(z, z, partner, ids, ids, t)
        equal_with_gradients(found, softplus_mean(*dense_sums(z, z, partner, ids, ids, t)), z, t)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 9), st.sampled_from([1, 2, 3, 512]))
def test_both_ways_are_the_mean_of_one_way_and_the_other(
    n: int, cells: int, identities: int, side: int
) -> None:
    z, w, _, ids, _ = problem(n, n, cells=cells, identities=identities, seed=n)
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    own = torch.arange(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logits, "_SIDE", side)
        found = nt_xent_both_ways(z, w, ids, t)
        one, other = (softplus_mean(*dense_sums(a, b, own, ids, ids, t)) for a, b in ((z, w), (w, z)))
        equal_with_gradients(found, (one + other) / 2, z, w, t)


@pytest.mark.parametrize("temperature", [0.2, 0.01])
def test_float32_gradients_at_4096_are_those_of_float64_without_tiles(temperature: float) -> None:
    z = torch.randn(4096, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ids, partner = Ids(torch.zeros(4096).long(), torch.arange(4096) % 2048), torch.arange(4096).roll(2048)
    found = gradients(nt_xent(z, z, partner, ids, ids, temperature), z)[0].double()
    exact = z.detach().double().requires_grad_()
    dense = softplus_mean(*dense_sums(exact, exact, partner, ids, ids, temperature))
    error = found - gradients(dense, exact)[0]
    bound = 1e-6 if temperature == 0.2 else 1e-5  # the logits themselves are rounded, 1e-7 of 100
    assert error.norm() < bound * found.norm()
    again = gradients(nt_xent(z, z, partner, ids, ids, temperature), z)[0].double()
    assert torch.equal(again, found)


def test_products_are_computed_where_cells_meet_and_once_for_a_tile_and_its_mirror_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logits, "_SIDE", 10)
    z, order = torch.randn(100, 2), torch.randperm(100, generator=torch.Generator().manual_seed(0))

    def found(cell: Tensor, half: bool) -> int:
        ids = Ids(cell[order], torch.arange(100))
        rows, columns, pairs = logits.arranged(torch.arange(100), ids, ids)
        return sum(tile.logits.numel() for tile in logits.tiles(z[rows], z[columns], pairs, half))

    assert found(torch.zeros(100), half=False) == 100 * 100
    assert found(torch.zeros(100), half=True) == (100 * 100 + 100 * 10) / 2
    assert found(torch.arange(100) // 10, half=False) == 10 * 10 * 10
    assert found(torch.arange(100) // 50, half=False) == 2 * 50 * 50
