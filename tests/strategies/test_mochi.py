from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import Flat
from torch import Tensor
from torch.nn.functional import normalize

from overtone.contracts import Batch, Ids
from overtone.errors import RecipeError
from overtone.methods import MoCo
from overtone.objectives import nt_xent
from overtone.objectives.many_positives import allowed
from overtone.objectives.mixing import hardest, mixed, mixed_with_rows
from overtone.rng import generator, seeded
from overtone.strategies.mochi import MoCHi, with_synthetic

B = 6
CELLS = [0, 0, 0, 1, 1, 2]


def _views(cell: list[int], turn: int = 0) -> list[Batch]:
    ids = {"cell": torch.tensor(cell), "identity": torch.arange(B) + B * turn}
    return [{"series": one, **ids} for one in torch.randn(2, B, 5, generator=generator(0, "mochi", turn))]


def _method(kind: type[MoCo] = MoCHi, **values: Any) -> MoCo:
    with seeded(0, "mochi"):
        return kind(Flat(), out_dim=4, norm="none", queue=20, **values)


def _second(method: MoCo, cell: list[int] | None = None) -> tuple[Tensor, Tensor]:
    """Loss and queries of a second step, whose draws are always the same."""
    cell = [0] * B if cell is None else cell
    with seeded(0, "draws"):
        method.step(_views(cell))
        return method.step(_views(cell, turn=1))


def _unit(*shape: int) -> Tensor:
    return normalize(torch.randn(*shape, generator=generator(0, "unit"), dtype=torch.float64), dim=-1)


def _drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Rows, keys, and which pairs are negatives; the first row has none, the second one alone."""
    rows, keys = _unit(5, 3), _unit(9, 3)
    negatives = torch.rand(5, 9, generator=generator(1)) < 0.6
    negatives[:2] = False
    negatives[1, 4] = True
    return rows, keys, negatives


def test_the_hardest_are_the_allowed_ones_in_the_order_of_their_similarity() -> None:
    rows, keys, negatives = _drawn()
    similarities = rows @ keys.T
    columns, count = hardest(similarities, negatives, 4)
    for i in range(5):
        sorted_ = sorted((j for j in range(9) if negatives[i, j]), key=lambda j: -float(similarities[i, j]))
        assert columns[i, : int(count[i])].tolist() == sorted_[:4]
    assert count.tolist()[:2] == [0, 1]


def test_a_mixture_of_two_lies_on_the_arc_between_two_of_the_rows_hardest() -> None:
    rows, keys, negatives = _drawn()
    columns, count = hardest(rows @ keys.T, negatives, 4)
    found = mixed(keys, columns, count, 30, generator(0))
    torch.testing.assert_close(found.norm(dim=2)[1:], torch.ones(4, 30, dtype=torch.float64))
    torch.testing.assert_close(found[1], keys[4].expand(30, 3))  # there is but one to draw
    for i in range(2, 5):
        hard = keys[columns[i, : int(count[i])]]
        angles = torch.acos((hard @ hard.T).clamp(-1, 1))
        for h in found[i]:
            to = torch.acos((hard @ h).clamp(-1, 1))
            detour = to[:, None] + to[None] - angles
            assert detour.min() < 1e-6


def test_a_mixture_with_the_row_is_harder_than_what_it_is_made_of_and_not_the_row() -> None:
    rows, keys, negatives = _drawn()
    columns, count = hardest(rows @ keys.T, negatives, 1)
    found = mixed_with_rows(rows, keys, columns, count, 30, generator(0))
    torch.testing.assert_close(found.norm(dim=2)[1:], torch.ones(4, 30, dtype=torch.float64))
    for i in range(1, 5):
        before, after = rows[i] @ keys[columns[i, 0]], found[i] @ rows[i]
        # The least share leaves the negative, a half halves the angle.
        most = torch.cos(torch.acos(before) / 2)
        assert (after > before).all()
        assert (after < most).all()


def test_what_is_drawn_belongs_to_the_state_of_the_stream() -> None:
    rows, keys, negatives = _drawn()
    columns, count = hardest(rows @ keys.T, negatives, 4)
    first, again, other = (mixed(keys, columns, count, 3, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first[2:], other[2:])


def test_the_loss_is_the_loop_over_shared_and_own_negatives() -> None:
    rows, keys, negatives = _drawn()
    negatives[:, 7] = False
    made = _unit(5, 2, 3)
    similarities, to_made = rows @ keys.T, (rows[:, None] * made).sum(2)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(5):
        below = [similarities[i, j] for j in range(9) if negatives[i, j]]
        below += list(to_made[i]) if below else []
        own = (similarities[i, 7] / 0.3).exp()
        total = total - torch.log(own / (own + sum((s / 0.3).exp() for s in below)))
    found = with_synthetic(similarities, to_made, torch.full((5,), 7), negatives, 0.3)
    torch.testing.assert_close(found, total / 5, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cells", [[0] * 5, [0, 0, 1, 1, 2]])
def test_without_synthetic_negatives_it_is_nt_xent(cells: list[int]) -> None:
    z, own = _unit(5, 3), torch.arange(5)
    ids = Ids(torch.tensor(cells), torch.arange(5))
    negatives = allowed(ids, ids, torch.eye(5, dtype=torch.bool))
    found = with_synthetic(z @ z.flip(1).T, z.new_empty(5, 0), own, negatives, 0.3)
    torch.testing.assert_close(found, nt_xent(z, z.flip(1), own, ids, ids, 0.3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", [[0] * B, CELLS])
def test_without_mixing_it_is_moco_and_with_it_the_loss_is_larger(cell: list[int]) -> None:
    plain, _ = _second(_method(MoCo), cell)
    torch.testing.assert_close(_second(_method(pairs=0, with_query=0), cell)[0], plain)
    halves: list[dict[str, Any]] = [{"with_query": 0}, {"pairs": 0}]
    for more in halves:
        assert _second(_method(**more), cell)[0] > plain


def test_mixing_begins_after_the_warm_up() -> None:
    method = _method(warmup_epochs=2)
    found = {}
    for step in (0, 7, 8):
        method.begin_step(step, steps_per_epoch=4, steps=40)
        found[step] = _second(method)[0]
        method.queue.pushed.zero_()
    assert found[0] == found[7]
    assert found[8] > found[7]


def test_gradients_are_those_of_a_loss_whose_synthetic_negatives_are_constants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gradients() -> list[Tensor]:
        method = _method()
        _second(method)[0].backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is None for p in method.teacher.parameters())
        return [p.grad for p in method.parameters() if p.grad is not None]

    found, make = gradients(), MoCHi.synthetic

    def constants(self: MoCHi, rows: Tensor, columns: Tensor, *others: Tensor) -> Tensor:
        return make(self, rows, columns, *others).detach()

    monkeypatch.setattr(MoCHi, "synthetic", constants)
    assert found
    for one, other in zip(found, gradients(), strict=True):
        torch.testing.assert_close(one, other)


def test_in_a_cell_of_its_own_everything_stays_finite() -> None:
    method = _method()
    loss, _ = _second(method, list(range(B)))  # a cell for each sample; their older keys are of other samples
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    lonely = _method()
    loss, _ = lonely.step(_views(list(range(B))))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert not any(p.grad.any() for p in lonely.parameters() if p.grad is not None)


@pytest.mark.parametrize("field", ["hard", "pairs", "with_query", "warmup_epochs"])
def test_values_out_of_bounds_are_refused(field: str) -> None:
    values: dict[str, Any] = {field: -1}
    with pytest.raises(RecipeError, match=f"method.{field}=-1: expected"):
        _method(**values)
