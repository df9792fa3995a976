from __future__ import annotations

import pytest
import torch
from pairs import alone, gradients, problem, together
from torch import Tensor

from overtone.contracts import Ids
from overtone.objectives import nt_xent
from overtone.objectives.many_positives import Denominator, allowed, cosines, many_positives
from overtone.rng import generator

DENOMINATORS: tuple[Denominator, ...] = ("own", "all")


def _drawn(n: int = 6, m: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, positives, negatives, weights; the first row has no positive, the second no negative."""
    draw = generator(seed, "many positives")
    logits = 3 * torch.randn(n, m, dtype=torch.float64, generator=draw)
    positives = torch.rand(n, m, generator=draw) < 0.3
    negatives = (torch.rand(n, m, generator=draw) < 0.6) & ~positives
    positives[0], negatives[1] = False, False
    positives[1, :2] = True
    return (
        logits.requires_grad_(),
        positives,
        negatives,
        torch.rand(n, m, dtype=torch.float64, generator=draw),
    )


def _loops(
    logits: Tensor,
    positives: Tensor,
    negatives: Tensor,
    denominator: Denominator,
    weights: Tensor,
    shares: Tensor,
) -> Tensor:
    n, m = logits.shape
    total = torch.zeros((), dtype=logits.dtype)
    for i in range(n):
        own = [p for p in range(m) if positives[i, p]]
        repelling = sum((weights[i, j] * logits[i, j].exp() for j in range(m) if negatives[i, j]), start=0.0)
        for p in own:
            pulling = [p] if denominator == "own" else own
            below = sum((logits[i, q].exp() for q in pulling), start=repelling)
            share = shares[i, p] / sum(shares[i, q] for q in own)
            total = total - share * torch.log(logits[i, p].exp() / below)
    return total / n


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("seed", range(4))
def test_value_and_gradient_are_those_of_the_loops(denominator: Denominator, seed: int) -> None:
    logits, positives, negatives, weights = _drawn(seed=seed)
    shares = weights.flip(0) + 0.1
    found = many_positives(
        logits,
        positives,
        negatives,
        denominator=denominator,
        log_weights=weights.log(),
        positive_weights=shares,
    )
    loops = _loops(logits, positives, negatives, denominator, weights, shares)
    torch.testing.assert_close(found, loops, rtol=0, atol=1e-12)
    torch.testing.assert_close(*(gradients(loss, logits)[0] for loss in (found, loops)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_without_weights_all_count_alike(denominator: Denominator) -> None:
    logits, positives, negatives, _ = _drawn()
    ones = torch.ones_like(logits)
    found = many_positives(logits, positives, negatives, denominator=denominator)
    torch.testing.assert_close(found, _loops(logits, positives, negatives, denominator, ones, ones))


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("cells", [1, 3])
def test_with_one_positive_a_row_it_is_nt_xent(denominator: Denominator, cells: int) -> None:
    rows, columns, positive, row_ids, column_ids = problem(cells=cells)
    one = torch.zeros(len(rows), len(columns), dtype=torch.bool).scatter(1, positive[:, None], True)
    negatives = allowed(row_ids, column_ids, one)
    found = many_positives(cosines(rows, columns) / 0.3, one, negatives, denominator=denominator)
    expected = nt_xent(rows, columns, positive, row_ids, column_ids, 0.3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for a, b in zip(gradients(found, rows, columns), gradients(expected, rows, columns), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_rows_without_positives_are_zero_and_take_no_gradient(denominator: Denominator) -> None:
    logits = torch.randn(3, 4, generator=generator(0), requires_grad=True)
    no = torch.zeros(3, 4, dtype=torch.bool)
    for negatives in (no, ~no):
        loss = many_positives(logits, no, negatives, denominator=denominator)
        assert loss.item() == 0
        assert not gradients(loss, logits)[0].any()


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_rows_without_negatives_are_zero_and_their_gradient_is_finite(scale: float) -> None:
    logits = (scale * torch.randn(3, 4, generator=generator(0))).requires_grad_()
    positives = torch.zeros(3, 4, dtype=torch.bool)
    positives[:, 1] = True
    for denominator in DENOMINATORS:
        loss = many_positives(logits, positives, torch.zeros_like(positives), denominator=denominator)
        assert loss.item() == 0
        assert not gradients(loss, logits)[0].any()
    several = positives.clone()
    several[:, 2] = True
    loss = many_positives(logits, several, torch.zeros_like(several), denominator="all")
    assert loss > 0
    assert gradients(loss, logits)[0].isfinite().all()


def test_one_cell_for_all_is_the_plain_form_and_cells_of_one_have_no_negatives() -> None:
    no = torch.zeros(4, 4, dtype=torch.bool)
    assert torch.equal(allowed(together(4), together(4), no), ~torch.eye(4, dtype=torch.bool))
    assert not allowed(alone(4), alone(4), no).any()
    twins = Ids(torch.zeros(2), torch.zeros(2))
    assert not allowed(twins, twins, no[:2, :2]).any()


def test_autocast_leaves_similarities_and_loss_in_float32() -> None:
    z = torch.randn(6, 4, generator=generator(0)).bfloat16()
    eye = torch.eye(6, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = many_positives(cosines(z, z) / 0.1, eye, ~eye)
    assert loss.dtype == torch.float32
    assert loss == many_positives(cosines(z.float(), z.float()) / 0.1, eye, ~eye)
