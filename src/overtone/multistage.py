"""Multistage contrastive learning (Zhang et al., ECCV 2024, arXiv 2402.11816), as a folder that fills up.

A stage is a pure function of (its values, the data set, the artifacts of the earlier stages): each
artifact is written whole, names the digests of what it was made from, and is used again only when
they still agree. So a run resumes wherever it was interrupted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from overtone import artifacts, interrupts, rng
from overtone.clustering import next_partition
from overtone.contracts import Dataset, Views
from overtone.embedding import embed
from overtone.encoders import Encoder, load_encoder, save_encoder, trainable
from overtone.integration import JointEncoder
from overtone.loggers import Loggers
from overtone.monitoring import Monitor
from overtone.optim import build_optimizer
from overtone.partition import Partition
from overtone.progress import Display, Silent
from overtone.sampling import CellBatchSampler
from overtone.stages import StageSpec
from overtone.training import Pace, train

logger = logging.getLogger(__name__)


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
        seed: Every random draw of the run belongs to it.
        normalise: How the stages are concatenated.
        precision: "fp32" or "bf16".
        num_workers: Processes that decode; 0 where the data set is cached.
        device: Where to compute.
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
    seed: int = 0
    normalise: str = "each"
    precision: str = "fp32"
    num_workers: int = 0
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    loggers: Sequence[str] = ()
    content: Mapping[str, object] = dataclasses.field(default_factory=dict)
    made_of: Mapping[str, str] = dataclasses.field(default_factory=dict)


def run(parts: Parts, folder: Path, display: Display | None = None) -> None:
    """Trains, embeds and clusters stage after stage, then joins them; continues what `folder` holds.

    Raises:
        OvertoneError: Whatever went wrong; what was complete stays, and calling again continues.
    """
    display = display or Silent()
    with artifacts.locked(folder), interrupts.catching():
        for stage in range(len(parts.stages)):
            partition = partition_of(parts, folder, stage)
            train_stage(parts, folder, stage, partition, display)
            embed_stage(parts, folder, stage, display)
            interrupts.raise_if_requested()
        integrate(parts, folder)


def partition_of(parts: Parts, folder: Path, stage: int) -> Partition:
    """The cells of a stage: samples that the stages before cannot tell apart. Stage 0 has one cell."""
    n = len(parts.dataset)
    if stage == 0:
        return Partition.whole(n)
    place, spec = stage_folder(folder, stage) / "partition", parts.stages[stage]
    inputs = {
        "cells": f"{spec.cells}, n_clusters={spec.n_clusters}, cell_size={spec.cell_size}, seed={parts.seed}",
        **{f"embeddings {s}": artifacts.digest(stage_folder(folder, s) / "embeddings") for s in range(stage)},
    }
    if not reusable(place, inputs):
        earlier = [
            np.load(stage_folder(folder, s) / "partition" / "cluster_labels.npy") for s in range(1, stage)
        ]
        partition, labels = next_partition(
            spec.cells,
            [embeddings_of(folder, s) for s in range(stage)],
            earlier,
            n_clusters=spec.n_clusters,
            cell_size=spec.cell_size,
            seed=rng.derive(parts.seed, "clusters", stage),
        )
        with artifacts.writing(place, inputs) as beside:
            partition.save(beside)
            np.save(beside / "cluster_labels.npy", labels, allow_pickle=False)
    return Partition.load(place, n)


def train_stage(parts: Parts, folder: Path, stage: int, partition: Partition, display: Display) -> None:
    """Trains the encoder of a stage with negatives from the anchor's own cell."""
    home, spec = stage_folder(folder, stage), parts.stages[stage]
    inputs = {
        "data": parts.dataset.fingerprint,
        "seed": str(parts.seed),
        "precision": parts.precision,
        "partition": hashlib.sha256(partition.pseudo_labels.tobytes()).hexdigest(),
        **parts.made_of,
        **{field: json.dumps(value) for field, value in dataclasses.asdict(spec).items()},
    }
    if stage and spec.init != "scratch":
        inputs["initial encoder"] = artifacts.digest(_starting_place(folder, stage, spec))
    if reusable(home / "encoder", inputs):
        return
    encoder = initial_encoder(parts, folder, stage)
    if spec.epochs:
        _train(parts, home, stage, partition, encoder, inputs, display)
    with artifacts.writing(home / "encoder", inputs) as beside:
        save_encoder(encoder, beside)
    shutil.rmtree(home / "checkpoints", ignore_errors=True)  # three times the encoder's size, of no more use


def _train(
    parts: Parts,
    home: Path,
    stage: int,
    partition: Partition,
    encoder: Encoder,
    inputs: Mapping[str, str],
    display: Display,
) -> None:
    spec = parts.stages[stage]
    sampler = CellBatchSampler(
        partition,
        spec.batch_size,
        seed=parts.seed,
        stage=stage,
        cells_per_batch=spec.cells_per_batch,
        min_batch_size=spec.min_batch_size,
    )
    with rng.seeded(parts.seed, "head", stage):
        method = parts.method(encoder)
    logger.info("stage %d: %s", stage, sampler.coverage())
    trainable(encoder, spec.trainable)
    optimizer = build_optimizer(
        method,
        name=spec.optimizer,
        lr=spec.lr,
        weight_decay=spec.weight_decay,
        encoder_lr_scale=spec.encoder_lr_scale,
    )
    began = time.monotonic()
    with Loggers(home, parts.loggers) as loggers:
        monitor = Monitor(
            encoder, parts.dataset, stage, spec.epochs, len(sampler), parts.device, loggers, display
        )
        train(
            method,
            optimizer,
            parts.dataset,
            parts.views,
            sampler,
            Pace(spec.epochs, spec.warmup_epochs, parts.precision, parts.num_workers),
            cells=partition.pseudo_labels,
            identities=np.arange(len(parts.dataset)),
            seed=parts.seed,
            stage=stage,
            device=parts.device,
            folder=home / "checkpoints",
            inputs=inputs,
            log=monitor.log,
            on_epoch=monitor.on_epoch,
        )
    logger.info("stage %d: %s, %.0f s", stage, monitor.summary(), time.monotonic() - began)


def initial_encoder(parts: Parts, folder: Path, stage: int) -> Encoder:
    """Where the encoder of a stage starts from."""
    spec = parts.stages[stage]
    with rng.seeded(parts.seed, "encoder", stage):
        encoder = parts.encoder(stage)
    if stage == 0 or spec.init == "scratch":
        return encoder
    return load_encoder(_starting_place(folder, stage, spec), encoder)


def _starting_place(folder: Path, stage: int, spec: StageSpec) -> Path:
    return stage_folder(folder, 0 if spec.init == "base" else stage - 1) / "encoder"


def embed_stage(parts: Parts, folder: Path, stage: int, display: Display) -> None:
    """Embeds the whole data set, and the test set beside it, with the encoder of a stage."""
    home = stage_folder(folder, stage)
    sets = {"train": parts.dataset} | ({"test": parts.test} if parts.test is not None else {})
    inputs = {"encoder": artifacts.digest(home / "encoder")}
    inputs |= {name: dataset.fingerprint for name, dataset in sets.items()}
    if reusable(home / "embeddings", inputs):
        return
    encoder = load_stage(parts, folder, stage).to(parts.device)
    with artifacts.writing(home / "embeddings", inputs) as beside:
        for name, dataset in sets.items():
            embed(
                encoder,
                dataset,
                device=parts.device,
                precision=parts.precision,
                num_workers=parts.num_workers,
                out=beside / f"{name}.npy",
                progress=lambda done, total: display.advance(f"stage {stage} embeds", done, total),
            )


def integrate(parts: Parts, folder: Path) -> None:
    """Writes the concatenation of all stages as one encoder that needs neither recipe nor data."""
    n_stages = len(parts.stages)
    inputs = {
        f"stage {s}": artifacts.digest(stage_folder(folder, s) / "encoder") for s in range(n_stages)
    } | {"normalise": parts.normalise}
    if reusable(folder / "encoder", inputs):
        return
    stages = [load_stage(parts, folder, s) for s in range(n_stages)]
    if isinstance(stages[0], JointEncoder):  # a student, which is whole
        joint = stages[0]
    else:
        joint = JointEncoder(
            stages,
            normalise=parts.normalise,
            modality=parts.dataset.modality,
            content=dict(parts.content),
        )
    with artifacts.writing(folder / "encoder", inputs) as beside:
        joint.save(beside)


def load_stage(parts: Parts, folder: Path, stage: int) -> Encoder:
    """The trained encoder of a stage."""
    with rng.seeded(parts.seed, "encoder", stage):  # it draws weights, which are then replaced
        encoder = parts.encoder(max(stage, 1))  # stage 0's might fetch weights, which may be gone by now
    return load_encoder(stage_folder(folder, stage) / "encoder", encoder)


def stage_folder(folder: Path, stage: int) -> Path:
    """Where a stage keeps its artifacts."""
    return folder / f"stage-{stage}"


def embeddings_of(folder: Path, stage: int, of: str = "train") -> NDArray[np.float32]:
    """The embeddings (N, D) that a stage left behind, memory-mapped."""
    embeddings: NDArray[np.float32] = np.load(
        stage_folder(folder, stage) / "embeddings" / f"{of}.npy", mmap_mode="r", allow_pickle=False
    )
    return embeddings


def reusable(place: Path, inputs: dict[str, str]) -> bool:
    """Whether an artifact is there, whole, and made from these inputs.

    Raises:
        RunError: It is damaged, or was made from something else.
    """
    if not artifacts.is_complete(place):
        return False
    artifacts.require_inputs(place, artifacts.verify(place), inputs)
    return True
