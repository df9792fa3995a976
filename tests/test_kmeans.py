from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from overtone import distributed, lloyd
from overtone import kmeans as module
from overtone.errors import NumericalError, RecipeError
from overtone.kmeans import kmeans, kmeans_within, merge_small

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def unit(points: Floats) -> Floats:
    norms: Floats = np.linalg.norm(points, axis=1, keepdims=True)
    return points / norms


def spherical_inertia(points: Floats, labels: Ints) -> float:
    centers = np.array([unit(points)[labels == k].mean(axis=0) for k in np.unique(labels)])
    compact = np.unique(labels, return_inverse=True)[1]
    return float(((unit(points) - unit(centers)[compact]) ** 2).sum())


@pytest.mark.parametrize("seed", range(5))
def test_separated_blobs_are_found_as_well_as_by_scikit_learn(seed: int) -> None:
    points, blob = oracles.blobs(seed=seed)
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
    monkeypatch.setattr(lloyd, "CHUNK", 70)
    assert kmeans(points, 7, seed=0, max_points_per_cluster=10).labels_.tolist() == found.labels_.tolist()


def test_a_memory_map_and_half_precision_are_accepted(tmp_path: Path) -> None:
    points, blob = oracles.blobs()
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
    points = np.random.default_rng(0).standard_normal((3000, 64))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(kmeans(points, 40, seed=0))
    assert found[0].labels_.tolist() == found[1].labels_.tolist()


def test_stages_are_normalised_one_by_one_before_they_are_concatenated() -> None:
    loud, loud_blob = oracles.blobs(4, 40, seed=1)
    quiet, quiet_blob = oracles.blobs(4, 40, seed=2)
    joint = loud_blob * 4 + quiet_blob
    found = kmeans([1e4 * loud, quiet], len(np.unique(joint)), seed=0)
    assert adjusted_rand_score(found.labels_, joint) > 0.9


def test_two_levels_cover_everything_with_the_clusters_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    points = np.random.default_rng(0).standard_normal((900, 8))
    one = kmeans(points, 90, seed=0)
    monkeypatch.setattr(module, "_ONE_LEVEL", 89)
    with caplog.at_level(logging.INFO):
        two = kmeans(points, 90, seed=0)
    assert "90 clusters of 900 samples on 2 levels: 9, then within each" in caplog.text
    assert len(two.cluster_centers_) == pytest.approx(90, rel=0.1)
    assert set(two.labels_.tolist()) == set(range(len(two.cluster_centers_)))
    assert two.inertia_ < 1.2 * one.inertia_


def test_clusters_within_groups_never_span_two() -> None:
    points, _ = oracles.blobs(6, 30)
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


class Processes:
    """Does a work for each of several processes, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stages: list[Floats], world_size: int) -> None:
        self.monkeypatch, self.world_size = monkeypatch, world_size
        self.works = module.works(lambda count: stages[-count:])
        self.shares: list[tuple[str, list[int]]] = []

    def __call__(self, name: str, *arguments: object) -> list[Any]:
        found = []
        with self.monkeypatch.context() as patch:
            patch.setattr(distributed, "world_size", lambda: self.world_size)
            for rank in range(self.world_size):
                patch.setattr(distributed, "rank", lambda rank=rank: rank)
                found.append(self.works[name](*arguments))
        sizes = [
            sum(len(part.labels_) for part in each) if name == "within" else len(each[0]) for each in found
        ]
        self.shares.append((name, sizes))
        return found


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("one_level", [1024, 50])
def test_processes_that_share_the_work_find_what_one_finds(
    monkeypatch: pytest.MonkeyPatch, world_size: int, one_level: int
) -> None:
    rng = np.random.default_rng(0)
    stages = [rng.standard_normal((900, 6)), rng.standard_normal((900, 4))]
    monkeypatch.setattr(module, "_ONE_LEVEL", one_level)
    monkeypatch.setattr(lloyd, "CHUNK", 5_000)  # samples are assigned 55 at a time
    everyone = Processes(monkeypatch, stages, world_size)
    alone, shared = kmeans(stages, 90, seed=0), kmeans(stages, 90, seed=0, everyone=everyone)
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [name for name, _ in everyone.shares] == ["assign"] + ["within"] * (one_level == 50)
    for _, sizes in everyone.shares:
        assert sum(sizes) == 900
        assert sorted(sizes)[-2] > 100


def test_processes_share_the_clusters_within_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    points, groups = np.random.default_rng(0).standard_normal((300, 5)), np.arange(300) % 7
    everyone = Processes(monkeypatch, [points], 3)
    alone = kmeans_within(points, groups, cell_size=10, seed=0)
    shared = kmeans_within(points, groups, cell_size=10, seed=0, everyone=everyone)
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one, other)
    assert everyone.shares == [("within", [129, 86, 85])]


def test_small_clusters_join_the_nearest_large_one() -> None:
    points = np.random.default_rng(0).standard_normal((60, 3))
    found = kmeans(points, 30, seed=0)
    sizes = np.bincount(found.labels_, minlength=30)
    merged = merge_small(found.labels_, points, found.cluster_centers_, floor=3)
    large = np.flatnonzero(sizes >= 3)
    nearest = large[oracles.nearest(points, found.cluster_centers_[large].astype(float))]
    assert merged.tolist() == np.where(sizes[found.labels_] < 3, nearest, found.labels_).tolist()


def test_clusters_that_are_all_single_samples_are_refused() -> None:
    with pytest.raises(RecipeError, match="n_clusters=4: no cluster of the 4 samples has 2"):
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


def test_stages_of_different_lengths_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"got \(3, 3\), \(4, 4\)"):
        kmeans([np.eye(3), np.eye(4)], 2, seed=0)


@pytest.fixture
def lumps() -> Floats:
    """2,400 samples: blobs of very different sizes, strays, and 100 copies of one sample."""
    draws = np.random.default_rng(0)
    blobs = [draws.standard_normal(16) + 0.2 * draws.standard_normal((n, 16)) for n in (1500, 600, 150, 40)]
    copies = np.repeat(draws.standard_normal((1, 16)), 100, axis=0)
    return np.concatenate([*blobs, copies, 3 * draws.standard_normal((10, 16))])


def test_fine_cells_keep_within_four_times_their_mean_size_whatever_the_data(
    monkeypatch: pytest.MonkeyPatch, lumps: Floats
) -> None:
    monkeypatch.setattr(module, "_ONE_LEVEL", 100)
    found = kmeans(lumps, 240, seed=0)
    sizes = np.bincount(found.labels_)
    assert sizes.min() >= 2.5
    assert sizes.max() <= 40
    assert len(sizes) == len(found.cluster_centers_) == pytest.approx(240, rel=0.05)
    assert found.inertia_ == pytest.approx(spherical_inertia(lumps, found.labels_), rel=1e-4)


def test_three_levels_are_shared_out_without_changing_what_is_found(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lumps: Floats
) -> None:
    monkeypatch.setattr(module, "_ONE_LEVEL", 12)
    monkeypatch.setattr(module, "_FAN", 10)
    everyone = Processes(monkeypatch, [lumps], 2)
    with caplog.at_level(logging.INFO):
        alone = kmeans(lumps, 240, seed=0)
    assert "240 clusters of 2400 samples on 3 levels: 6, then within each" in caplog.text
    for one, other in zip(alone, kmeans(lumps, 240, seed=0, everyone=everyone), strict=True):
        np.testing.assert_array_equal(one, other)


def test_passes_in_torch_cluster_as_well_as_faiss_and_refill_what_is_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    points = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    by_faiss = kmeans(points, 300, seed=0)
    monkeypatch.setattr(module, "_FEW", 1999)
    np.save(tmp_path / "embeddings.npy", points)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(kmeans(np.load(tmp_path / "embeddings.npy", mmap_mode="r"), 300, seed=0))
    assert found[0].labels_.tolist() == found[1].labels_.tolist()
    assert (
        found[0].labels_.tolist()
        == oracles.nearest(points.astype(float), found[0].cluster_centers_.astype(float)).tolist()
    )
    assert found[0].inertia_ < 1.02 * by_faiss.inertia_
    assert np.bincount(found[0].labels_, minlength=300).min() > 0
