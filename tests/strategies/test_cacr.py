from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from overtone.contracts import Ids
from overtone.rng import generator
from overtone.strategies.cacr import CACR, attraction, repulsion


def _z(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(0, "cacr"))


def _ids(cell: list[int], identity: list[int] | None = None) -> Ids:
    return Ids(torch.tensor(cell), torch.tensor(identity or list(range(len(cell)))))


@pytest.mark.parametrize("sharpness", [0.0, 0.7, 3.0])
def _attracted(views: Tensor, sharpness: float) -> Tensor:
    """Over queries and their other views."""
    total = []
    for x in range(len(views)):
        for i in range(len(views[x])):
            others = [m for m in range(len(views)) if m != x]
            costs = torch.stack([(views[x, i] - views[m, i]).square().sum() for m in others])
            total.append((torch.softmax(sharpness * costs, 0) * costs).sum())
    return torch.stack(total).mean()


def _repelled(rows: Tensor, columns: Tensor, ids: Ids, sharpness: float) -> Tensor:
    """Over the negatives of each row."""
    total, n = [], len(rows)
    for i in range(n):
        negatives = [j for j in range(n) if ids.cell[i] == ids.cell[j] and ids.identity[i] != ids.identity[j]]
        costs = [(rows[i] - columns[j]).square().sum() for j in negatives]
        each = torch.stack(costs) if costs else rows.new_zeros(1)
        total.append((torch.softmax(-sharpness * each, 0) * each).sum())
    return torch.stack(total).mean()


def _gradient(loss: Tensor, of: Tensor) -> Tensor:
    found: Tensor = torch.autograd.grad(loss, of)[0]
    return found


@pytest.mark.parametrize("sharpness", [0.0, 0.7, 3.0])
def test_attraction_and_its_gradient_are_those_of_the_loop(sharpness: float) -> None:
    views = _z(4, 5, 3).requires_grad_()
    found, expected = attraction(views, sharpness), _attracted(views, sharpness)
    assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert_close(_gradient(found, views), _gradient(expected, views), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sharpness", [0.0, 0.9, 4.0])
def test_repulsion_and_its_gradient_are_those_of_the_loop(sharpness: float) -> None:
    rows, columns = _z(6, 3).requires_grad_(), _z(6, 3).flip(0)
    ids = _ids([0, 0, 0, 1, 1, 2], [0, 1, 1, 3, 4, 5])
    found, expected = repulsion(rows, columns, ids, ids, sharpness), _repelled(rows, columns, ids, sharpness)
    assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert_close(_gradient(found, rows), _gradient(expected, rows), rtol=1e-12, atol=1e-12)


def test_the_loss_is_the_weighted_attraction_less_the_weighted_mean_repulsion_of_all_pairs_of_views() -> None:
    method = CACR(tiny.Flat(), attract=0.7, repel=1.3, alpha=2.0, beta=3.0, norm="none")
    z, ids = list(normalize(_z(3, 6, 4), dim=-1)), _ids([0, 0, 0, 1, 1, 2], [0, 1, 1, 3, 4, 5])
    pushes = [_repelled(z[x], z[y], ids, 1.3) for x, y in ((0, 1), (0, 2), (1, 2))]
    expected = 2 * _attracted(torch.stack(z), 0.7) - 3 * torch.stack(pushes).mean()
    views = [{"cell": ids.cell, "identity": ids.identity}] * 3
    assert_close(method.contrast(z, views), expected, rtol=1e-12, atol=1e-12)


def test_sharp_weights_leave_the_farthest_positive_and_the_nearest_negative() -> None:
    views, ids = _z(3, 4, 2), _ids([0] * 4)
    apart = torch.cdist(views[0], views[1]).square().fill_diagonal_(torch.inf)
    assert_close(repulsion(views[0], views[1], ids, ids, 1e4), apart.amin(1).mean())
    own = (views[:, None] - views[None]).square().sum(-1)
    assert_close(attraction(views, 1e4), own.amax(1).mean())


def test_alone_in_their_cells_nothing_repels_and_all_stays_finite() -> None:
    rows = _z(3, 2).requires_grad_()
    ids = _ids([0, 1, 2])
    loss = repulsion(rows, rows, ids, ids)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert rows.grad is not None
    assert not rows.grad.any()
