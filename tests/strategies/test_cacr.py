from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from overtone.contracts import Ids
from overtone.rng import generator
from overtone.strategies.cacr import attraction, repulsion


def _z(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(0, "cacr"))


def _ids(cell: list[int], identity: list[int] | None = None) -> Ids:
    return Ids(torch.tensor(cell), torch.tensor(identity or list(range(len(cell)))))


@pytest.mark.parametrize("sharpness", [0.0, 0.7, 3.0])
def test_attraction_is_the_loop_over_queries_and_their_other_views(sharpness: float) -> None:
    views = _z(4, 5, 3)
    total = []
    for x in range(4):
        for i in range(5):
            costs = torch.stack([(views[x, i] - views[m, i]).square().sum() for m in range(4) if m != x])
            total.append((torch.softmax(sharpness * costs, 0) * costs).sum())
    assert_close(attraction(views, sharpness), torch.stack(total).mean(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sharpness", [0.0, 0.9, 4.0])
def test_repulsion_is_the_loop_over_the_negatives_of_each_row(sharpness: float) -> None:
    rows, columns = _z(6, 3), _z(6, 3).flip(0)
    ids = _ids([0, 0, 0, 1, 1, 2], [0, 1, 1, 3, 4, 5])
    total = []
    for i in range(6):
        negatives = [j for j in range(6) if ids.cell[i] == ids.cell[j] and ids.identity[i] != ids.identity[j]]
        costs = torch.tensor([(rows[i] - columns[j]).square().sum() for j in negatives], dtype=rows.dtype)
        total.append((torch.softmax(-sharpness * costs, 0) * costs).sum())
    found = repulsion(rows, columns, ids, ids, sharpness)
    assert_close(found, torch.stack(total).mean(), rtol=1e-12, atol=1e-12)


def test_sharp_weights_leave_the_farthest_positive_and_the_nearest_negative() -> None:
    views, ids = _z(3, 4, 2), _ids([0] * 4)
    apart = torch.cdist(views[0], views[1]).square().fill_diagonal_(torch.inf)
    assert_close(repulsion(views[0], views[1], ids, ids, 1e4), apart.amin(1).mean())
    own = (views[:, None] - views[None]).square().sum(-1)
    assert_close(attraction(views, 1e4), own.amax(1).mean())


def test_the_gradient_of_the_weighted_cost_is_that_of_its_closed_form() -> None:
    costs = _z(5).abs().requires_grad_()
    t = 0.8
    (torch.softmax(t * costs, 0) * costs).sum().backward()  # type: ignore[no-untyped-call]
    weights = torch.softmax(t * costs.detach(), 0)
    expected = weights * (1 + t * (costs.detach() - (weights * costs.detach()).sum()))
    assert_close(costs.grad, expected, rtol=1e-12, atol=1e-12)


def test_alone_in_their_cells_nothing_repels_and_all_stays_finite() -> None:
    rows = _z(3, 2).requires_grad_()
    ids = _ids([0, 1, 2])
    loss = repulsion(rows, rows, ids, ids)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert rows.grad is not None
    assert not rows.grad.any()
