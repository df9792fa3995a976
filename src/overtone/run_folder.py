"""What a run is made of, and where its folder keeps what the stages leave behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from overtone import artifacts, rng
from overtone.contracts import Dataset, Views
from overtone.encoders import Encoder, load_encoder
from overtone.errors import RunError
from overtone.identities import Duplicates
from overtone.npy import mapped
from overtone.stages import StageSpec


@dataclass(frozen=True)
class Parts:
    """Everything a run is made of, as objects.

    Attributes:
        dataset: What the encoders learn from.
        test: Embedded beside it, for evaluation; never trained on.
        views: Makes the views of a batch.
        encoder: Stage -> a new encoder.
        method: Encoder -> a module with `step`.
        stages: The values of each stage.
        stop: "auto" ends the run before its last stage where no other is worth it, see `overtone.stopping`.
        seed: Every random draw of the run belongs to it.
        duplicates: Which samples are one and so never negatives, see `find_identities`.
        max_bad_fraction: How many of the samples may become unreadable in training, see `Replacing`.
        normalise: How the stages are concatenated.
        precision: "fp32" or "bf16".
        layout: "channels_last", or None: as it is with fp32, channels_last with bf16.
        num_workers: Processes that decode; 0 where the data set is cached.
        device: Where to compute.
        shard: Split parameters and optimiser over the processes instead of repeating them.
        checkpoint_seconds: How often a training is saved.
        checkpoints_kept: How many of its checkpoints stay.
        loggers: "tensorboard" and "wandb", beside the JSON lines that are always written.
        content: Kept with the joint encoder, see `JointEncoder`.
        made_of: What the objects above are made from, by name: an artifact of another making is refused.
    """

    dataset: Dataset
    test: Dataset | None
    views: Views
    encoder: Callable[[int], Encoder]
    method: Callable[[Encoder], nn.Module]
    stages: Sequence[StageSpec]
    stop: str | None = None
    seed: int = 0
    duplicates: Duplicates = "near"
    max_bad_fraction: float = 0.01
    normalise: str = "each"
    precision: str = "fp32"
    layout: str | None = None
    num_workers: int = 0
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    shard: bool = False
    checkpoint_seconds: float = 60.0
    checkpoints_kept: int = 2
    loggers: Sequence[str] = ()
    content: Mapping[str, object] = dataclasses.field(default_factory=dict)
    made_of: Mapping[str, str] = dataclasses.field(default_factory=dict)


def load_stage(parts: Parts, folder: Path, stage: int) -> Encoder:
    """The trained encoder of a stage."""
    with rng.seeded(parts.seed, "encoder", stage):  # it draws weights, which are then replaced
        encoder = parts.encoder(max(stage, 1))  # stage 0's might fetch weights, which may be gone by now
    return load_encoder(stage_folder(folder, stage) / "encoder", encoder)


def keep_end(folder: Path, n_stages: int, why: str) -> None:
    """Writes down how many stages a run has trained, and why no more."""
    if ended(folder) != (n_stages, why):
        artifacts.write_json(folder / "end.json", {"stages": n_stages, "why": why})


def ended(folder: Path) -> tuple[int, str] | None:
    """How many stages a run has trained and why no more; None of one that has not ended.

    Raises:
        RunError: The file is damaged.
    """
    place = folder / "end.json"
    if not place.exists():
        return None
    kept = artifacts.read_json(place)
    if not isinstance(kept, dict) or type(kept.get("stages")) is not int or kept["stages"] < 1:
        raise RunError(f"{place}: damaged: expected a number of stages from 1; remove it and resume the run.")
    return kept["stages"], str(kept.get("why", ""))


def stage_folder(folder: Path, stage: int) -> Path:
    """Where a stage keeps its artifacts."""
    return folder / f"stage-{stage}"


def embeddings_of(folder: Path, stage: int, of: str = "train") -> NDArray[np.float32]:
    """The embeddings (N, D) that a stage left behind, memory-mapped."""
    return array_in(stage_folder(folder, stage) / "embeddings" / f"{of}.npy", 2)


def array_in(path: Path, n_axes: int) -> NDArray[Any]:
    """An array that a run left behind, memory-mapped.

    Raises:
        RunError: It is missing, damaged, or of another number of axes.
    """
    try:
        array = mapped(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); remove its folder to make it again.") from error
    if array.ndim != n_axes or array.dtype.kind not in "biuf":
        raise RunError(f"{path}: {array.dtype} of shape {array.shape}, expected numbers on {n_axes} axes.")
    return array


def reusable(place: Path, inputs: dict[str, str]) -> bool:
    """Whether an artifact is there, whole, and made from these inputs.

    Raises:
        RunError: It is damaged, or was made from something else.
    """
    if not artifacts.is_complete(place):
        return False
    artifacts.require_inputs(place, artifacts.verify(place), inputs)
    return True
