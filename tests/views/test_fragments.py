from __future__ import annotations

import pytest
import torch

from overtone.contracts import Address, Batch
from overtone.errors import DataError, RecipeError
from overtone.views import FragmentViews

HERE = Address(seed=0, stage=1, step=7)


def _batch(n: int = 400, length: int = 20) -> Batch:
    return {"index": torch.arange(n), "sequence": torch.arange(length).expand(n, length)}


def test_fragments_are_whole_stretches_that_share_no_place_in_either_order() -> None:
    one, two = (view["sequence"] for view in FragmentViews(length=7)(_batch(), HERE))
    for view in (one, two):
        assert (view.diff(dim=1) == 1).all()
        assert set(view[:, 0].tolist()) == set(range(14))  # every place that leaves room comes
    assert ((one[:, 0] - two[:, 0]).abs() >= 7).all()
    assert 0.4 < (one[:, 0] < two[:, 0]).float().mean() < 0.6


def test_a_samples_fragments_do_not_depend_on_its_batch() -> None:
    views, batch = FragmentViews(length=7), _batch()
    part = {key: value[30:40] for key, value in batch.items()}
    for whole, few in zip(views(batch, HERE), views(part, HERE), strict=True):
        assert torch.equal(whole["sequence"][30:40], few["sequence"])
    other = views(batch, HERE._replace(step=8))
    assert not torch.equal(other[0]["sequence"], views(batch, HERE)[0]["sequence"])


def test_halves_are_the_longest_fragments() -> None:
    one, two = FragmentViews(length=10)(_batch(), HERE)
    assert {*one["sequence"][:, 0].tolist()} == {*two["sequence"][:, 0].tolist()} == {0, 10}
    with pytest.raises(DataError, match=r"set views\.length=10 or less"):
        FragmentViews(length=11)(_batch(), HERE)
    with pytest.raises(RecipeError, match=r"views\.length"):
        FragmentViews(length=0)
