from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from overtone.contracts import Ids
from overtone.errors import RecipeError
from overtone.methods.queue import Queue
from overtone.objectives.many_positives import allowed
from overtone.rng import generator


def _keys(n: int, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=generator(0, "queue", n))


def _ids(*identity: int) -> Ids:
    """Of samples whose cell is their identity over ten."""
    return Ids(torch.tensor(identity) // 10, torch.tensor(identity))


@pytest.mark.parametrize("sizes", [[2, 2, 2], [5, 1, 3], [1] * 9, [3, 4], [11], [2, 13, 1]])
def test_it_holds_the_newest_keys_each_with_the_ids_of_its_sample(sizes: list[int]) -> None:
    queue = Queue(5, dim=3)
    keys = _keys(sum(sizes))
    begin = 0
    for n in sizes:
        rows = slice(begin, begin + n)
        queue.push(keys[rows], _ids(*range(begin, begin + n)))
        begin += n
        held = queue.held()
        newest = torch.arange(max(0, begin - 5), begin)
        order = held.ids.identity.argsort()
        assert torch.equal(held.ids.identity[order], newest)
        assert torch.equal(held.ids.cell[order], newest // 10)
        torch.testing.assert_close(held.keys[order], normalize(keys[newest], dim=1))


def test_a_key_of_the_anchors_own_identity_or_of_another_cell_is_no_negative() -> None:
    queue = Queue(4, dim=3)
    queue.push(_keys(4), _ids(10, 11, 12, 20))
    held, anchors = queue.held(), _ids(11, 20)
    may = allowed(anchors, held.ids, torch.zeros(2, 4, dtype=torch.bool))
    assert may.tolist() == [[True, False, True, False], [False] * 4]


def test_keys_carry_no_graph_and_what_was_held_stays_as_it_was() -> None:
    queue, keys = Queue(2, dim=3), _keys(2).requires_grad_()
    queue.push(keys * 2, _ids(0, 1))
    before = queue.held()
    row = torch.ones(3, requires_grad=True)
    product = (before.keys @ row).sum()
    queue.push(_keys(2), _ids(2, 3))  # between forward and backward
    product.backward()  # type: ignore[no-untyped-call]
    assert keys.grad is None
    assert not queue.held().keys.requires_grad
    torch.testing.assert_close(row.grad, normalize(keys.detach(), dim=1).sum(0))


def test_a_restored_queue_goes_on_as_the_one_that_was_saved() -> None:
    first, second = Queue(5, dim=3), Queue(5, dim=3)
    first.push(_keys(3), _ids(0, 1, 2))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    for queue in (first, second):
        queue.push(_keys(4), _ids(3, 4, 5, 6))
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_it_begins_empty() -> None:
    assert len(Queue(3, dim=2).held().keys) == 0


def test_no_place_for_a_key_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"method\.queue=0: expected the number of keys"):
        Queue(0, dim=2)
