"""Views that hide what earlier stages look at, as much of it as is needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overtone import artifacts, rng
from overtone.contracts import Dataset, Views
from overtone.discrimination import COMPANIONS, known_inside
from overtone.evidence import covering, saliency, strongest
from overtone.partition import Partition
from overtone.progress import Display
from overtone.run_folder import Parts, embeddings_of, load_stage, reusable, stage_folder
from overtone.views.erasing import ErasingViews, Units, bank_of

logger = logging.getLogger(__name__)

SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)  # of a stage's saliency that is hidden: the first that suffices
HIDDEN = 0.005  # what the stage may still know among random samples; a new encoder makes more of the rest


def erasing_views(
    parts: Parts, folder: Path, stage: int, hidden: Sequence[int], display: Display
) -> ErasingViews:
    """Views that hide what some stages look at; which units of each sample is kept in the run folder."""
    erase = parts.stages[stage].erase
    maps = [saliency_of(parts, folder, earlier, display) for earlier in hidden]
    place = stage_folder(folder, stage) / "erasing"
    inputs = {"erase": str(erase), "seed": str(parts.seed)} | {
        f"saliency {s}": artifacts.digest(stage_folder(folder, s) / "saliency") for s in hidden
    }
    if not reusable(place, inputs):
        choice: dict[str, Any] = {"hides": list(hidden)}
        if erase == "auto":
            marked, measured = _sufficient(parts, folder, hidden, maps)
            choice["known"] = measured
        else:
            marked = strongest(np.mean(maps, axis=0), float(erase))
        choice["fraction"] = float(marked.mean())
        logger.info(
            "stage %d: views hide %.0f %% of a sample (%.0f-%.0f %%), what stage %s looks at",
            stage,
            100 * marked.mean(),
            *(100 * np.quantile(marked.mean(axis=1), (0.05, 0.95))),
            " and ".join(map(str, hidden)),
        )
        with artifacts.writing(place, inputs) as beside:
            np.save(beside / "marked.npy", marked, allow_pickle=False)
            artifacts.write_json(beside / "choice.json", choice)
    return kept_erasing(folder, stage, parts.views, parts.dataset, parts.seed)


def _sufficient(
    parts: Parts, folder: Path, hidden: Sequence[int], maps: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.bool_], dict[str, float]]:
    """The smallest share of their saliency without which the hidden stages know nothing any more."""
    n = len(parts.dataset)
    groups = Partition(
        rng.permuted(np.arange(n), n, rng.derive(parts.seed, "erasing", "groups")) // COMPANIONS
    )
    encoders = [load_stage(parts, folder, earlier) for earlier in hidden]
    measured: dict[str, float] = {}
    for share in SHARES:
        marked = np.logical_or.reduce([covering(each, share) for each in maps])
        views = _erasing(parts.views, parts.dataset, parts.seed, marked)
        inside = known_inside(encoders, parts.dataset, views, groups, seed=parts.seed, device=parts.device)
        measured[str(share)] = max(stage.known for stage in inside)
        if measured[str(share)] <= HIDDEN:
            break
    else:
        logger.warning(
            "stage %s tells samples apart with %.0f %% of its saliency hidden; the next may learn the same",
            " and ".join(map(str, hidden)),
            100 * share,
        )
    return marked, measured


def saliency_of(parts: Parts, folder: Path, stage: int, display: Display) -> NDArray[np.float32]:
    """(N, U) what a stage looks at in each training sample; computed once and kept in the run folder."""
    place = stage_folder(folder, stage) / "saliency"
    inputs = {
        "encoder": artifacts.digest(stage_folder(folder, stage) / "encoder"),
        "embeddings": artifacts.digest(stage_folder(folder, stage) / "embeddings"),
    }
    if not reusable(place, inputs):
        found = saliency(
            load_stage(parts, folder, stage),
            parts.dataset,
            embeddings_of(folder, stage),
            units_of(parts.dataset),
            seed=parts.seed,
            device=parts.device,
            progress=lambda done, total: display.advance(f"what stage {stage} looks at", done, total),
        )
        with artifacts.writing(place, inputs) as beside:
            np.save(beside / "saliency.npy", found.astype(np.float16), allow_pickle=False)
    return kept_saliency(folder, stage)


def kept_saliency(folder: Path, stage: int) -> NDArray[np.float32]:
    """(N, U) what a stage looks at, as a run folder keeps it."""
    place = stage_folder(folder, stage) / "saliency" / "saliency.npy"
    kept: NDArray[np.float32] = np.load(place, allow_pickle=False).astype(np.float32)
    return kept


def kept_erasing(folder: Path, stage: int, views: Views, dataset: Dataset, seed: int) -> ErasingViews:
    """The views of a stage that erases, from what its run folder keeps."""
    place = stage_folder(folder, stage) / "erasing"
    marked = np.load(place / "marked.npy", mmap_mode="r", allow_pickle=False)
    return _erasing(views, dataset, seed, marked)


def hidden_stages(folder: Path, stage: int) -> list[int]:
    """The earlier stages whose evidence a stage hides, from its run folder."""
    choice = artifacts.read_json(stage_folder(folder, stage) / "erasing" / "choice.json")
    hides: list[int] = choice["hides"]
    return hides


def _erasing(views: Views, dataset: Dataset, seed: int, marked: NDArray[np.bool_]) -> ErasingViews:
    return ErasingViews(views, marked, dataset, units_of(dataset), seed=seed)


def units_of(dataset: Dataset) -> Units:
    """What is hidden as one in these data."""
    return Units.of(bank_of(dataset, 0)[dataset.modality])
