from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from oracles import blobs
from sklearn.metrics import adjusted_rand_score

from overtone.clustering import Mode, next_partition
from overtone.errors import RecipeError
from overtone.partition import Partition

Ints = NDArray[np.int64]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of them"),
        ({"n_clusters": 3, "cell_size": 4}, "give one of them"),
        ({"cell_size": 1}, "cell_size=1: expected 2 to 200"),
        ({"cell_size": 201}, "cell_size=201: expected 2 to 200"),
        ({"n_clusters": 201}, "n_clusters=201 but there are 200"),
    ],
)
@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_granularity_is_given_once_and_possible(mode: Mode, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        next_partition(mode, [blobs()[0]], seed=0, **options)


def test_an_unknown_mode_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="cells='joint': expected one of concat, intersect, nested, last"):
        next_partition("joint", [blobs()[0]], n_clusters=2, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", get_args(Mode))
def test_the_first_cells_are_the_clusters_of_stage_0(mode: Mode) -> None:
    points, blob = blobs()
    for granularity in ({"n_clusters": 5}, {"cell_size": 40}):
        cells, labels = next_partition(mode, [points], seed=0, **granularity)  # type: ignore[arg-type]
        assert adjusted_rand_score(cells.pseudo_labels, blob) == 1
        assert adjusted_rand_score(labels, blob) == 1


def test_modes_after_two_stages_tell_apart_what_they_say() -> None:
    # Stage 0 sees one attribute of four values, stage 1 another: sixteen joint values.
    (a, a_of), (b, b_of) = blobs(4, 60, seed=1), blobs(4, 60, seed=2)
    _, first = next_partition("intersect", [a], n_clusters=4, seed=0)

    def found(mode: Mode, n_clusters: int) -> Ints:
        return next_partition(mode, [a, b], [first], n_clusters=n_clusters, seed=0)[0].pseudo_labels

    assert adjusted_rand_score(found("concat", 16), a_of * 4 + b_of) > 0.9
    assert adjusted_rand_score(found("intersect", 4), a_of * 4 + b_of) == 1
    assert adjusted_rand_score(found("nested", 4), a_of * 4 + b_of) > 0.9
    assert adjusted_rand_score(found("last", 4), b_of) == 1


@pytest.mark.parametrize("mode", ["concat", "intersect", "nested"])
def test_no_cell_is_a_single_sample(mode: Mode) -> None:
    draws = np.random.default_rng(0)
    embeddings, labels = [draws.standard_normal((150, 4)) for _ in range(3)], list[Ints]()
    for stages in range(1, 4):
        cells, newest = next_partition(mode, embeddings[:stages], labels, cell_size=4, seed=0)
        labels.append(newest)
        assert cells.sizes.min() >= 2
        assert len(newest) == 150


def test_nested_cells_refine_the_cells_before() -> None:
    draws = np.random.default_rng(0)
    a, b = draws.standard_normal((200, 4)), draws.standard_normal((200, 4))
    before, first = next_partition("nested", [a], cell_size=40, seed=0)
    after, _ = next_partition("nested", [a, b], [first], cell_size=10, seed=0)
    assert Partition.intersect([before.pseudo_labels, after.pseudo_labels]).n_cells == after.n_cells
    assert 15 <= after.n_cells <= 20
