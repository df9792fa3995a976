from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from overtone.contracts import Ids
from overtone.datasets import digit_bags, trifeature
from overtone.encoders import build_encoder
from overtone.errors import DataError, RecipeError
from overtone.rng import generator
from overtone.strategies.ins import INS, candidate_labels

CELLS, IDENTITIES = [0, 0, 1, 0, 1], [0, 1, 2, 1, 4]


def _z(name: str, *shape: int) -> Tensor:
    drawn = torch.randn(*shape, dtype=torch.float64, generator=generator(0, "ins", name))
    return normalize(drawn, dim=1)


def _ids(cells: list[int], identities: list[int] | None = None) -> Ids:
    return Ids(torch.tensor(cells), torch.tensor(identities or list(range(len(cells)))))


def _method(**values: Any) -> INS:
    torch.manual_seed(0)
    settings = {"warm_up": 2, "queue": 7, "samples": 12, "out_dim": 3, **values}
    return INS(build_encoder("small_cnn"), **settings).double()


def _filled(method: INS, cells: list[int], identities: list[int]) -> INS:
    """With the keys of an earlier batch in its queue."""
    ids = _ids(cells, identities)
    method.remember(_z("older", 5, 3), _z("old keys", 5, 3), torch.tensor([1, 0, 0, 1, 1]), ids)
    return method


def _batch(n: int, begin: int = 0) -> dict[str, Any]:
    dataset = digit_bags(begin + n, image_size=16, bag_size=4)
    batch = dataset.collate([dataset[i] for i in range(begin, begin + n)])
    return batch | {"cell": torch.zeros(n, dtype=torch.int64), "identity": batch["index"]}


@pytest.mark.parametrize(("cells", "same"), [([0] * 5, list(range(5))), (CELLS, IDENTITIES)])
def test_the_contrast_is_the_loop_over_pseudo_labels_within_cells(cells: list[int], same: list[int]) -> None:
    method = _filled(_method(temperature=0.5), cells, [10 + i for i in range(5)])
    method.epoch = 2
    z, keys, labels = _z("z", 5, 3), _z("keys", 5, 3), torch.tensor([0, 1, 1, 0, 0])
    columns = [*z, *keys, *method.queue.held().keys]
    names = [*labels.tolist() * 2, 1, 0, 0, 1, 1]
    of_cell, of_same = cells * 3, [*same * 2, *(10 + i for i in range(5))]
    total = 0.0
    for i in range(5):
        scores = [math.exp(float(z[i] @ column) / 0.5) for column in columns]
        own = [j for j in range(15) if j != i and names[j] == labels[i]]
        others = [
            j for j in range(15) if names[j] != labels[i] and of_cell[j] == cells[i] and of_same[j] != same[i]
        ]
        whole = sum(scores[j] for j in own + others)
        total += sum(math.log(whole / scores[j]) for j in own) / len(own)
    found = method.contrast(z, keys, labels, _ids(cells, same))
    assert_close(found.item(), total / 5, rtol=1e-12, atol=1e-12)


def test_before_the_end_of_the_warm_up_it_is_momentum_contrast() -> None:
    method = _filled(_method(temperature=0.5), [0] * 5, [10 + i for i in range(5)])
    method.epoch = 1
    z, keys = _z("z", 5, 3), _z("keys", 5, 3)
    logits = z @ torch.cat([keys, method.queue.held().keys]).T / 0.5
    plain = torch.nn.functional.cross_entropy(logits, torch.arange(5))
    assert_close(
        method.contrast(z, keys, torch.zeros(5).long(), _ids([0] * 5)), plain, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("epoch", [1, 2])
def test_alone_in_their_cells_all_stays_finite(epoch: int) -> None:
    method = _method()
    method.epoch = epoch
    z = _z("z", 4, 3).requires_grad_()
    loss = method.contrast(z, _z("keys", 4, 3), torch.tensor([0, 1, 1, 0]), _ids([0, 1, 2, 3]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_the_queue_keeps_each_key_with_its_pseudo_label_also_when_it_wraps() -> None:
    method = _method()
    keys, labels = _z("many", 12, 3), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1])
    for part in (slice(0, 5), slice(5, 10), slice(10, 12)):
        ids = Ids(torch.arange(12)[part], torch.arange(12)[part])
        method.remember(keys[part], keys[part], labels[part], ids)
    held = method.queue.held()
    assert sorted(held.ids.identity.tolist()) == list(range(5, 12))
    assert torch.equal(method.queue_labels, labels[held.ids.identity])


def test_prototypes_are_the_loop_over_instances_of_unit_length_and_without_a_graph() -> None:
    method = _method(prototype=0.7)
    z, labels, expected = _z("z", 5, 3), [1, 0, 1, 1, 0], torch.zeros(2, 3, dtype=torch.float64)
    for one, label in zip(z, labels, strict=True):
        moved = 0.7 * expected[label] + 0.3 * one
        expected[label] = moved / moved.norm()
    method.remember(z, z, torch.tensor(labels), _ids([0] * 5))
    assert_close(method.prototypes, expected, rtol=1e-12, atol=1e-12)
    assert not method.prototypes.requires_grad


def test_soft_labels_move_to_the_nearer_prototype_and_negative_bags_stay_negative() -> None:
    method = _method()
    method.epoch, method.kept = 2, 0.9
    method.prototypes.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    z = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    method.refine(z, candidate_labels(torch.tensor([0, 1, 1])).double(), torch.tensor([3, 5, 7]))
    expected = torch.tensor([[1.0, 0.0], [0.45, 0.55], [0.55, 0.45]], dtype=torch.float64)
    assert_close(method.soft[[3, 5, 7]], expected)
    assert_close(method.soft.sum(1), torch.ones(12, dtype=torch.float64))


def test_what_is_kept_of_a_soft_label_falls_from_95_to_80_hundredths() -> None:
    method, kept = _method(), []
    for step in (0, 5, 10):
        method.begin_step(step, 3, 11)
        kept.append((method.epoch, round(method.kept, 3)))
    assert kept == [(0, 0.95), (1, 0.875), (3, 0.8)]


def test_the_classifier_learns_bag_labels_then_positive_bags_alone_then_all() -> None:
    method, candidates = _method(warm_up=4, bag_labels=2), candidate_labels(torch.tensor([0, 1])).double()
    seen = []
    for epoch in (1, 2, 4):
        method.epoch = epoch
        targets = method.targets(candidates, torch.tensor([3, 5])).tolist()
        seen.append((targets, method.counted(candidates).tolist()))
    assert seen == [
        ([[1, 0], [0, 1]], [1, 1]),
        ([[1, 0], [0.5, 0.5]], [0, 1]),
        ([[1, 0], [0.5, 0.5]], [1, 1]),
    ]


def test_a_step_in_the_warm_up_is_momentum_contrast_beside_a_classifier_and_moves_the_keys() -> None:
    method, view = _method(warm_up=4, bag_labels=4, contrast=0.3, temperature=0.5).float(), _batch(5)
    _filled(method, [0] * 5, [10 + i for i in range(5)])
    other = view | {"image": view["image"].flip(3)}
    method.begin_step(1, 1, 8)
    keys_before = {name: value.clone() for name, value in method.key_encoder.named_parameters()}
    with torch.no_grad():
        for value in method.encoder.parameters():
            value.add_(0.01)
    keys_of = copy.deepcopy(method)
    keys_of.key_encoder.follow(method.encoder)
    keys_of.key_head.follow(method.projection_head)
    keys = normalize(keys_of.key_head.module(keys_of.key_encoder.module(other)), dim=1)
    columns = torch.cat([keys, method.queue.held().keys])
    twin = copy.deepcopy(method)
    embeddings = twin.encoder(view)
    z = normalize(twin.projection_head(embeddings), dim=1)
    contrast = torch.nn.functional.cross_entropy(z @ columns.T / 0.5, torch.arange(5))
    said = torch.nn.functional.cross_entropy(twin.classifier(embeddings), view["bag_positive"].long())
    loss, found = method.step([view, other])
    assert_close(found, z)
    assert_close(loss, said + 0.3 * contrast)
    for name, value in method.key_encoder.named_parameters():
        expected = 0.999 * keys_before[name] + 0.001 * method.encoder.get_parameter(
            name.removeprefix("module.")
        )
        assert_close(value, expected)


def test_restored_from_its_state_a_method_goes_on_as_it_would_have() -> None:
    batches = [_batch(4), _batch(4, 4), _batch(4, 8)]
    one, other = _method(warm_up=1).float(), _method(warm_up=1).float()
    for step, batch in enumerate(batches[:2]):
        one.begin_step(step, 1, 3)
        one.step([batch, batch])
    other.load_state_dict(one.state_dict())
    losses = []
    for method in (one, other):
        method.begin_step(2, 1, 3)
        losses.append(method.step([batches[2], batches[2]])[0])
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(one.soft, other.soft)


def test_only_positive_bags_hold_nines_and_half_of_what_is_asked_is_one() -> None:
    bags = digit_bags(2000, bag_size=20)
    digit, positive = bags.labels["digit"], bags.labels["positive"]
    for begin in range(0, 2000, 20):
        assert (digit[begin : begin + 20] == 9).any() == bags.bag_positive[begin]
    assert ((positive == 1) == (digit == 9)).all()
    assert 0.4 < (positive[positive >= 0]).mean() < 0.65
    later = digit_bags(20, start=1980)
    assert all(torch.equal(later[i]["image"], bags[1980 + i]["image"]) for i in range(20))


def test_patches_put_a_shape_behind_every_digit_and_change_nothing_else() -> None:
    plain, patched = digit_bags(40, image_size=20), digit_bags(40, image_size=20, patches=True)
    assert np.array_equal(plain.labels["digit"], patched.labels["digit"])
    assert np.array_equal(plain.bag_positive, patched.bag_positive)
    below = trifeature(40, image_size=20)
    for i in range(40):
        expected = torch.maximum(plain[i]["image"], below[i]["image"])
        assert torch.equal(patched[i]["image"], expected)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RecipeError, match="warm_up=0"):
        _method(warm_up=0)
    with pytest.raises(RecipeError, match="bag_labels=3"):
        _method(bag_labels=3)
    with pytest.raises(RecipeError, match=r"method\.samples=2"):
        _method(samples=2).float().step([_batch(4)] * 2)
    view = {key: value for key, value in _batch(4).items() if key != "bag_positive"}
    with pytest.raises(DataError, match="bag_positive"):
        _method().float().step([view, view])
    with pytest.raises(RecipeError, match="start=3"):
        digit_bags(5, start=3)
