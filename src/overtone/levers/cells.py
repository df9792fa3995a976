"""The cells of a later stage, as fine as what the stages before it know inside them asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from overtone import artifacts, distributed, rng
from overtone.clustering import Mode, next_partition
from overtone.discrimination import Looks
from overtone.granularity import candidates, chosen
from overtone.lloyd import Floats, Ints
from overtone.partition import Partition
from overtone.run_folder import Parts, array_in, embeddings_of, load_stage, reusable, stage_folder

logger = logging.getLogger(__name__)

Made = Callable[[int | None], tuple[Partition, Ints]]


def partition_of(parts: Parts, folder: Path, stage: int) -> Partition:
    """The cells of a later stage, samples that the stages before cannot tell apart; kept in the run folder.

    How fine they have to be is measured on views that hide nothing: a new encoder finds traces of what is
    hidden of which the old ones make nothing, and cells deprive it of their use.
    """
    n, spec = len(parts.dataset), parts.stages[stage]
    if spec.cells == "whole":
        return Partition.whole(n)
    mode: Mode = spec.cells
    place = stage_folder(folder, stage) / "partition"
    inputs = {
        "cells": f"{spec.cells}, n_clusters={spec.n_clusters}, cell_size={spec.cell_size}, seed={parts.seed}",
        **{f"embeddings {s}": artifacts.digest(stage_folder(folder, s) / "embeddings") for s in range(stage)},
        "views": parts.made_of.get("views", ""),
    }
    if not reusable(place, inputs):
        embeddings = [embeddings_of(folder, earlier) for earlier in range(stage)]
        labels, seed = _earlier_labels(folder, stage), rng.derive(parts.seed, "clusters", stage)

        @lru_cache(maxsize=1)  # the size tried last is nearly always the one that is taken
        def made(size: int | None) -> tuple[Partition, Ints]:
            return next_partition(
                mode,
                embeddings,
                labels,
                n_clusters=spec.n_clusters,
                cell_size=size,
                seed=seed,
                everyone=distributed.all_do,
            )

        size, choice = _size(parts, folder, stage, made)
        partition, newest = made(size)
        with artifacts.writing(place, inputs) as beside:
            partition.save(beside)
            np.save(beside / "cluster_labels.npy", newest, allow_pickle=False)
            artifacts.write_json(beside / "choice.json", choice)
    return Partition.load(place, n)


def newest_embeddings(folder: Path, stage: int, count: int) -> list[Floats]:
    """What so many of the stages before one left behind, the newest."""
    return [embeddings_of(folder, earlier) for earlier in range(stage - count, stage)]


def _earlier_labels(folder: Path, stage: int) -> list[Ints]:
    """The cluster labels of all stages but the newest, of those that were ever clustered."""
    places = [stage_folder(folder, s) / "partition" / "cluster_labels.npy" for s in range(1, stage)]
    return [array_in(place, 1) for place in places if place.exists()]


def _size(parts: Parts, folder: Path, stage: int, made: Made) -> tuple[int | None, dict[str, Any]]:
    """The cell size of a stage, and how it was chosen where the run was to choose."""
    wanted = parts.stages[stage].cell_size
    if not isinstance(wanted, str):
        return wanted, {"cell_size": wanted}
    encoders = [load_stage(parts, folder, earlier) for earlier in range(stage)]
    looks = Looks(encoders, parts.dataset, parts.views, seed=parts.seed, device=parts.device)

    def known(size: int) -> float:
        cells, _ = made(size)
        return max(found.known for found in looks.inside(cells))

    size, measured = chosen(candidates(wanted, len(parts.dataset)), known)
    tried = ", ".join(f"{share:.0%} at {tried}" for tried, share in measured.items())
    logger.info(
        "stage %d: %s cells of %d, inside which earlier stages know (samples a cell): %s",
        stage,
        wanted,
        size,
        tried,
    )
    return size, {"cell_size": size, "known": {str(tried): share for tried, share in measured.items()}}
