"""The cells of a later stage, as fine as what the stages before it know inside them asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from overtone import artifacts, rng
from overtone.clustering import next_partition
from overtone.contracts import Views
from overtone.discrimination import known_inside
from overtone.granularity import FINE, candidates, chosen
from overtone.kmeans import Ints
from overtone.partition import Partition
from overtone.run_folder import Parts, embeddings_of, load_stage, reusable, stage_folder

logger = logging.getLogger(__name__)

Made = Callable[..., tuple[Partition, Ints]]


def partition_of(parts: Parts, folder: Path, stage: int, answered: Sequence[int], views: Views) -> Partition:
    """The cells of a later stage: samples that the stages it answers by cells cannot tell apart.

    Args:
        parts: The run.
        folder: Its folder, in which the cells are kept.
        stage: Which stage, from 1.
        answered: The earlier stages whose embeddings are clustered; without any there is one cell.
        views: What this stage will see; what the others know of it decides how fine its cells are.
    """
    n, spec = len(parts.dataset), parts.stages[stage]
    if spec.cells == "whole" or not answered:
        return Partition.whole(n)
    place = stage_folder(folder, stage) / "partition"
    inputs = {
        "cells": f"{spec.cells}, n_clusters={spec.n_clusters}, cell_size={spec.cell_size}, seed={parts.seed}",
        **{f"embeddings {s}": artifacts.digest(stage_folder(folder, s) / "embeddings") for s in answered},
    }
    if not reusable(place, inputs):
        made = partial(
            next_partition,
            spec.cells,
            [embeddings_of(folder, earlier) for earlier in answered],
            _earlier_labels(folder, answered),
            seed=rng.derive(parts.seed, "clusters", stage),
        )
        size: int | str | None = spec.cell_size
        choice: dict[str, Any] = {}
        if isinstance(size, str):
            size, choice = _chosen_size(parts, folder, stage, answered, views, made)
        partition, newest = made(cell_size=size, n_clusters=spec.n_clusters)
        with artifacts.writing(place, inputs) as beside:
            partition.save(beside)
            np.save(beside / "cluster_labels.npy", newest, allow_pickle=False)
            artifacts.write_json(beside / "choice.json", {"answers": list(answered), **choice})
    return Partition.load(place, n)


def _earlier_labels(folder: Path, answered: Sequence[int]) -> list[Ints]:
    """The cluster labels of all stages but the newest, of those that were ever clustered."""
    places = [stage_folder(folder, s + 1) / "partition" / "cluster_labels.npy" for s in answered[:-1]]
    return [np.load(place, allow_pickle=False) for place in places if place.exists()]


def _chosen_size(
    parts: Parts, folder: Path, stage: int, answered: Sequence[int], views: Views, made: Made
) -> tuple[int, dict[str, Any]]:
    encoders = [load_stage(parts, folder, earlier) for earlier in answered]

    def known(size: int) -> float:
        cells, _ = made(cell_size=size)
        inside = known_inside(encoders, parts.dataset, views, cells, seed=parts.seed, device=parts.device)
        return max(stage.known for stage in inside)

    granularity = parts.stages[stage].cell_size
    assert isinstance(granularity, str), "a number is not chosen"
    size, measured = chosen(candidates(granularity, len(parts.dataset)), known)
    tried = ", ".join(f"{share:.0%} at {tried}" for tried, share in measured.items())
    logger.info(
        "stage %d: %s cells of %d: inside them earlier stages know %s samples a cell",
        stage,
        granularity,
        size,
        tried,
    )
    return size, {"cell_size": size, "known": {str(tried): share for tried, share in measured.items()}}


def known_in_own_cells(parts: Parts, folder: Path, stage: int) -> float:
    """What a stage knows inside fine cells of its own embeddings; kept in the run folder.

    See `Discrimination.known`: near 1, it names every sample.
    """
    place = stage_folder(folder, stage) / "discrimination"
    inputs = {
        "embeddings": artifacts.digest(stage_folder(folder, stage) / "embeddings"),
        "views": parts.made_of.get("views", ""),
    }
    if not reusable(place, inputs):
        seed = rng.derive(parts.seed, "own cells", stage)
        size = min(FINE, len(parts.dataset) / 2)
        cells, _ = next_partition("concat", [embeddings_of(folder, stage)], cell_size=size, seed=seed)
        (found,) = known_inside(
            [load_stage(parts, folder, stage)],
            parts.dataset,
            parts.views,
            cells,
            seed=seed,
            device=parts.device,
        )
        with artifacts.writing(place, inputs) as beside:
            artifacts.write_json(beside / "discrimination.json", {"cell_size": size, **found._asdict()})
    known: float = artifacts.read_json(place / "discrimination.json")["known"]
    return known
