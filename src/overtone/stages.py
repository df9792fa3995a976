"""The values of a stage, and which of them cannot be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from overtone.errors import RecipeError


@dataclass(frozen=True)
class StageSpec:
    """The values of one stage.

    Attributes:
        epochs: Passes over the data; 0 keeps the encoder as it is (a given one, or random weights).
        batch_size: Samples a step, over all processes.
        lr: Peak learning rate.
        weight_decay: Of weights; norms and biases are not decayed.
        warmup_epochs: Length of the linear warm-up.
        optimizer: "adamw" or "sgd".
        cells: What the cells of the stage are made from; see `overtone.clustering.next_partition`.
        n_clusters: Clusters of the newest clustering; or give
        cell_size: the samples a cell should have on average.
        cells_per_batch: None packs whole cells into batches; 1 draws each batch from a single cell.
        min_batch_size: With `cells_per_batch=1`, the shortest batch that is kept.
        init: "scratch", the "previous" stage's encoder, or the "base": stage 0's.
        trainable: Which part of the encoder learns; see `overtone.encoders.trainable`.
        encoder_lr_scale: Factor on the encoder's learning rate, for encoders trained before.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by the recipe's schema)

    epochs: int
    batch_size: int = 256
    lr: float = 2e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 0.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    cells: Literal["concat", "intersect", "nested", "last"] = "concat"
    n_clusters: int | None = None
    cell_size: int | None = None
    cells_per_batch: Literal[1] | None = None
    min_batch_size: int | None = None
    init: Literal["scratch", "previous", "base"] = "scratch"
    trainable: str | tuple[str, ...] = "all"
    encoder_lr_scale: float = 1.0


def check_stages(stages: Sequence[StageSpec], n_samples: int) -> None:
    """Refuses values that cannot train on so many samples.

    Raises:
        RecipeError: The message names the stage and the field.
    """
    for number, spec in enumerate(stages):
        where = f"stages[{number}]"
        _check_numbers(spec, where)
        if number and (spec.n_clusters is None) == (spec.cell_size is None):
            raise RecipeError(f"{where}: give either n_clusters or cell_size (one of them, not both).")
        if spec.epochs and n_samples < spec.batch_size:
            raise RecipeError(
                f"{where}.batch_size: {spec.batch_size} samples a batch, but the data set has {n_samples:,}. "
                f"The largest batch size it allows is {n_samples}."
            )
        if number and spec.n_clusters is not None and not 2 <= spec.n_clusters <= n_samples:
            raise RecipeError(
                f"{where}.n_clusters: {spec.n_clusters}, expected 2 to {n_samples:,} (the samples)."
            )
        if number and spec.cell_size is not None and not 2 <= spec.cell_size <= n_samples // 2:
            raise RecipeError(
                f"{where}.cell_size: {spec.cell_size}, expected 2 to {n_samples // 2:,} (half the samples)."
            )


def _check_numbers(spec: StageSpec, where: str) -> None:
    checks = (
        ("epochs", spec.epochs >= 0, "0 or more"),
        ("batch_size", spec.batch_size >= 2, "at least 2: a contrastive loss needs other samples"),
        ("lr", 0 < spec.lr < math.inf, "a positive number"),
        ("weight_decay", 0 <= spec.weight_decay < math.inf, "0 or more"),
        ("warmup_epochs", 0 <= spec.warmup_epochs <= max(spec.epochs, 0), f"0 to epochs ({spec.epochs})"),
        ("encoder_lr_scale", 0 < spec.encoder_lr_scale < math.inf, "a positive number"),
    )
    for field, holds, expected in checks:
        if not holds:
            raise RecipeError(f"{where}.{field}: {getattr(spec, field)!r}, expected {expected}.")
