"""The two levers of a later stage: cells, from which its negatives come, and evidence, which its views hide.

An earlier stage is answered by cells where they can make what it knows useless: inside fine cells of its own
embeddings it must hardly tell samples apart. Where it still names every sample there, no choice of negatives
helps, and the views hide what it looks at instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from overtone import artifacts
from overtone.contracts import Views
from overtone.levers.cells import known_in_own_cells, partition_of
from overtone.levers.hiding import erasing_views
from overtone.partition import Partition
from overtone.progress import Display
from overtone.run_folder import Parts, stage_folder

NAMES_SAMPLES = 0.5  # known inside its own fine cells: from here on, cells do not help against a stage


class Levers(NamedTuple):
    """What a stage is trained with.

    Attributes:
        partition: Its cells.
        views: Its views; they hide evidence where the stage erases.
        erasing: Digest of what is hidden; empty where nothing is.
    """

    partition: Partition
    views: Views
    erasing: str = ""


def levers_of(parts: Parts, folder: Path, stage: int, display: Display) -> Levers:
    """The cells and the views of a stage, from what the stages before it left in the run folder.

    Stage 0 has one cell and hides nothing.
    """
    if stage == 0:
        return Levers(Partition.whole(len(parts.dataset)), parts.views)
    hidden = _hidden_stages(parts, folder, stage)
    views, erasing = parts.views, ""
    if hidden:
        views = erasing_views(parts, folder, stage, hidden, display)
        erasing = artifacts.digest(stage_folder(folder, stage) / "erasing")
    automatic = parts.stages[stage].erase == "auto"
    answered = [earlier for earlier in range(stage) if not (automatic and earlier in hidden)]
    return Levers(partition_of(parts, folder, stage, answered, views), views, erasing)


def _hidden_stages(parts: Parts, folder: Path, stage: int) -> list[int]:
    erase = parts.stages[stage].erase
    if erase == "off":
        return []
    if erase != "auto":
        return list(range(stage))
    return [earlier for earlier in range(stage) if known_in_own_cells(parts, folder, earlier) > NAMES_SAMPLES]
