"""Lloyd's algorithm on unit rows in memory, and clusters that keep near one size."""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from overtone import rng
from overtone.partition import Partition

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.int64]

# Up to here a spread start (k-means++) costs little and finds blobs that a random one misses. On random data
# with K = 600 to 5,000 a random start ended 0.5 to 1.4 % below it in summed similarity, several times faster.
_SPREAD_START = 256
_SETTLING = 3  # the last passes, in which no cluster begins anew
CHUNK = 2**21  # numbers in memory at once while everything is assigned: what the caches hold


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


class Settings(NamedTuple):
    """How centers are found; what `kmeans` was asked for, and at which level it is."""

    seed: int
    n_iter: int
    max_points_per_cluster: int
    by_faiss: bool
    cell_size: float = 0.0  # the mean size around which clusters are kept; 0 where they are as they come

    @property
    def least(self) -> float:
        """The smallest size of a cluster that may stay."""
        return max(2.0, self.cell_size / 4) if self.cell_size else 1.0


def trained(points: NDArray[np.float32], k: int, settings: Settings) -> NDArray[np.float32]:
    """(k, D) centers of length 1 of some unit rows (n, D): by faiss, or by passes in torch."""
    if k == 1:
        mean = points.mean(axis=0, keepdims=True)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)
    if not settings.by_faiss:
        return _by_passes(torch.from_numpy(points), k, settings).numpy()
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
    trainer.train(points, init_centroids=_start(points, k, settings))
    return np.asarray(trainer.centroids, dtype=np.float32)


def _by_passes(points: Tensor, k: int, settings: Settings) -> Tensor:
    """Lloyd's algorithm; clusters that are empty, or too small where that counts, begin anew elsewhere."""
    centers, labels = torch.from_numpy(_start(points.numpy(), k, settings)), torch.empty(0)
    for turn in range(settings.n_iter):
        before, labels = labels, nearest(points, centers)[0]
        if torch.equal(labels, before):
            break
        centers = _means(points, labels, k)
        sizes = torch.bincount(labels, minlength=k)
        small = torch.nonzero(sizes < settings.least).ravel()
        crowded = torch.nonzero(sizes[labels] > len(points) / k).ravel()
        if turn < settings.n_iter - _SETTLING and len(small):
            m = min(len(small), len(crowded))
            drawn = rng.permuted(np.arange(m), len(crowded), rng.derive(settings.seed, "refill", turn))
            centers[small[:m]] = points[crowded[torch.from_numpy(drawn)]]
    return centers


def balanced(points: Tensor, centers: Tensor, settings: Settings) -> Clustering:
    """Clusters of a quarter of the mean size to four times it, each with the mean of its samples as center.

    Smaller ones are left to their nearest neighbours; then the largest is halved, again and again.
    """
    labels = nearest(points, centers)[0]
    sizes = torch.bincount(labels, minlength=len(centers))
    # The largest stays in any case.
    large = torch.nonzero(sizes >= min(settings.least, float(sizes.max()))).ravel()
    small = torch.nonzero(sizes[labels] < sizes[large].min()).ravel()
    labels[small] = large[nearest(points[small], centers[large])[0]]
    labels = torch.unique(labels, return_inverse=True)[1]
    cells = Partition(labels.numpy())
    split = np.split(cells.order, cells.offsets[1:-1])
    largest = [(-len(members), cell, members) for cell, members in enumerate(split)]
    heapq.heapify(largest)
    count = cells.n_cells
    while -largest[0][0] > 4 * settings.cell_size or (
        count < len(centers) and -largest[0][0] >= 2 * settings.least
    ):
        _, cell, members = heapq.heappop(largest)
        half = _half(points[torch.from_numpy(members)]).numpy()
        labels[members[half]] = count
        for number, part in ((cell, members[~half]), (count, members[half])):
            heapq.heappush(largest, (-len(part), number, part))
        count += 1
    centers = _means(points, labels, count)
    similarity = (points * centers[labels]).sum(dim=1).double()
    return Clustering(labels.numpy(), centers.numpy(), float((2 - 2 * similarity).clamp(min=0).sum()))


def _half(points: Tensor) -> Tensor:
    """Which half of some samples lies towards the one that is farthest from their mean."""
    far = points[(points @ points.mean(dim=0)).argmin()]
    half = torch.zeros(len(points), dtype=torch.bool)
    half[(points @ far).argsort(descending=True, stable=True)[: len(points) // 2]] = True
    return half


def _means(points: Tensor, labels: Tensor, k: int) -> Tensor:
    """(k, D) the direction of each cluster's sum; nought of an empty one."""
    sums = torch.zeros(k, points.shape[1]).index_add_(0, labels, points)
    return torch.nn.functional.normalize(sums)


def nearest(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The center of the largest cosine for each row, the first of equals, and that cosine."""
    length = chunk(max(centers.shape))
    labels, cosines = torch.empty(len(points), dtype=torch.int64), torch.empty(len(points))
    products = torch.empty(min(length, len(points)), len(centers))
    for begin in range(0, len(points), length):
        part = slice(begin, begin + length)
        rows = points[part]
        found = torch.mm(rows, centers.T, out=products[: len(rows)])
        torch.max(found, dim=1, out=(cosines[part], labels[part]))
    return labels, cosines


def _start(points: NDArray[np.float32], k: int, settings: Settings) -> NDArray[np.float32]:
    seed = settings.seed
    if k > _SPREAD_START or settings.cell_size:
        return points[rng.permuted(np.arange(k), len(points), rng.derive(seed, "start"))]
    from sklearn.cluster import kmeans_plusplus

    few = rng.permuted(np.arange(min(len(points), 32 * k)), len(points), rng.derive(seed, "few"))
    spread, _ = kmeans_plusplus(points[few], k, random_state=rng.derive(seed, "start") % 2**32)
    return np.ascontiguousarray(spread, dtype=np.float32)


def chunk(width: int) -> int:
    """How many rows of that width are worked on at a time."""
    return max(1, CHUNK // width)
