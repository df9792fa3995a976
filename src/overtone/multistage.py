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
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import nn

from overtone import artifacts, distributed, interrupts, rng
from overtone.contracts import Dataset
from overtone.drift import DriftGuard, check_drift, recall_at_start
from overtone.embedding import embed
from overtone.encoders import Encoder, add_lora, load_encoder, merge_lora, save_encoder, trainable
from overtone.integration import JointEncoder
from overtone.levers import Levers, levers_of
from overtone.loggers import Loggers
from overtone.monitoring import Monitor
from overtone.optim import build_optimizer
from overtone.progress import Display, Silent
from overtone.run_folder import Parts, keep_end, load_stage, reusable, stage_folder
from overtone.sampling import CellBatchSampler
from overtone.shares import join_shares, share_out
from overtone.skipping import Replacing
from overtone.stages import StageSpec
from overtone.stopping import adds_nothing, nothing_left
from overtone.training import Material, Pace, train

logger = logging.getLogger(__name__)

EMBEDDED_AT_ONCE = 512


def run(
    parts: Parts,
    folder: Path,
    display: Display | None = None,
    on_stage: Callable[[], object] | None = None,
) -> None:
    """Trains, embeds and clusters stage after stage, then joins them; continues what `folder` holds.

    Args:
        parts: What the run is made of.
        folder: The run's.
        display: Shows how far it is.
        on_stage: Called by the first process after each stage.

    Raises:
        OvertoneError: Whatever went wrong; what was complete stays, and calling again continues.
    """
    display = display or Silent()
    replacing = Replacing(parts.dataset, folder, max_bad_fraction=parts.max_bad_fraction)
    parts = dataclasses.replace(parts, dataset=replacing)
    with (
        distributed.joined(),
        distributed.by_first(lambda: artifacts.locked(folder)),
        interrupts.catching(),
    ):
        trained, why = _train_stages(parts, folder, display, on_stage)
        with distributed.together():
            if distributed.is_first():
                keep_end(folder, trained, why)
                integrate(parts, folder, trained)


def _train_stages(
    parts: Parts, folder: Path, display: Display, on_stage: Callable[[], object] | None
) -> tuple[int, str]:
    """Trains stages until the last, or until no other is worth it; how many, and why no more."""
    for stage in range(len(parts.stages)):
        levers = levers_of(parts, folder, stage, display)
        asked = stage > 0 and parts.stop == "auto"
        trained = artifacts.is_complete(stage_folder(folder, stage) / "encoder")  # so it was worth it
        if asked and not trained and (why := nothing_left(parts, folder, stage, levers)):
            return stage, why
        train_stage(parts, folder, stage, levers, display)
        embed_stage(parts, folder, stage, display)
        with distributed.together():
            interrupts.raise_if_requested()
            if on_stage is not None and distributed.is_first():
                on_stage()
        if asked and (why := adds_nothing(parts, folder, stage)):
            return stage + 1, why
    return len(parts.stages), "All stages of the recipe are trained."


def train_stage(parts: Parts, folder: Path, stage: int, levers: Levers, display: Display) -> None:
    """Trains the encoder of a stage with negatives from its cells, on views that hide evidence."""
    home, spec = stage_folder(folder, stage), parts.stages[stage]
    inputs = {
        "data": parts.dataset.fingerprint,
        "seed": str(parts.seed),
        "precision": parts.precision,
        "partition": levers.partition.digest(),
        "identities": hashlib.sha256(levers.identities.tobytes()).hexdigest(),
        "erasing": levers.erasing,
        **({"layout": parts.layout} if parts.layout else {}),
        **parts.made_of,
        **{field: json.dumps(value) for field, value in dataclasses.asdict(spec).items()},
    }
    if stage and spec.init != "scratch":
        inputs["initial encoder"] = artifacts.digest(_starting_place(folder, stage, spec))
    if stage and spec.drift is not None and parts.test is not None:
        inputs["held-out part"] = parts.test.fingerprint
    if reusable(home / "encoder", inputs):
        return
    encoder = initial_encoder(parts, folder, stage)
    check_drift(parts.stages, parts.test, encoder)
    if spec.epochs:
        with distributed.by_first(partial(artifacts.timed, home / "seconds.json")):
            _train(parts, home, stage, levers, encoder, inputs, display)
        if distributed.is_sharded(encoder):
            weights = {name: distributed.whole(value) for name, value in encoder.state_dict().items()}
            encoder = initial_encoder(parts, folder, stage)
            encoder.load_state_dict(weights)
        if spec.lora is not None:
            merge_lora(encoder)
    with distributed.together():
        if distributed.is_first():
            with artifacts.writing(home / "encoder", inputs) as beside:
                save_encoder(encoder, beside)
            # Three times the encoder's size, of no more use.
            shutil.rmtree(home / "checkpoints", ignore_errors=True)


def _train(
    parts: Parts,
    home: Path,
    stage: int,
    levers: Levers,
    encoder: Encoder,
    inputs: Mapping[str, str],
    display: Display,
) -> None:
    spec, sampler = parts.stages[stage], _sampler(parts, levers, stage)
    method = _method(parts, stage, encoder)
    _tell(home, stage, sampler)
    held_out = parts.test if stage and spec.drift is not None else None
    at_start = 0.0 if held_out is None else recall_at_start(encoder.to(parts.device), held_out, stage)
    if parts.shard:
        distributed.shard(method.to(parts.device))
    optimizer = _optimizer(method, spec)
    began = time.monotonic()
    with ExitStack() as stack:
        loggers = Loggers(home, parts.loggers)
        sink = stack.enter_context(loggers) if distributed.is_first() else _nowhere
        monitor = Monitor(
            encoder,
            parts.dataset,
            stage,
            spec.epochs,
            len(sampler),
            parts.device,
            sink,
            display,
            spec.optimizer_warm_start_steps,
        )
        guard = held_out and DriftGuard(
            method,
            optimizer,
            held_out,
            at_start,
            spec,
            stage=stage,
            steps_per_epoch=len(sampler),
            folder=home / "checkpoints",
            inputs=inputs,
            sink=sink,
        )

        def on_epoch(done: int) -> bool:
            monitor.on_epoch(done)
            return bool(guard and guard(done))

        train(
            method,
            optimizer,
            Material(parts.dataset, sampler, levers.views, levers.identities),
            _pace(parts, spec),
            device=parts.device,
            folder=home,
            inputs=inputs,
            log=monitor.log,
            on_epoch=on_epoch,
        )
    logger.info("stage %d: %s, %.0f s", stage, monitor.summary(), time.monotonic() - began)


def _method(parts: Parts, stage: int, encoder: Encoder) -> nn.Module:
    """What a stage trains: the encoder, of which some may be frozen, and what its method adds."""
    if parts.stages[stage].lora is None:
        trainable(encoder, parts.stages[stage].trainable)  # first, as a method may copy the encoder
    with rng.seeded(parts.seed, "head", stage):
        return distributed.synchronised(parts.method(encoder))


def _optimizer(method: nn.Module, spec: StageSpec) -> torch.optim.Optimizer:
    return build_optimizer(
        method,
        name=spec.optimizer,
        lr=spec.lr,
        weight_decay=spec.weight_decay,
        encoder_lr_scale=spec.encoder_lr_scale,
    )


def _pace(parts: Parts, spec: StageSpec) -> Pace:
    return Pace(
        spec.epochs,
        spec.warmup_epochs,
        spec.schedule,
        parts.precision,
        spec.micro_batch_size,
        parts.num_workers,
        layout=parts.layout,
        checkpoint_seconds=parts.checkpoint_seconds,
        checkpoints_kept=parts.checkpoints_kept,
        warm_start_steps=spec.optimizer_warm_start_steps,
    )


def _sampler(parts: Parts, levers: Levers, stage: int) -> CellBatchSampler:
    spec = parts.stages[stage]
    return CellBatchSampler(
        levers.partition,
        spec.batch_size,
        seed=parts.seed,
        stage=stage,
        cells_per_batch=spec.cells_per_batch,
        min_batch_size=spec.min_batch_size,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )


def _nowhere(_: Mapping[str, object]) -> None:
    """Where the records of all processes but the first go."""


def _tell(home: Path, stage: int, sampler: CellBatchSampler) -> None:
    """Says what the batches of a stage hold, before the first."""
    if distributed.is_first():
        coverage = sampler.coverage()
        artifacts.make_folder(home)
        artifacts.write_json(home / "coverage.json", coverage._asdict())
        logger.info("stage %d: %s", stage, coverage)


def initial_encoder(parts: Parts, folder: Path, stage: int) -> Encoder:
    """Where the encoder of a stage starts from, with the adapters that it trains."""
    spec = parts.stages[stage]
    with rng.seeded(parts.seed, "encoder", stage):
        encoder = parts.encoder(stage)
    if stage and spec.init != "scratch":
        encoder = load_encoder(_starting_place(folder, stage, spec), encoder)
    if spec.lora is not None and spec.epochs:
        beside = "none" if spec.trainable == "all" else spec.trainable
        with rng.seeded(parts.seed, "lora", stage):
            add_lora(encoder, spec.lora.modules, rank=spec.lora.rank, alpha=spec.lora.alpha, beside=beside)
    return encoder


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
    for name, dataset in sets.items():
        make = partial(_embed_rows, parts, encoder, dataset, display, f"stage {stage} embeds")
        with distributed.together():
            share_out(home / name, len(dataset), EMBEDDED_AT_ONCE, make)
    with distributed.together():
        if distributed.is_first():
            with artifacts.writing(home / "embeddings", inputs) as beside:
                for name in sets:
                    join_shares(home / name, beside / f"{name}.npy")


def _embed_rows(
    parts: Parts, encoder: Encoder, dataset: Dataset, display: Display, task: str, rows: range, out: Path
) -> None:
    embed(
        encoder,
        dataset,
        batch_size=EMBEDDED_AT_ONCE,
        device=parts.device,
        precision=parts.precision,
        num_workers=parts.num_workers,
        rows=rows,
        out=out,
        progress=partial(display.advance, task),
    )


def integrate(parts: Parts, folder: Path, n_stages: int) -> None:
    """Writes the concatenation of the stages as one encoder that needs neither recipe nor data."""
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
