"""Spherical k-means of embeddings that need not fit in memory.

Embeddings are compared by their direction alone (Dhillon & Modha, "Concept decompositions for large sparse
text data using clustering", Machine Learning 2001).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from overtone import distributed, rng
from overtone.errors import NumericalError, RecipeError
from overtone.partition import Partition

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.int64]
Embeddings: TypeAlias = Floats | Sequence[Floats]
Everyone: TypeAlias = Callable[..., Sequence[Any]]
"""Has each of several processes do one of `works`, given its name and arguments; what each found."""

_log = logging.getLogger(__name__)

# More clusters are found on two levels: a fraction of the cost, cells of more even size, no worse inertia
# (K = 2,000 of 20,000 samples around 40 Gaussians, D = 64, one core: 0.6 s against 3.0 s, inertia -0.6 %).
_ONE_LEVEL = 1024
# Up to here a spread start (k-means++) costs little and finds blobs that a random one misses. On random data
# with K = 600 to 5,000 a random start ended 0.5 to 1.4 % below it in summed similarity, several times faster.
_SPREAD_START = 256
_CHUNK = 2**24  # numbers in memory at once while everything is assigned


class Clustering(NamedTuple):
    """What k-means found, under scikit-learn's names.

    Attributes:
        labels_: (N,) int64 in range(K).
        cluster_centers_: (K, D) float32 of length 1; D sums over the stages given.
        inertia_: Sum of squared distances of the normalised embeddings to their centers.
    """

    labels_: Ints
    cluster_centers_: NDArray[np.float32]
    inertia_: float


class _Settings(NamedTuple):
    seed: int
    n_iter: int
    max_points_per_cluster: int


def kmeans(
    embeddings: Embeddings,
    n_clusters: int,
    *,
    seed: int,
    n_iter: int = 20,
    max_points_per_cluster: int = 256,
    everyone: Everyone | None = None,
) -> Clustering:
    """Spherical k-means, trained by faiss on a seeded subsample; everything is then assigned in chunks.

    More than 1,024 clusters are found on two levels, clusters within clusters, and the log says so.

    Args:
        embeddings: (N, D) of any scale, memory-mapped or not; or one such array a stage, each normalised by
            itself and then concatenated.
        n_clusters: K, 2 to N.
        seed: Of this clustering; every draw follows from it.
        n_iter: Passes over the subsample.
        max_points_per_cluster: The subsample has K times as many samples.
        everyone: Shares the work out, without changing what is found.

    Returns:
        Labels, centers and inertia. Clusters may be empty, which is logged.

    Raises:
        RecipeError: n_clusters is not in 2 to N.
        NumericalError: Embeddings are zero, not finite or all alike.

    >>> kmeans(np.array([[1, 0], [9, 1], [0, 1], [1, 7]]), 2, seed=0).labels_.tolist() in (
    ...     [0, 0, 1, 1], [1, 1, 0, 0]
    ... )
    True
    """
    stages = _stages(embeddings)
    n = len(stages[0])
    _check_n_clusters(n_clusters, n)
    settings = _Settings(seed, n_iter, max_points_per_cluster)
    found = _cluster(stages, np.arange(n), n_clusters, settings, everyone)
    if (found.labels_ == found.labels_[0]).all():
        raise NumericalError(
            f"all {n:,} embeddings fall into one of n_clusters={n_clusters}: they are alike, the encoder has"
            " collapsed; look at its loss, learning rate and views"
        )
    _report_empty(found)
    return found


def kmeans_within(
    embeddings: Embeddings,
    groups: Ints,
    *,
    n_clusters: int | None = None,
    cell_size: float | None = None,
    seed: int,
    n_iter: int = 20,
    max_points_per_cluster: int = 256,
    everyone: Everyone | None = None,
) -> Clustering:
    """Spherical k-means inside each group by itself.

    Args:
        embeddings: As in `kmeans`.
        groups: (N,) integers >= 0; no cluster spans two.
        n_clusters: Clusters in each group, fewer where that would leave single samples.
        cell_size: Instead, the mean size wanted of a cluster over all groups; each gets one at least.
        seed: Of this clustering.
        n_iter: Passes over the subsample of each group.
        max_points_per_cluster: Samples of it for each cluster.
        everyone: Shares the work out, without changing what is found.

    Returns:
        Labels numbered group by group, all centers in that order, and the sum of the inertias.
    """
    stages = _stages(embeddings)
    cells = Partition(groups)
    resolved_clusters(len(cells), n_clusters, cell_size)
    if cell_size is None:
        assert n_clusters is not None
        counts = np.clip(cells.sizes // 2, 1, n_clusters)
    else:
        counts = _shares(cells, cell_size)
    settings = _Settings(seed, n_iter, max_points_per_cluster)
    return _within(stages, np.arange(len(groups)), cells, counts, settings, everyone)


def works(newest: Callable[[int], Embeddings]) -> dict[str, Callable[..., Any]]:
    """What the processes of a run do for `kmeans` and `kmeans_within`, each for its share of the samples.

    Args:
        newest: The embeddings of so many stages, the newest ones.
    """

    def assign(n_stages: int, centers: Floats) -> tuple[Ints, NDArray[np.float64]]:
        stages = _stages(newest(n_stages))
        # In the same chunks as one process would, so that no sum is rounded in another way.
        own = distributed.own_share(len(stages[0]), _chunk(centers))
        return _assigned(stages, np.arange(own.start, own.stop), centers)

    def within(n_stages: int, groups: Ints, counts: Ints, settings: _Settings) -> list[Clustering]:
        cells = Partition(groups)
        # Cells, as many as hold the process's share of the samples.
        share = np.arange(distributed.rank(), distributed.rank() + 2) * len(groups) / distributed.world_size()
        begin, end = np.searchsorted(cells.offsets[:-1], share)
        samples = np.arange(len(groups))
        return _inside(_stages(newest(n_stages)), samples, cells, counts, settings, range(begin, end))

    return {"assign": assign, "within": within}


def merge_small(labels: Ints, embeddings: Embeddings, centers: Floats, floor: int = 2) -> Ints:
    """Moves the samples of clusters below the floor to the nearest center of the other clusters.

    Args:
        labels: (N,) int64 in range(K).
        embeddings: As in `kmeans`.
        centers: (K, D) of length 1.
        floor: The least number of samples of a cluster.

    Returns:
        (N,) int64, with gaps where clusters vanished.

    Raises:
        RecipeError: No cluster reaches the floor.

    >>> wheel = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    >>> merge_small(np.array([0, 0, 1]), wheel, wheel[1:])
    array([0, 0, 0])
    """
    sizes = np.bincount(labels, minlength=len(centers))
    large, small = np.flatnonzero(sizes >= floor), np.flatnonzero(sizes[labels] < floor)
    if not len(large):
        raise RecipeError(
            f"n_clusters={len(centers)}: no cluster of the {len(labels):,} samples has {floor};"
            " take fewer clusters"
        )
    merged = labels.copy()
    merged[small] = large[_assigned(_stages(embeddings), small, centers[large])[0]]
    return merged


def _cluster(
    stages: list[Floats], samples: Ints, k: int, settings: _Settings, everyone: Everyone | None = None
) -> Clustering:
    """K clusters of these samples, which are all there are where the work is shared out."""
    if k > _ONE_LEVEL:
        first = round(math.sqrt(k))
        _log.info("%s clusters of %s samples on two levels: %s, then within each", k, len(samples), first)
        cells = Partition(_cluster(stages, samples, first, settings, everyone).labels_)
        return _within(stages, samples, cells, _shares(cells, len(samples) / k), settings, everyone)
    n_points = min(len(samples), k * settings.max_points_per_cluster)
    key = rng.derive(settings.seed, "subsample")
    drawn = np.sort(rng.permuted(np.arange(n_points), len(samples), key))
    centers = _trained(_unit_rows(stages, samples[drawn]), k, settings)
    if everyone is None:
        labels, similarity = _assigned(stages, samples, centers)
    else:
        found = everyone("assign", len(stages), centers)
        labels, similarity = (np.concatenate(shares) for shares in zip(*found, strict=True))
    return Clustering(labels, centers, float(np.maximum(2 - 2 * similarity, 0).sum()))


def _within(
    stages: list[Floats],
    samples: Ints,
    cells: Partition,
    counts: Ints,
    settings: _Settings,
    everyone: Everyone | None = None,
) -> Clustering:
    """`counts[c]` clusters in cell c of these samples."""
    if everyone is None:
        parts = _inside(stages, samples, cells, counts, settings, range(len(counts)))
    else:
        found = everyone("within", len(stages), cells.pseudo_labels, counts, settings)
        parts = [part for share in found for part in share]
    labels = np.empty(len(samples), np.int64)
    labels[cells.order] = np.concatenate(
        [part.labels_ + begin for part, begin in zip(parts, np.cumsum(counts) - counts, strict=True)]
    )
    centers = np.concatenate([part.cluster_centers_ for part in parts])
    return Clustering(labels, centers, sum(part.inertia_ for part in parts))


def _inside(
    stages: list[Floats], samples: Ints, cells: Partition, counts: Ints, settings: _Settings, which: range
) -> list[Clustering]:
    """The clusters inside some cells, each by itself."""
    parts: list[Clustering] = []
    for cell in which:
        members = cells.order[cells.offsets[cell] : cells.offsets[cell + 1]]
        inner = settings._replace(seed=rng.derive(settings.seed, "within", cell))
        parts.append(_cluster(stages, samples[members], int(counts[cell]), inner))
    return parts


def _shares(cells: Partition, cell_size: float) -> Ints:
    """Clusters for each cell in proportion to its size, N / cell_size in all, but one at least for each."""
    return np.maximum(np.diff(np.rint(cells.offsets / cell_size)), 1).astype(np.int64)


def _trained(points: NDArray[np.float32], k: int, settings: _Settings) -> NDArray[np.float32]:
    if k == 1:
        mean = points.mean(axis=0, keepdims=True)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)
    import faiss

    # The start is given and nothing is left for faiss to draw; it splits the largest cluster to refill an
    # empty one.
    trainer = faiss.Kmeans(
        points.shape[1],
        k,
        niter=settings.n_iter,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    trainer.train(points, init_centroids=_start(points, k, settings.seed))
    return np.asarray(trainer.centroids, dtype=np.float32)


def _start(points: NDArray[np.float32], k: int, seed: int) -> NDArray[np.float32]:
    if k > _SPREAD_START:
        return points[rng.permuted(np.arange(k), len(points), rng.derive(seed, "start"))]
    from sklearn.cluster import kmeans_plusplus

    few = rng.permuted(np.arange(min(len(points), 32 * k)), len(points), rng.derive(seed, "few"))
    spread, _ = kmeans_plusplus(points[few], k, random_state=rng.derive(seed, "start") % 2**32)
    return np.ascontiguousarray(spread, dtype=np.float32)


def _assigned(stages: list[Floats], samples: Ints, centers: Floats) -> tuple[Ints, NDArray[np.float64]]:
    """The center of the largest cosine for each sample, the first of equals, and that cosine."""
    labels, similarity = np.empty(len(samples), np.int64), np.empty(len(samples))
    length = _chunk(centers)
    for begin in range(0, len(samples), length):
        part = slice(begin, begin + length)
        cosines = _unit_rows(stages, samples[part]) @ centers.T
        labels[part] = cosines.argmax(axis=1)
        similarity[part] = cosines.max(axis=1)
    return labels, similarity


def _chunk(centers: Floats) -> int:
    """How many samples are assigned at a time."""
    return max(1, _CHUNK // int(max(centers.shape)))


def _unit_rows(stages: list[Floats], samples: Ints) -> NDArray[np.float32]:
    """(b, sum of D_s) float32 rows of length 1: each stage normalised, all of equal weight."""
    parts: list[NDArray[np.float32]] = []
    for stage, embeddings in enumerate(stages):
        rows = np.asarray(embeddings[samples], dtype=np.float32)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        bad = samples[~((norms > 0) & np.isfinite(norms)).ravel()]
        if len(bad):
            named = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
            raise NumericalError(
                f"embeddings {stage} of {len(stages)}: rows {named} are zero or not finite and have no"
                " direction; embed again with a checkpoint from before the encoder diverged"
            )
        parts.append(rows / norms)
    return np.concatenate(parts, axis=1) / np.float32(math.sqrt(len(parts)))


def _stages(embeddings: Embeddings) -> list[Floats]:
    stages = [embeddings] if isinstance(embeddings, np.ndarray) else list(embeddings)
    lengths = {len(stage) for stage in stages}
    if len(lengths) != 1 or any(stage.ndim != 2 for stage in stages):
        shapes = ", ".join(str(stage.shape) for stage in stages) or "nothing"
        raise RecipeError(f"embeddings: got {shapes}, expected (N, D) with the same N for every stage")
    return stages


def resolved_clusters(n: int, n_clusters: int | None, cell_size: float | None) -> int:
    """K for n samples, however it was given; RecipeError unless in exactly one way, and possible."""
    if (n_clusters is None) == (cell_size is None):
        raise RecipeError(
            f"n_clusters={n_clusters} and cell_size={cell_size}: give one of them, the other is {n} / it"
        )
    if cell_size is not None and not 2 <= cell_size <= n:
        raise RecipeError(f"cell_size={cell_size}: expected 2 to {n}, the number of samples")
    k = n_clusters if n_clusters is not None else max(2, round(n / (cell_size or 1)))
    _check_n_clusters(k, n)
    return k


def _check_n_clusters(k: int, n: int) -> None:
    if not 2 <= k <= n:
        raise RecipeError(
            f"n_clusters={k} but there are {n:,} embeddings: expected 2 to {n}; change n_clusters"
        )


def _report_empty(found: Clustering) -> None:
    k = len(found.cluster_centers_)
    empty = k - len(np.unique(found.labels_))
    if empty:
        _log.warning("%s of %s clusters are empty; the cells are numbered without them", empty, k)
