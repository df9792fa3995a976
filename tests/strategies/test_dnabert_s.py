from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, normalize
from torch.testing import assert_close

from overtone.contracts import Address, Batch, Ids
from overtone.datasets import genomes
from overtone.encoders import SequenceTransformer, SeriesEncoder
from overtone.encoders.sequences import words_of
from overtone.errors import RecipeError
from overtone.objectives import nt_xent
from overtone.objectives.many_positives import allowed
from overtone.rng import generator, seeded
from overtone.strategies import DNABERTS
from overtone.strategies.dnabert_s import hardness, mixed_nce, partners
from overtone.views import FragmentViews

CELLS = [0, 0, 0, 1, 1, 2]


def _logits(n: int = 6, name: str = "logits") -> Tensor:
    return 3 * torch.randn(n, n, dtype=torch.float64, generator=generator(0, "dnabert_s", name))


def _share(n: int = 6) -> Tensor:
    return 0.5 + torch.rand(n, dtype=torch.float64, generator=generator(0, "share")) / 2


def _negatives(cells: list[int]) -> Tensor:
    ids = Ids(torch.tensor(cells), torch.arange(len(cells)))
    return allowed(ids, ids, torch.zeros(len(cells), len(cells), dtype=torch.bool))


def _by_loops(logits: Tensor, partner: list[int], share: Tensor, cells: list[int]) -> float:
    s, total, n = logits.exp().tolist(), 0.0, len(cells)
    for i in range(n):
        others = [s[i][j] for j in range(n) if j != i and cells[j] == cells[i]]
        mean = sum(others) / len(others) if others else 1.0
        repelling = sum(one / mean * one for one in others)
        for column, weight in ((i, float(share[i])), (partner[i], 1 - float(share[i]))):
            total -= weight * math.log(s[i][column] / (s[i][i] + repelling))
    return total / n


@pytest.mark.parametrize("cells", [[0] * 6, CELLS])
def test_the_loss_of_mixed_anchors_is_the_loop_over_rows_and_both_of_their_parts(cells: list[int]) -> None:
    logits, share, own = _logits(), _share(), torch.arange(6)
    partner = partners(torch.tensor(cells), generator(0, "partner"))
    found = mixed_nce(logits, own, partner, share, _negatives(cells))
    assert_close(float(found), _by_loops(logits, partner.tolist(), share, cells), rtol=1e-12, atol=1e-12)


def test_an_anchor_that_is_all_its_own_gives_weighted_nce_and_its_own_partner_any_share() -> None:
    logits, own, negatives = _logits(), torch.arange(6), _negatives(CELLS)
    whole = mixed_nce(logits, own, own.roll(1), torch.ones(6), negatives)
    assert_close(whole, mixed_nce(logits, own, own, _share(), negatives), rtol=1e-12, atol=1e-12)
    s = logits.exp()
    squares, sums = (s.square() * negatives).sum(1), (s * negatives).sum(1)
    repelling = squares / sums * negatives.sum(1)  # sum of s^2 / mean of s
    repelling = torch.where(negatives.any(1), repelling, 0)
    assert_close(whole, (s.diag() + repelling).log().mean() - logits.diag().mean(), rtol=1e-12, atol=1e-12)


def test_negatives_that_are_all_alike_leave_nt_xent() -> None:
    n = 5
    z = torch.eye(n, dtype=torch.float64)
    ids = Ids(torch.zeros(n), torch.arange(n))
    own, ones = torch.arange(n), torch.ones(n, dtype=torch.float64)
    found = mixed_nce(z / 0.5, own, own, ones, _negatives([0] * n))
    assert_close(found, nt_xent(z, z, own, ids, ids, 0.5), rtol=1e-12, atol=1e-12)


def test_weights_are_1_on_average_and_more_for_the_hardest() -> None:
    logits, negatives = _logits(), _negatives(CELLS)
    weights = hardness(logits, negatives).exp()
    for row, (own, mask) in enumerate(zip(weights, negatives, strict=True)):
        if mask.any():
            assert_close(own[mask].mean(), torch.ones((), dtype=own.dtype), rtol=1e-12, atol=1e-12)
            assert own[mask].max() >= 1
            assert own[mask].argmax() == logits[row][mask].argmax()


def test_the_partner_is_among_the_negatives_so_no_part_of_a_loss_is_negative() -> None:
    logits, own, ones = _logits(), torch.arange(6), torch.zeros(6, dtype=torch.float64)
    for name in map(str, range(20)):
        partner = partners(torch.tensor([0] * 6), generator(0, "partner", name))
        only = mixed_nce(
            logits, own, torch.where(partner == own, own.roll(1), partner), ones, _negatives([0] * 6)
        )
        assert only > 0


def test_partners_permute_every_cell_by_itself_at_random() -> None:
    cell = torch.tensor([3, 0, 3, 0, 3, 1])
    draws = generator(0, "partners")
    found = torch.stack([partners(cell, draws) for _ in range(600)])
    assert torch.equal(found.sort(1).values, torch.arange(6).expand(600, 6))
    assert (cell[found] == cell).all()
    shares = [(found[:, 0] == place).float().mean().item() for place in (0, 2, 4)]
    assert all(abs(share - 1 / 3) < 0.08 for share in shares)


def test_alone_in_their_cells_nothing_repels_and_the_loss_is_0_and_finite() -> None:
    logits, own = _logits().requires_grad_(), torch.arange(6)
    loss = mixed_nce(logits, own, own, _share(), _negatives(list(range(6))))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def _views(cells: list[int]) -> list[Batch]:
    dataset, n = genomes(len(cells), length=60), len(cells)
    ids = {"cell": torch.tensor(cells), "identity": torch.arange(n)}
    batch = {**dataset.collate([dataset[i] for i in range(n)]), **ids}
    return FragmentViews(length=25)(batch, Address(0, 0, 0))


def _made(**arguments: float) -> DNABERTS:
    with seeded(0, "dnabert_s"):
        return DNABERTS(SequenceTransformer(dim=16, heads=2, k=2), out_dim=8, **arguments)


def test_the_phases_part_after_a_third_of_the_steps_however_few_the_epochs() -> None:
    for steps in (1, 2, 3, 10, 30):
        method, mixing = _made(), []
        for step in range(steps):
            method.begin_step(step, 1, steps)
            mixing.append(method.mixing)
        assert mixing == [step >= steps / 3 for step in range(steps)]


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("cells", [[0] * 6, CELLS, list(range(6))])
def test_both_phases_train_every_weight_and_stay_finite(mixing: bool, cells: list[int]) -> None:
    method = _made()
    method.mixing = mixing
    with seeded(0, "step"):
        loss, z = method.step(_views(cells))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert z.shape == (12, 8)
    gradients = [p.grad for p in method.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    if cells != list(range(6)):
        assert all(g is not None and g.any() for g in gradients)


def test_the_warm_phase_is_the_loss_of_both_views_against_all_others() -> None:
    method, views = _made(temperature=0.5), _views(CELLS)
    loss, z = method.step(views)
    z = torch.nn.functional.normalize(z.double(), dim=1)
    s, total = (z @ z.T / 0.5).exp().tolist(), 0.0
    for i in range(12):
        own = (i + 6) % 12
        others = [s[i][j] for j in range(12) if j % 6 != i % 6 and CELLS[j % 6] == CELLS[i % 6]]
        repelling = sum(one**2 for one in others) / (sum(others) / len(others)) if others else 0.0
        total -= math.log(s[i][own] / (s[i][own] + repelling)) / 12
    assert_close(float(loss.detach()), total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("draw", range(3))
def test_the_mixing_phase_compares_mixed_first_fragments_with_second_ones(draw: int) -> None:
    method, (first, second) = _made(temperature=0.5), _views(CELLS)
    with seeded(draw, "step"):
        partner = partners(torch.tensor(CELLS), torch.default_generator)
        share = torch.rand(6)
        layer = int(torch.randint(2, ()))
    share, encoder = torch.maximum(share, 1 - share), method.encoder
    assert isinstance(encoder, SequenceTransformer)
    tokens = encoder.words(words_of(first["sequence"], *encoder.sizes))
    tokens = avg_pool1d(tokens.mT, encoder.places, ceil_mode=True).mT
    for number, block in enumerate(encoder.layers):
        if number == layer:
            tokens = torch.stack(
                [share[i] * tokens[i] + (1 - share[i]) * tokens[partner[i]] for i in range(6)]
            )
        tokens = block(tokens)
    z, other = method.projection_head(encoder.norm(tokens).mean(1)), method.projection_head(encoder(second))
    logits = normalize(z.double(), dim=1) @ normalize(other.double(), dim=1).T / 0.5
    method.mixing = True
    with seeded(draw, "step"):
        loss, found = method.step([first, second])
    assert_close(found, torch.cat([z, other]))
    assert_close(
        float(loss.detach()), _by_loops(logits, partner.tolist(), share, CELLS), rtol=1e-5, atol=1e-6
    )


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(RecipeError, match=r"encoder\.name=sequence_transformer"):
        DNABERTS(SeriesEncoder(1))
    with pytest.raises(RecipeError, match=r"method\.warm=2"):
        _made(warm=2.0)
    with pytest.raises(RecipeError, match=r"method\.temperature=0"):
        _made(temperature=0.0)
    with pytest.raises(RecipeError, match="dnabert_s takes 2"):
        _made().step(_views(CELLS)[:1])
