from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from overtone import interrupts
from overtone.contracts import Batch, Ids
from overtone.datasets import trifeature
from overtone.encoders import Encoder, ImageEncoder, build_encoder, small_cnn
from overtone.errors import RecipeError
from overtone.methods import BYOL, MoCo, MoCoV3
from overtone.optim import build_optimizer
from overtone.partition import Partition
from overtone.recipe.components import KINDS
from overtone.rng import generator, seeded
from overtone.sampling import CellBatchSampler
from overtone.training import Material, Pace, train
from overtone.views import ImageViews

B = 6
METHODS: dict[str, Callable[..., Any]] = {"moco": MoCo, "moco_v3": MoCoV3, "byol": BYOL}


def _views(cell: list[int] | None = None, turn: int = 0) -> list[Batch]:
    ids = {"cell": torch.tensor(cell or [0] * B), "identity": torch.arange(B) + B * turn}
    images = torch.rand(2, B, 3, 16, 16, generator=generator(0, "moco", turn))
    return [{"image": image, **ids} for image in images]


class Flat(Encoder):
    """One layer, no batch norm, so that an oracle may ask for keys again."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = 8
        self.layer = nn.Linear(768, 8)

    def forward(self, batch: Batch) -> Tensor:
        return torch.tanh(self.layer(batch["image"].flatten(1)))


def _method(name: str, **values: Any) -> Any:
    with seeded(0, name):
        return METHODS[name](Flat(), out_dim=4, norm="none", **values)


def _keys(method: Any, view: Batch) -> Tensor:
    return normalize(method.teacher.module(view), dim=1)


def test_as_in_the_paper_it_is_the_cross_entropy_of_the_own_key_among_the_queue() -> None:
    method = _method("moco", queue=50, in_batch=False)
    first, second = _views(), _views(turn=1)
    loss, _ = method.step(first)
    assert loss.item() == 0  # there is nothing in the queue yet
    loss, queries = method.step(second)
    queries, own = normalize(queries, dim=1), _keys(method, second[1])
    logits = torch.cat([(queries * own).sum(1, keepdim=True), queries @ _keys(method, first[1]).T], dim=1)
    expected = cross_entropy(logits / 0.2, torch.zeros(B, dtype=torch.int64))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("cells", [[0] * B, [0, 0, 0, 1, 1, 2]])
def test_negatives_are_the_keys_of_the_cell_in_the_batch_and_in_the_queue(cells: list[int]) -> None:
    method = _method("moco", queue=9)
    method.step(_views(cells))
    views = _views(cells)  # the same samples again: their older keys are no negatives of theirs
    before = method.queue.held()
    loss, queries = method.step(views)
    keys = torch.cat([_keys(method, views[1]), before.keys])
    cell, identity = views[0]["cell"], views[0]["identity"]
    columns = Ids(torch.cat([cell, before.ids.cell]), torch.cat([identity, before.ids.identity]))
    expected = oracles.nt_xent(queries, keys, torch.arange(B), Ids(cell, identity), columns, 0.2)
    torch.testing.assert_close(loss, expected)


def test_in_a_cell_of_its_own_everything_stays_finite() -> None:
    method = _method("moco", queue=9)
    for _ in range(2):
        loss, _ = method.step(_views(list(range(B))))
        loss.backward()
        assert loss.item() == 0
        assert not any(p.grad.any() for p in method.parameters() if p.grad is not None)


def test_it_says_how_many_keys_of_the_queue_an_anchor_could_be_pushed_from() -> None:
    method = _method("moco", queue=50)
    method.step(_views([0, 0, 0, 1, 1, 2]))
    assert method.said() == {"queue_negatives": 0}
    method.step(_views([0, 0, 0, 1, 1, 2], turn=1))
    assert method.said() == {"queue_negatives": pytest.approx((3 * 3 + 2 * 2 + 1) / B)}
    method.step(_views([9] * B))
    assert method.said() == {"queue_negatives": 0}


def test_v3_is_both_directions_of_query_and_key_times_twice_the_temperature() -> None:
    method, views = _method("moco_v3", temperature=0.5), _views([0, 0, 0, 1, 1, 1])
    loss, z = method.step(views)
    ids, own = Ids(views[0]["cell"], views[0]["identity"]), torch.arange(B)
    both = [
        oracles.nt_xent(queries, _keys(method, view), own, ids, ids, 0.5)
        for queries, view in ((z[:B], views[1]), (z[B:], views[0]))
    ]
    torch.testing.assert_close(loss, 2 * 0.5 * (both[0] + both[1]))


def test_byol_is_the_distance_of_each_prediction_to_the_other_views_target_and_knows_no_cell() -> None:
    method, views = _method("byol"), _views()
    loss, z = method.step(views)
    expected = [
        2 - 2 * cosine_similarity(z[rows], method.teacher.module(view), dim=1).mean()
        for rows, view in ((slice(B), views[1]), (slice(B, None), views[0]))
    ]
    torch.testing.assert_close(loss, expected[0] + expected[1])
    assert torch.equal(method.step(_views([0, 1, 2, 3, 4, 5]))[0], loss)


@pytest.mark.parametrize("name", METHODS)
def test_recipes_know_it_by_its_name(name: str) -> None:
    assert KINDS["method"].names[name] is METHODS[name]


@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_reaches_all_but_the_teacher_which_follows_before_a_step(name: str) -> None:
    method = METHODS[name](build_encoder("small_cnn"), out_dim=8, momentum=0.75)
    loss, _ = method.step(_views())
    loss.backward()
    own = {key: p for key, p in method.named_parameters() if not key.startswith("teacher.")}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in own.values())
    assert all(p.grad is None for p in method.teacher.parameters())
    student = nn.Sequential(method.encoder, method.projection_head)
    before = [p.detach().clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in own.values():
            p += 1.0
    method.begin_step(0, 10, 10)
    for old, new, now in zip(before, method.teacher.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * now)


@pytest.mark.parametrize("name", ["moco_v3", "byol"])
def test_the_momentum_rises_over_the_training(name: str) -> None:
    method = _method(name, momentum=0.9)
    weight, teacher = next(method.encoder.parameters()), next(method.teacher.parameters())
    with torch.no_grad():
        weight += 1.0
    begin = teacher.clone()
    method.begin_step(5, 10, 10)
    torch.testing.assert_close(teacher, begin + (1 - 0.95) * (weight - begin))


@pytest.mark.parametrize("name", METHODS)
def test_autocast_leaves_the_loss_in_float32(name: str) -> None:
    method = METHODS[name](build_encoder("small_cnn"), out_dim=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for turn in range(2):
            loss, _ = method.step(_views(turn=turn))
    assert loss.dtype == torch.float32
    assert loss.isfinite()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("n_views", [1, 3])
def test_another_number_of_views_than_two_is_refused(name: str, n_views: int) -> None:
    with pytest.raises(RecipeError, match=f"{n_views} of each batch, but {name} takes 2"):
        METHODS[name](build_encoder("small_cnn")).step([_views()[0]] * n_views)


@pytest.mark.parametrize(("field", "value"), [("temperature", 0.0), ("momentum", math.nan), ("queue", 0)])
def test_values_out_of_bounds_are_refused(field: str, value: float) -> None:
    with pytest.raises(RecipeError, match=f"{field}={value}"):
        _method("moco", **{field: value})


def _trained(name: str, folder: Path, stop: int | None = None) -> dict[str, Tensor]:
    """The whole state after nine steps; a signal comes in step `stop`."""

    def log(record: dict[str, Any], _: Tensor) -> None:
        if record["step"] == stop:
            signal.raise_signal(signal.SIGTERM)

    cells = np.arange(100) // 10
    with seeded(0, name):
        extra = {"queue": 80} if name == "moco" else {}
        encoder = ImageEncoder(small_cnn(), mean=[0.5] * 3, std=[0.25] * 3)
        method = METHODS[name](encoder, out_dim=8, **extra)
    train(
        method,
        build_optimizer(method, name="adamw", lr=0.01, weight_decay=0.01),
        Material(
            trifeature(100, image_size=16),
            CellBatchSampler(Partition(cells), 32, seed=5, stage=1),
            ImageViews(),
            np.arange(100),
        ),
        Pace(epochs=3, log_every=1, checkpoint_seconds=1e9),
        device=torch.device("cpu"),
        folder=folder,
        inputs={},
        log=log,
        on_epoch=lambda _: None,
    )
    return method.state_dict()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", METHODS)
def test_interrupted_and_continued_it_ends_in_the_same_state(name: str, tmp_path: Path) -> None:
    whole = _trained(name, tmp_path / "whole")
    with pytest.raises(interrupts.Stopped), interrupts.catching():
        _trained(name, tmp_path / "cut", stop=4)
    again = _trained(name, tmp_path / "cut")
    assert whole.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    assert any(key.startswith("teacher.") for key in whole)
