"""Views that hide what earlier stages look at, as much of it as is needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from overtone import artifacts, distributed, rng
from overtone.clustering import next_partition
from overtone.contracts import Dataset, Views
from overtone.discrimination import COMPANIONS, known_inside
from overtone.errors import RecipeError
from overtone.evidence import AT_ONCE, covering, saliency, strongest
from overtone.granularity import MOST_KNOWN, candidates
from overtone.partition import Partition
from overtone.progress import Display
from overtone.run_folder import Parts, array_in, embeddings_of, load_stage, reusable, stage_folder
from overtone.shares import join_shares, share_out
from overtone.views.erasing import ErasingViews, Units, bank_of

logger = logging.getLogger(__name__)

SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)  # of a stage's saliency that is hidden: the first that suffices
HIDDEN = 0.005  # what the stage may still know among random samples; a new encoder makes more of the rest
MOST_HIDDEN = 0.5  # of a sample; what is spread wider shares its pixels with everything else


def views_of(parts: Parts, folder: Path, stage: int) -> Views:
    """The views of a later stage; which units of each sample they hide is kept in the run folder."""
    erase, place = parts.stages[stage].erase, stage_folder(folder, stage) / "erasing"
    if erase == "off":
        return parts.views
    inputs = {
        "erase": str(erase),
        "seed": str(parts.seed),
        "views": parts.made_of.get("views", ""),
        **{f"embeddings {s}": artifacts.digest(stage_folder(folder, s) / "embeddings") for s in range(stage)},
    }
    if not reusable(place, inputs):
        if erase == "auto":
            marked, choice = _as_needed(parts, folder, stage)
        else:
            hides = list(range(stage))
            maps = [saliency_of(parts, folder, earlier) for earlier in hides]
            marked, choice = strongest(np.mean(maps, axis=0), float(erase)), {"hides": hides}
        with artifacts.writing(place, inputs) as beside:
            if marked is not None:
                _say(stage, choice["hides"], marked)
                choice["fraction"] = float(marked.mean())
                np.save(beside / "marked.npy", marked, allow_pickle=False)
            artifacts.write_json(beside / "choice.json", choice)
    hides_some = hidden_stages(folder, stage)
    return kept_erasing(folder, stage, parts.views, parts.dataset, parts.seed) if hides_some else parts.views


def _as_needed(parts: Parts, folder: Path, stage: int) -> tuple[NDArray[np.bool_] | None, dict[str, Any]]:
    """Hides stages that know much inside fine cells until none does: often none at all.

    Of several, the one that knows most of random samples comes first: what it learned dominates.
    """
    encoders = [load_stage(parts, folder, earlier) for earlier in range(stage)]
    size = candidates("fine", len(parts.dataset))[0]
    seed = rng.derive(parts.seed, "clusters", stage)
    cells, _ = next_partition(
        "concat",
        [embeddings_of(folder, s) for s in range(stage)],
        cell_size=size,
        seed=seed,
        everyone=distributed.all_do,
    )
    hides: list[int] = []
    choice: dict[str, Any] = {"hides": hides, "cell_size": size, "known": []}
    views, marked = parts.views, None
    while len(hides) < stage:
        inside = known_inside(encoders, parts.dataset, views, cells, seed=parts.seed, device=parts.device)
        choice["known"].append([found.known for found in inside])
        unanswered = [s for s in range(stage) if s not in hides and inside[s].known > MOST_KNOWN]
        if not unanswered:
            break
        tried = [*hides, _dominant(parts, encoders, unanswered)]
        before = _refused_by(folder, stage, tried)
        needed = None
        if before is None:
            needed, choice["shares"] = _marked(parts, folder, tried, encoders)
        if needed is None or needed.mean() > MOST_HIDDEN:
            choice["refused"] = tried
            logger.info("stage %d: %s", stage, _refusal(tried[-1], needed, before))
            break
        hides.append(tried[-1])
        marked, views = needed, _erasing(parts.views, parts.dataset, parts.seed, needed)
    return marked, choice


def _dominant(parts: Parts, encoders: Sequence[nn.Module], among: Sequence[int]) -> int:
    """The stage that knows most of random samples."""
    if len(among) == 1:
        return among[0]
    known = known_inside(
        encoders, parts.dataset, parts.views, _random_groups(parts), seed=parts.seed, device=parts.device
    )
    return max(among, key=lambda stage: known[stage].known)


def _marked(
    parts: Parts, folder: Path, stages: Sequence[int], encoders: Sequence[nn.Module]
) -> tuple[NDArray[np.bool_] | None, dict[str, float]]:
    """What would have to be hidden of some stages; None where it cannot be told what they look at."""
    try:
        maps = [saliency_of(parts, folder, stage) for stage in stages]
    except RecipeError as error:
        logger.warning("%s", error)
        return None, {}
    return _sufficient(parts, [encoders[stage] for stage in stages], maps)


def _refused_by(folder: Path, stage: int, tried: Sequence[int]) -> int | None:
    """The earlier stage that could not hide these; what they look at is the same for every later one."""
    for earlier in range(1, stage):
        choice = stage_folder(folder, earlier) / "erasing" / "choice.json"
        if choice.exists() and artifacts.read_json(choice).get("refused") == list(tried):
            return earlier
    return None


def _refusal(stage: int, needed: NDArray[np.bool_] | None, before: int | None) -> str:
    found = f"nothing of what stage {stage} looks at is hidden"
    if before is not None:
        return f"{found}, as in stage {before}"
    if needed is None:
        return f"{found}: it cannot be told what that is"
    return f"{found}: it is spread over {needed.mean():.0%} of a sample or more"


def _sufficient(
    parts: Parts, encoders: Sequence[nn.Module], maps: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.bool_], dict[str, float]]:
    """The smallest share of their saliency without which these encoders know nothing of random samples.

    Or the first that is spread over more than may be hidden: a larger one is spread wider still.
    """
    groups = _random_groups(parts)
    measured: dict[str, float] = {}
    for share in SHARES:
        marked = np.logical_or.reduce([covering(each, share) for each in maps])
        if marked.mean() > MOST_HIDDEN:
            return marked, measured
        views = _erasing(parts.views, parts.dataset, parts.seed, marked)
        inside = known_inside(encoders, parts.dataset, views, groups, seed=parts.seed, device=parts.device)
        measured[str(share)] = max(found.known for found in inside)
        if measured[str(share)] <= HIDDEN:
            return marked, measured
    logger.warning(
        "earlier stages tell samples apart with %.0f %% of their saliency hidden; the next may do the same",
        100 * share,
    )
    return marked, measured


def _random_groups(parts: Parts) -> Partition:
    n = len(parts.dataset)
    order = rng.permuted(np.arange(n), n, rng.derive(parts.seed, "erasing", "groups"))
    return Partition(order // COMPANIONS)


def _say(stage: int, hides: Sequence[int], marked: NDArray[np.bool_]) -> None:
    fractions = 100 * marked.mean(axis=1)
    logger.info(
        "stage %d: views hide what stage %s looks at: %.0f %% of a sample (%.0f to %.0f)",
        stage,
        " and ".join(map(str, hides)),
        fractions.mean(),
        *np.quantile(fractions, (0.05, 0.95)),
    )


def saliency_of(parts: Parts, folder: Path, stage: int) -> NDArray[np.float32]:
    """(N, U) what a stage looks at in each training sample; computed once and kept in the run folder."""
    place = stage_folder(folder, stage) / "saliency"
    inputs = {
        "encoder": artifacts.digest(stage_folder(folder, stage) / "encoder"),
        "embeddings": artifacts.digest(stage_folder(folder, stage) / "embeddings"),
    }
    if not reusable(place, inputs):
        distributed.all_do("saliency", stage)
        with artifacts.writing(place, inputs) as beside:
            join_shares(place, beside / "saliency.npy")
    return kept_saliency(folder, stage)


def find_saliency(parts: Parts, folder: Path, display: Display, stage: int) -> None:
    """Leaves beside a stage what it looks at in the share of the training samples of this process."""

    def make(rows: range, out: Path) -> None:
        found = saliency(
            load_stage(parts, folder, stage),
            parts.dataset,
            embeddings_of(folder, stage),
            units_of(parts.dataset),
            seed=parts.seed,
            device=parts.device,
            rows=rows,
            num_workers=parts.num_workers,
            progress=partial(display.advance, f"what stage {stage} looks at"),
        )
        with artifacts.disk_errors(folder):
            np.save(out, found.astype(np.float16), allow_pickle=False)

    share_out(stage_folder(folder, stage) / "saliency", len(parts.dataset), AT_ONCE, make)


def kept_saliency(folder: Path, stage: int) -> NDArray[np.float32]:
    """(N, U) what a stage looks at, as a run folder keeps it."""
    place = stage_folder(folder, stage) / "saliency" / "saliency.npy"
    return array_in(place, 2).astype(np.float32)


def kept_erasing(folder: Path, stage: int, views: Views, dataset: Dataset, seed: int) -> ErasingViews:
    """The views of a stage that erases, from what its run folder keeps."""
    place = stage_folder(folder, stage) / "erasing"
    return _erasing(views, dataset, seed, array_in(place / "marked.npy", 2))


def hidden_stages(folder: Path, stage: int) -> list[int]:
    """The earlier stages whose evidence a stage hides, from its run folder."""
    place = stage_folder(folder, stage) / "erasing" / "choice.json"
    hides: list[int] = artifacts.read_json(place)["hides"] if place.exists() else []
    return hides


def _erasing(views: Views, dataset: Dataset, seed: int, marked: NDArray[np.bool_]) -> ErasingViews:
    return ErasingViews(views, marked, dataset, units_of(dataset), seed=seed)


def units_of(dataset: Dataset) -> Units:
    """What is hidden as one in these data."""
    return Units.of(bank_of(dataset, 0)[dataset.modality])
