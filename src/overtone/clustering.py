"""From the embeddings of the stages so far to the cells of the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from overtone import rng
from overtone.errors import RecipeError
from overtone.kmeans import Everyone, kmeans, kmeans_within, merge_small, resolved_clusters
from overtone.lloyd import Floats, Ints
from overtone.partition import Partition

Mode: TypeAlias = Literal["concat", "intersect", "nested", "last"]


def next_partition(
    mode: Mode,
    embeddings: Sequence[Floats],
    earlier_labels: Sequence[Ints] = (),
    *,
    n_clusters: int | None = None,
    cell_size: float | None = None,
    seed: int,
    everyone: Everyone | None = None,
) -> tuple[Partition, Ints]:
    """The cells of the next stage, none of a single sample where that can be had.

    Args:
        mode: `concat` clusters all stages' embeddings together. `intersect` clusters the newest stage's and
            keeps apart what any stage did (MCL, section 3). `nested` clusters the newest stage's within each
            cell of the earlier labels. `last` takes the clusters of the newest stage alone, singletons and
            all, which is what the published code does.
        embeddings: For each stage so far (N, D_s), any scale, memory-mapped or not.
        earlier_labels: For each stage but the newest (N,) the cluster labels returned here.
        n_clusters: K; with `nested`, the most in each cell.
        cell_size: Instead, the mean size wanted of a cluster: K = N / cell_size, at least 2.
        seed: The run's seed.
        everyone: Shares the work out over processes, see `kmeans`.

    Returns:
        The partition, and (N,) int64 the cluster labels of the newest stage, to keep for the next call.

    Raises:
        RecipeError: An unknown mode, or a K that is not possible.
        NumericalError: Embeddings are zero, not finite or all alike.

    >>> import numpy as np
    >>> wheel = np.eye(4, dtype=np.float32)[np.arange(12) % 4]
    >>> next_partition("concat", [wheel], n_clusters=4, seed=0)[0].sizes
    array([3, 3, 3, 3])
    """
    if mode not in get_args(Mode):
        raise RecipeError(f"cells={mode!r}: expected one of {', '.join(get_args(Mode))}")
    newest, n = embeddings[-1], len(embeddings[-1])
    k = resolved_clusters(n, n_clusters, cell_size)
    seed = rng.derive(seed, "cells", len(embeddings))
    if mode == "concat":
        found = kmeans(embeddings, k, seed=seed, everyone=everyone)
        labels = merge_small(found.labels_, embeddings, found.cluster_centers_)
        return Partition(labels), labels
    if mode == "nested" and earlier_labels:
        parents = Partition.intersect(earlier_labels).merged().pseudo_labels
        labels = kmeans_within(
            newest, parents, n_clusters=n_clusters, cell_size=cell_size, seed=seed, everyone=everyone
        ).labels_
        cells = Partition(labels).merged(parents=parents)
        return cells, cells.pseudo_labels
    labels = kmeans(newest, k, seed=seed, everyone=everyone).labels_
    if mode == "last":
        return Partition(labels), labels
    coarser = Partition.intersect(earlier_labels).pseudo_labels if earlier_labels else None
    return Partition.intersect([*earlier_labels, labels]).merged(parents=coarser), labels
