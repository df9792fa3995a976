"""Spherical k-means of embeddings that need not fit in memory.

Embeddings are compared by their direction alone (Dhillon & Modha, "Concept decompositions for large sparse
text data using clustering", Machine Learning 2001).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from overtone import distributed, rng
from overtone.errors import NumericalError, RecipeError
from overtone.lloyd import Clustering, Floats, Ints, Settings, balanced, chunk, nearest, trained
from overtone.partition import Partition

Embeddings: TypeAlias = Floats | Sequence[Floats]
Everyone: TypeAlias = Callable[..., Sequence[Any]]
"""Has each of several processes do one of `works`, given its name and arguments; what each found."""

_log = logging.getLogger(__name__)

# More clusters are found level by level, about `_FAN` inside each of the level above: the cost of a sample
# grows with the logarithm of their number.
_ONE_LEVEL = 1024
_FAN = 512
# Up to so many samples faiss finds them. Beyond, passes in torch take a fraction of the time: the matrix
# product in the wheels of faiss is far from what a processor can do (56 against 300 GFLOP/s where measured).
_FEW = 2**16


def kmeans(
    embeddings: Embeddings,
    n_clusters: int,
    *,
    seed: int,
    n_iter: int = 20,
    max_points_per_cluster: int = 256,
    everyone: Everyone | None = None,
) -> Clustering:
    """Spherical k-means, trained on a seeded subsample; everything is then assigned in chunks.

    Up to 65,536 samples faiss trains, beyond it passes in torch. More than 1,024 clusters are found level by
    level, clusters within clusters, and the log says so. Those of up to `max_points_per_cluster` samples on
    average keep to a quarter of the mean size to four times it: smaller ones are dissolved and the largest
    halved, so K may then differ a little from what was asked for.

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
    settings = Settings(seed, n_iter, max_points_per_cluster, n <= _FEW)
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
    settings = Settings(seed, n_iter, max_points_per_cluster, len(groups) <= _FEW)
    return _within(stages, np.arange(len(groups)), cells, counts, settings, everyone)


def works(newest: Callable[[int], Embeddings]) -> dict[str, Callable[..., Any]]:
    """What the processes of a run do for `kmeans` and `kmeans_within`, each for its share of the samples.

    Args:
        newest: The embeddings of so many stages, the newest ones.
    """

    def assign(n_stages: int, centers: Floats) -> tuple[Ints, NDArray[np.float64]]:
        stages = _stages(newest(n_stages))
        # In the same chunks as one process would, so that no sum is rounded in another way.
        own = distributed.own_share(len(stages[0]), chunk(max(centers.shape)))
        return _assigned(stages, np.arange(own.start, own.stop), centers)

    def within(n_stages: int, groups: Ints, counts: Ints, settings: Settings) -> list[Clustering]:
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


def first_level(k: int) -> int:
    """How many of k clusters are found first; the others lie within these.

    >>> first_level(1000), first_level(100_000)
    (1000, 316)
    """
    return k if k <= _ONE_LEVEL else round(k ** (1 / _levels(k)))


def most_clusters(k: int) -> int:
    """How many may come where k are asked for: on each level, each cluster of the one above has one at least.

    >>> most_clusters(1000), most_clusters(90_000)
    (1000, 90300)
    """
    levels = 1 if k <= _ONE_LEVEL else _levels(k)
    first = first_level(k)
    return k + sum(int(first**level) for level in range(1, levels))


def _levels(k: int) -> int:
    return max(2, math.ceil(math.log(k) / math.log(_FAN)))


def subsample_size(n: int, k: int, per_cluster: int, by_faiss: bool) -> int:
    """From how many of n samples the centers of k clusters are found.

    >>> subsample_size(1_000_000, 10, 256, by_faiss=False)
    32768
    """
    fewest = 0 if by_faiss else _FEW // 2  # they cost less than reading the rest once
    return min(n, max(k * per_cluster, fewest))


def _cluster(
    stages: list[Floats], samples: Ints, k: int, settings: Settings, everyone: Everyone | None = None
) -> Clustering:
    """K clusters of these samples, which are all there are where the work is shared out."""
    if k > _ONE_LEVEL:
        first = first_level(k)
        told = "%s clusters of %s samples on %s levels: %s, then within each"
        _log.info(told, k, len(samples), _levels(k), first)
        settings = settings._replace(by_faiss=False)
        upper = _cluster(stages, samples, first, settings._replace(cell_size=0.0), everyone)
        cells, cell_size = Partition(upper.labels_), len(samples) / k
        settings = settings._replace(cell_size=settings.cell_size or cell_size)
        return _within(stages, samples, cells, _shares(cells, cell_size), settings, everyone)
    n_points = subsample_size(len(samples), k, settings.max_points_per_cluster, settings.by_faiss)
    key = rng.derive(settings.seed, "subsample")
    drawn = np.sort(rng.permuted(np.arange(n_points), len(samples), key))
    points = _unit_rows(stages, samples[drawn])
    centers = trained(points, k, settings)
    if settings.cell_size and n_points == len(samples):
        return balanced(torch.from_numpy(points), torch.from_numpy(centers), settings)
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
    settings: Settings,
    everyone: Everyone | None = None,
) -> Clustering:
    """`counts[c]` clusters in cell c of these samples."""
    if everyone is None:
        parts = _inside(stages, samples, cells, counts, settings, range(len(counts)))
    else:
        found = everyone("within", len(stages), cells.pseudo_labels, counts, settings)
        parts = [part for share in found for part in share]
    counts = np.array([len(part.cluster_centers_) for part in parts])
    labels = np.empty(len(samples), np.int64)
    labels[cells.order] = np.concatenate(
        [part.labels_ + begin for part, begin in zip(parts, np.cumsum(counts) - counts, strict=True)]
    )
    centers = np.concatenate([part.cluster_centers_ for part in parts])
    return Clustering(labels, centers, sum(part.inertia_ for part in parts))


def _inside(
    stages: list[Floats], samples: Ints, cells: Partition, counts: Ints, settings: Settings, which: range
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


def _assigned(stages: list[Floats], samples: Ints, centers: Floats) -> tuple[Ints, NDArray[np.float64]]:
    """The center of the largest cosine for each sample, the first of equals, and that cosine."""
    labels, similarity = np.empty(len(samples), np.int64), np.empty(len(samples))
    length, targets = chunk(max(centers.shape)), torch.from_numpy(centers).float()
    for begin in range(0, len(samples), length):
        part = slice(begin, begin + length)
        labels[part], similarity[part] = nearest(torch.from_numpy(_unit_rows(stages, samples[part])), targets)
    return labels, similarity


def _unit_rows(stages: list[Floats], samples: Ints) -> NDArray[np.float32]:
    """(b, sum of D_s) float32 rows of length 1, stages of equal weight; the samples ascend."""
    unit = torch.empty(len(samples), sum(stage.shape[1] for stage in stages))
    length = chunk(unit.shape[1])
    for begin in range(0, len(samples), length):
        part, first = samples[begin : begin + length], 0
        for stage, embeddings in enumerate(stages):
            rows = _rows(embeddings, part)
            # NumPy adds up each row by itself, in an order that no number of threads changes.
            norms = np.sqrt(np.add.reduce((rows * rows).numpy(), axis=1, keepdims=True))
            bad = part[~((norms > 0) & np.isfinite(norms)).ravel()]
            if len(bad):
                named = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
                raise NumericalError(
                    f"embeddings {stage} of {len(stages)}: rows {named} are zero or not finite and have no"
                    " direction; embed again with a checkpoint from before the encoder diverged"
                )
            place = unit[begin : begin + len(part), first : first + rows.shape[1]]
            torch.div(rows, torch.from_numpy(norms), out=place)
            first += rows.shape[1]
    if len(stages) > 1:
        unit /= float(np.float32(math.sqrt(len(stages))))
    return unit.numpy()


def _rows(embeddings: Floats, samples: Ints) -> Tensor:
    """Some rows in float32; neighbours are read where they lie, without a copy."""
    together = len(samples) and samples[-1] - samples[0] == len(samples) - 1
    rows = embeddings[samples[0] : samples[-1] + 1] if together else embeddings[samples]
    with warnings.catch_warnings():  # a map that must not be written to: nothing is
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))


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
