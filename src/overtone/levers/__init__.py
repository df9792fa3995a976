"""The two levers of a later stage: cells, from which its negatives come, and evidence, which its views hide.

Cells make useless what earlier stages learned: inside them, those stages hardly tell samples apart. Where one
still does so inside fine cells, no choice of negatives helps, and the views hide what it looks at.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone import artifacts, distributed, kmeans
from overtone.contracts import Views
from overtone.levers.cells import newest_embeddings, partition_of
from overtone.levers.hiding import find_saliency, views_of
from overtone.levers.identities import identities_of
from overtone.partition import Partition
from overtone.progress import Display
from overtone.run_folder import Parts, stage_folder


class Levers(NamedTuple):
    """What a stage is trained with.

    Attributes:
        partition: Its cells.
        identities: (N,) int64; copies share one and are never negatives of each other.
        views: Its views, which may hide evidence.
        erasing: Digest of what they hide; empty where they cannot.
    """

    partition: Partition
    identities: NDArray[np.int64]
    views: Views
    erasing: str = ""


def levers_of(parts: Parts, folder: Path, stage: int, display: Display) -> Levers:
    """The cells and the views of a stage, from what the stages before it left in the run folder.

    Stage 0 has one cell and hides nothing. The first process makes them and the others find them made; what
    goes through the whole data set is shared out.
    """
    works: distributed.Works = {
        "saliency": partial(find_saliency, parts, folder, display),
        **kmeans.works(partial(newest_embeddings, folder, stage)),
    }
    return distributed.in_turn(partial(_levers, parts, folder, stage, display), works)


def _levers(parts: Parts, folder: Path, stage: int, display: Display) -> Levers:
    identities = identities_of(parts, folder, display)
    if stage == 0:
        return Levers(Partition.whole(len(parts.dataset)), identities, parts.views)
    views = views_of(parts, folder, stage)
    place = stage_folder(folder, stage) / "erasing"
    erasing = artifacts.digest(place) if parts.stages[stage].erase != "off" else ""
    return Levers(partition_of(parts, folder, stage), identities, views, erasing)
