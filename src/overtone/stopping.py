"""`stages: auto`: whether a further stage is worth its cost, read from the run itself and without labels.

Before a stage: is there anything left to learn inside its cells? After it: what did it find there that
the stages before it lack? The run ends with the first stage that finds next to nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from overtone import artifacts, distributed, kmeans, rng
from overtone.clustering import next_partition
from overtone.contracts import Views
from overtone.datasets.subset import drawn
from overtone.discrimination import Sides, known_together, some_cells, two_views
from overtone.errors import RunError
from overtone.evaluation.cka import linear_cka
from overtone.evaluation.collapse import effective_rank
from overtone.granularity import candidates
from overtone.integration import concatenated
from overtone.levers import Levers
from overtone.levers.cells import newest_embeddings
from overtone.partition import Partition
from overtone.run_folder import Parts, embeddings_of, load_stage, reusable, stage_folder

logger = logging.getLogger(__name__)

# Between going on for nothing and missing something; see "When to stop" in benchmarks/README.md.
LEAST_RISE = 0.5
ALL_KNOWN = 0.9  # of the entropy of a stage's cells; what is left is then its earlier stages' own noise
NOISE = 1e-3  # what is known cannot be measured finer than that
LOOKED_AT = 4096  # samples, of which alikeness and rank are read


class Gain(NamedTuple):
    """What a stage has added to those before it.

    Attributes:
        cell_size: Samples in each of the cells that the earlier stages cannot tell apart, on average.
        before: The share of these cells' entropy that the earlier stages resolve together, see
            `overtone.discrimination.known_together`; on views that hide nothing.
        after: The same together with the stage.
        cka: How alike the stage is to all earlier ones side by side, see `overtone.evaluation.linear_cka`.
        rank_before: Effective rank of the earlier stages side by side.
        rank_after: The same together with the stage.
        seconds: What the stage took to train; 0 of one that was given.
    """

    cell_size: int
    before: float
    after: float
    cka: float
    rank_before: float
    rank_after: float
    seconds: float

    @classmethod
    def kept(cls, place: Path) -> Gain:
        """What a run folder keeps of a stage.

        Raises:
            RunError: It is damaged.
        """
        kept = artifacts.read_json(place / "gain.json")
        if not isinstance(kept, dict) or kept.keys() != set(cls._fields):
            raise RunError(
                f"{place}: damaged: expected {', '.join(cls._fields)}; remove it and resume the run."
            )
        if not all(isinstance(value, (int, float)) for value in kept.values()):
            raise RunError(f"{place}: damaged: expected numbers; remove it and resume the run.")
        return cls(**kept)

    def __str__(self) -> str:
        before, after = max(0.0, self.before), max(0.0, self.after)  # measured on other cells, may lie below
        return f"{before:.1%} known before it, {after:.1%} with it: odds {self.rise:+.0%}"

    @property
    def rank_per_second(self) -> float:
        """The directions that a second of the stage has brought."""
        return (self.rank_after - self.rank_before) / self.seconds if self.seconds else 0.0

    @property
    def rise(self) -> float:
        """By what share the odds of what is known, known / (1 - known), have risen.

        >>> round(Gain(30, 0.2, 0.5, 0, 1, 1, 1).rise, 2)
        3.0
        """
        before, after = (min(max(known, NOISE), 1 - NOISE) for known in (self.before, self.after))
        return after * (1 - before) / (before * (1 - after)) - 1


def nothing_left(parts: Parts, folder: Path, stage: int, levers: Levers) -> str | None:
    """Why a stage is not worth training, or None: the earlier ones already tell apart what its cells hold.

    Measured on the views of the stage, which may hide what an earlier stage looks at.
    """
    encoders = [load_stage(parts, folder, earlier) for earlier in range(stage)]
    sides, cells = _seen(parts, encoders, levers.views, levers.partition)
    (known,) = distributed.largest([known_together(sides, cells)], parts.device)  # one figure, one decision
    if not known >= ALL_KNOWN:  # nan where there are no two cells to look at
        return None
    return (
        f"Stage {stage} is not trained: {_named(stage)} {'knows' if stage == 1 else 'know'} {known:.0%} of "
        "what tells samples apart inside its cells, so it would learn the same again."
    )


def adds_nothing(parts: Parts, folder: Path, stage: int) -> str | None:
    """Why no stage follows one that is trained and embedded, or None: it has added next to nothing."""
    gain = gain_of(parts, folder, stage)
    if not gain.rise < LEAST_RISE:
        return None
    return (
        f"No stage follows stage {stage}: inside cells of {gain.cell_size} that {_named(stage)} cannot tell "
        f"apart it adds too little ({gain}; less than {LEAST_RISE:+.0%} is not worth a stage)."
    )


def gain_of(parts: Parts, folder: Path, stage: int) -> Gain:
    """What a trained and embedded stage has added; measured once and kept in the run folder."""
    works = kmeans.works(partial(newest_embeddings, folder, stage))
    return distributed.in_turn(partial(_kept_gain, parts, folder, stage), works)


def _kept_gain(parts: Parts, folder: Path, stage: int) -> Gain:
    place = stage_folder(folder, stage) / "gain"
    inputs = {
        "views": parts.made_of.get("views", ""),
        "seed": str(parts.seed),
        **{
            f"embeddings {s}": artifacts.digest(stage_folder(folder, s) / "embeddings")
            for s in range(stage + 1)
        },
    }
    if not reusable(place, inputs):
        found = _measured(parts, folder, stage)
        logger.info("stage %d: inside cells that %s cannot tell apart, %s", stage, _named(stage), found)
        with artifacts.writing(place, inputs) as beside:
            artifacts.write_json(beside / "gain.json", found._asdict())
    return Gain.kept(place)


def _measured(parts: Parts, folder: Path, stage: int) -> Gain:
    embeddings = [embeddings_of(folder, s) for s in range(stage + 1)]
    size = candidates("fine", len(parts.dataset))[0]
    cells, _ = next_partition(
        "concat",
        embeddings[:-1],
        cell_size=size,
        seed=rng.derive(parts.seed, "clusters", stage),
        everyone=distributed.all_do,
    )
    encoders = [load_stage(parts, folder, s) for s in range(stage + 1)]
    sides, inside = _seen(parts, encoders, parts.views, cells)
    rows = drawn(len(cells), LOOKED_AT, parts.seed)
    earlier = concatenated([e[rows] for e in embeddings[:-1]], "each")
    newest = concatenated([embeddings[-1][rows]], "each")
    return Gain(
        cell_size=size,
        before=known_together(sides[:-1], inside),
        after=known_together(sides, inside),
        cka=linear_cka(earlier, newest),
        rank_before=effective_rank(earlier),
        rank_after=effective_rank(np.hstack([earlier, newest])),
        seconds=_seconds(stage_folder(folder, stage) / "seconds.json"),
    )


def _seen(
    parts: Parts, encoders: Sequence[nn.Module], views: Views, partition: Partition
) -> tuple[list[Sides], NDArray[np.int64]]:
    """What encoders make of two views of some samples, and the cells that these lie in."""
    rows = some_cells(partition, parts.seed)
    sides = two_views(encoders, parts.dataset, views, rows, seed=parts.seed, device=parts.device)
    return sides, partition.pseudo_labels[rows]


def _seconds(place: Path) -> float:
    return float(artifacts.read_json(place)) if place.exists() else 0.0


def _named(stage: int) -> str:
    return "stage 0" if stage == 1 else f"stages 0-{stage - 1}"
