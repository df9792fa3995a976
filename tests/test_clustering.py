from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import oracles
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from overtone import clustering
from overtone.clustering import Mode, kmeans, kmeans_within, merge_small, next_partition
from overtone.errors import NumericalError, RecipeError
from overtone.partition import Partition

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def blobs(
    k: int = 5, size: int = 40, d: int = 16, spread: float = 0.05, seed: int = 0
) -> tuple[Floats, Ints]:
    """Well separated directions, of many scales, in mixed order, with their blob."""
    draws = np.random.default_rng(seed)
    blob = draws.permutation(np.repeat(np.arange(k), size))
    points = np.eye(d)[blob] + spread * draws.standard_normal((k * size, d))
    return points * draws.uniform(0.1, 50, (k * size, 1)), blob


def unit(points: Floats) -> Floats:
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def spherical_inertia(points: Floats, labels: Ints) -> float:
    centers = np.array([unit(points)[labels == k].mean(axis=0) for k in np.unique(labels)])
    compact = np.unique(labels, return_inverse=True)[1]
    return float(((unit(points) - unit(centers)[compact]) ** 2).sum())


@pytest.mark.parametrize("seed", range(5))
def test_separated_blobs_are_found_as_well_as_by_scikit_learn(seed: int) -> None:
    points, blob = blobs(seed=seed)
    found = kmeans(points, 5, seed=seed)
    theirs = KMeans(5, n_init=10, random_state=0).fit(unit(points)).labels_
    assert adjusted_rand_score(found.labels_, blob) == 1
    assert found.inertia_ == pytest.approx(spherical_inertia(points, theirs), rel=1e-4)


def test_unseparated_points_cluster_about_as_well_as_by_scikit_learn() -> None:
    points = np.random.default_rng(0).standard_normal((500, 8))
    theirs = KMeans(20, n_init=1, random_state=0).fit(unit(points)).labels_
    assert kmeans(points, 20, seed=0).inertia_ < 1.03 * spherical_inertia(points, theirs)


def test_a_random_start_serves_when_clusters_are_many() -> None:
    points = np.random.default_rng(0).standard_normal((1200, 8))
    theirs = KMeans(300, n_init=1, random_state=0).fit(unit(points)).labels_
    assert kmeans(points, 300, seed=0).inertia_ < 1.1 * spherical_inertia(points, theirs)


def test_every_sample_goes_to_its_nearest_center_in_whatever_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(1).standard_normal((200, 6))
    found = kmeans(points, 7, seed=0, max_points_per_cluster=10)
    assert found.labels_.tolist() == oracles.nearest(points, found.cluster_centers_.astype(float)).tolist()
    np.testing.assert_allclose(np.linalg.norm(found.cluster_centers_, axis=1), 1, rtol=1e-5)
    monkeypatch.setattr(clustering, "_CHUNK", 70)
    assert kmeans(points, 7, seed=0, max_points_per_cluster=10).labels_.tolist() == found.labels_.tolist()


def test_a_memory_map_and_half_precision_are_accepted(tmp_path: Path) -> None:
    points, blob = blobs()
    np.save(tmp_path / "embeddings.npy", points.astype(np.float16))
    mapped = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    assert adjusted_rand_score(kmeans(mapped, 5, seed=0).labels_, blob) == 1


def test_a_seed_fixes_the_clusters() -> None:
    points = np.random.default_rng(0).standard_normal((300, 8))
    first, again, other = (kmeans(points, 20, seed=seed) for seed in (3, 3, 4))
    assert first.labels_.tolist() == again.labels_.tolist()
    assert np.array_equal(first.cluster_centers_, again.cluster_centers_)
    assert first.labels_.tolist() != other.labels_.tolist()


def test_one_and_two_threads_find_the_same_clusters() -> None:
    code = (
        "import hashlib, numpy as np; from overtone.clustering import kmeans;"
        "x = np.random.default_rng(0).standard_normal((3000, 64));"
        "print(hashlib.sha256(kmeans(x, 40, seed=0).labels_.tobytes()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(seen) == 1


def test_stages_are_normalised_one_by_one_before_they_are_concatenated() -> None:
    loud, loud_blob = blobs(4, 40, seed=1)
    quiet, quiet_blob = blobs(4, 40, seed=2)
    joint = loud_blob * 4 + quiet_blob
    found = kmeans([1e4 * loud, quiet], len(np.unique(joint)), seed=0)
    assert adjusted_rand_score(found.labels_, joint) > 0.9


def test_two_levels_cover_everything_with_the_clusters_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    points = np.random.default_rng(0).standard_normal((900, 8))
    one = kmeans(points, 90, seed=0)
    monkeypatch.setattr(clustering, "_ONE_LEVEL", 900 * 89)
    with caplog.at_level(logging.INFO):
        two = kmeans(points, 90, seed=0)
    assert "90 clusters of 900 samples on two levels: 9, then within each" in caplog.text
    assert two.cluster_centers_.shape == (90, 8)
    assert set(two.labels_.tolist()) <= set(range(90))
    assert two.inertia_ < 1.2 * one.inertia_


def test_clusters_within_groups_never_span_two() -> None:
    points, _ = blobs(6, 30)
    groups = np.random.default_rng(0).integers(0, 4, len(points)) * 7
    found = kmeans_within(points, groups, n_clusters=6, seed=0)
    assert all(len(set(groups[found.labels_ == label].tolist())) == 1 for label in np.unique(found.labels_))
    assert found.cluster_centers_.shape == (24, 16)
    assert found.inertia_ == pytest.approx(
        float(((unit(points) - found.cluster_centers_[found.labels_]) ** 2).sum()), rel=1e-4
    )


def test_clusters_within_groups_follow_their_sizes() -> None:
    points = np.random.default_rng(0).standard_normal((100, 4))
    groups = np.repeat([0, 1, 2], [60, 39, 1])
    labels = kmeans_within(points, groups, cell_size=10, seed=0).labels_
    assert [len(np.unique(labels[groups == g])) for g in range(3)] == [6, 4, 1]


def test_small_clusters_join_the_nearest_large_one() -> None:
    points = np.random.default_rng(0).standard_normal((60, 3))
    found = kmeans(points, 30, seed=0)
    sizes = np.bincount(found.labels_, minlength=30)
    merged = merge_small(found.labels_, points, found.cluster_centers_, floor=3)
    large = np.flatnonzero(sizes >= 3)
    nearest = large[oracles.nearest(points, found.cluster_centers_[large].astype(float))]
    assert merged.tolist() == np.where(sizes[found.labels_] < 3, nearest, found.labels_).tolist()


def test_clusters_that_are_all_single_samples_are_refused() -> None:
    with pytest.raises(RecipeError, match="n_clusters=4: none of 4 samples' clusters has 2"):
        merge_small(np.arange(4), np.eye(4), np.eye(4))


def test_empty_clusters_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    found = kmeans(np.eye(3)[np.arange(60) % 3], 10, seed=0)
    assert len(np.unique(found.labels_)) == 3
    assert "7 of 10 clusters are empty" in caplog.text


def test_duplicates_share_a_cluster_however_many_clusters() -> None:
    points = np.repeat(np.random.default_rng(0).standard_normal((20, 5)), 3, axis=0)
    labels = kmeans(points, 50, seed=0).labels_.reshape(20, 3)
    assert (labels == labels[:, :1]).all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_rows_without_a_direction_are_named(value: float) -> None:
    points = np.random.default_rng(0).standard_normal((50, 4))
    points[[7, 31]] = value
    with pytest.raises(NumericalError, match="rows 7, 31 are zero or not finite"):
        kmeans(points, 3, seed=0)


def test_a_bad_row_outside_the_subsample_is_found_too() -> None:
    points = np.random.default_rng(0).standard_normal((500, 4))
    for bad in (0, 250, 499):
        broken = points.copy()
        broken[bad] = np.nan
        with pytest.raises(NumericalError, match=f"rows {bad} are"):
            kmeans(broken, 2, seed=0, max_points_per_cluster=2)


def test_identical_embeddings_are_refused() -> None:
    with pytest.raises(NumericalError, match="all 50 embeddings fall into one of n_clusters=5"):
        kmeans(np.ones((50, 4)) * np.arange(1, 51)[:, None], 5, seed=0)


@pytest.mark.parametrize("k", [-1, 1, 813])
def test_an_impossible_number_of_clusters_is_refused_with_both_numbers(k: int) -> None:
    with pytest.raises(RecipeError, match=f"n_clusters={k} but there are 812 embeddings"):
        kmeans(np.ones((812, 2)), k, seed=0)


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


def test_stages_of_different_lengths_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"got \(3, 3\), \(4, 4\)"):
        kmeans([np.eye(3), np.eye(4)], 2, seed=0)


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
