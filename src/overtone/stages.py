"""The values of a stage, and which of them cannot be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from overtone.errors import RecipeError
from overtone.granularity import Granularity


@dataclass(frozen=True)
class Lora:
    """Adapters in the place of weights; see `overtone.encoders.add_lora`.

    Attributes:
        modules: Patterns of the names of the linear layers beside which they stand.
        rank: Of the update that they learn.
        alpha: The update counts alpha / rank.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by the recipe's schema)

    modules: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0


@dataclass(frozen=True)
class Drift:
    """How a stage watches what the encoder it starts from could do; see `overtone.drift`.

    Attributes:
        keep: The share of the retrieval on held-out pairs that shall be left; less is warned of.
        stop: End the stage where less is left, with the weights of the last measurement that was good.
        every: How many epochs lie between two measurements; the end of the stage is always measured.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by the recipe's schema)

    keep: float = 0.9
    stop: bool = False
    every: int = 1


@dataclass(frozen=True)
class StageSpec:
    """The values of one stage.

    Attributes:
        epochs: Passes over the data; 0 keeps the encoder as it is (a given one, or random weights).
        batch_size: Samples a step, over all processes.
        micro_batch_size: None computes a batch at once; a number computes it part by part, so many samples of
            a view at a time on each process, in the memory of a part; see `overtone.gradients`.
        lr: Peak learning rate.
        weight_decay: Of weights; norms and biases are not decayed.
        warmup_epochs: Length of the linear warm-up.
        schedule: Of the learning rate after the warm-up: "cosine" to zero, or "constant".
        optimizer: "adamw" or "sgd".
        cells: What the cells of the stage are made from; see `overtone.clustering.next_partition`. "whole" is
            one cell, as in stage 0.
        n_clusters: Clusters of the newest clustering; or give
        cell_size: the samples a cell should have on average; "fine" and "coarse" let the run choose, see
            `overtone.granularity`.
        erase: Hide from the views what earlier stages look at: a fraction of each sample; "auto" hides as
            much as needed of the stages that cells cannot answer, often nothing; see `overtone.levers`.
        cells_per_batch: None packs whole cells into batches; 1 draws each batch from a single cell.
        min_batch_size: With `cells_per_batch=1`, the shortest batch that is kept.
        init: "scratch", the "previous" stage's encoder, or the "base": stage 0's.
        trainable: Which part of the encoder learns; see `overtone.encoders.trainable`. With `lora`, what
            learns beside the adapters; "all" is nothing then.
        lora: Adapters that learn, and are merged into the weights at the end of the stage.
        encoder_lr_scale: Factor on the encoder's learning rate, for encoders trained before.
        optimizer_warm_start_steps: So many steps more, before the first, in which AdamW gathers its moments
            and no weight moves; see `overtone.training.Pace`.
        drift: Of later stages that start from an encoder: watch how much of its retrieval is left.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by the recipe's schema)

    epochs: int
    batch_size: int = 256
    micro_batch_size: int | None = None
    lr: float = 2e-3
    weight_decay: float = 1e-2
    warmup_epochs: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    cells: Literal["concat", "intersect", "nested", "last", "whole"] = "concat"
    n_clusters: int | None = None
    cell_size: int | Granularity | None = None
    erase: Literal["auto", "off"] | float = "off"
    cells_per_batch: Literal[1] | None = None
    min_batch_size: int | None = None
    init: Literal["scratch", "previous", "base"] = "scratch"
    trainable: str | tuple[str, ...] = "all"
    lora: Lora | None = None
    encoder_lr_scale: float = 1.0
    optimizer_warm_start_steps: int = 0
    drift: Drift | None = None


class Complaint(NamedTuple):
    """What is wrong with a value of a stage."""

    stage: int
    field: str
    message: str


def check_stages(stages: Sequence[StageSpec], n_samples: int) -> None:
    """Refuses values that cannot train on so many samples.

    Raises:
        RecipeError: The message names the stage and the field.
    """
    for stage, field, message in complaints(stages, n_samples):
        raise RecipeError(f"stages[{stage}].{field}: {message}")


def complaints(stages: Sequence[StageSpec], n_samples: int | None = None) -> Iterator[Complaint]:
    """Everything that is wrong with the stages, as far as it can be said without the number of samples.

    >>> next(complaints([StageSpec(epochs=1, lr=0.0)]))
    Complaint(stage=0, field='lr', message='0.0, expected a positive number.')
    """
    for number, spec in enumerate(stages):
        checks = _numbers(spec, n_samples) | (_cells(spec, n_samples) | _drift(spec) if number else {})
        for field, (holds, expected) in checks.items():
            if not holds:
                given = asdict(spec)[field]
                yield Complaint(number, field, f"{given!r}, expected {expected}.")


def _numbers(spec: StageSpec, n_samples: int | None) -> dict[str, tuple[bool, str]]:
    most = math.inf if n_samples is None or not spec.epochs else n_samples
    return {
        "epochs": (spec.epochs >= 0, "0 or more"),
        "batch_size": (
            2 <= spec.batch_size <= most,
            _range(most, "the samples"),
        ),
        "micro_batch_size": (
            spec.micro_batch_size is None or 1 <= spec.micro_batch_size <= spec.batch_size,
            f"1 to batch_size ({spec.batch_size})",
        ),
        "lr": (0 < spec.lr < math.inf, "a positive number"),
        "weight_decay": (0 <= spec.weight_decay < math.inf, "0 or more"),
        "warmup_epochs": (
            0 <= spec.warmup_epochs <= max(spec.epochs, 0) or spec.epochs == 0,
            f"0 to epochs ({spec.epochs})",
        ),
        "trainable": (
            not isinstance(spec.trainable, str)
            or spec.trainable in ("all", "none")
            or re.fullmatch(r"last:[1-9]\d*", spec.trainable) is not None,
            "all, none, last:N or a list of patterns of parameter names",
        ),
        "lora": (
            spec.lora is None
            or (spec.lora.rank >= 1 and 0 < spec.lora.alpha < math.inf and bool(spec.lora.modules)),
            "rank of 1 or more, alpha above 0, and modules: patterns of names of linear layers",
        ),
        "encoder_lr_scale": (0 < spec.encoder_lr_scale < math.inf, "a positive number"),
        "optimizer_warm_start_steps": (
            spec.optimizer_warm_start_steps >= 0
            and (spec.optimizer == "adamw" or not spec.optimizer_warm_start_steps),
            "0 or more, and 0 unless optimizer: adamw, which alone keeps both moments of the gradients",
        ),
    }


def _cells(spec: StageSpec, n_samples: int | None) -> dict[str, tuple[bool, str]]:
    most = math.inf if n_samples is None else n_samples
    clusters, size, least = spec.n_clusters, spec.cell_size, spec.min_batch_size
    if spec.cells == "whole":
        unused = "none, since cells: whole is one cell"
        return {"n_clusters": (clusters is None, unused), "cell_size": (size is None, unused)} | _erase(spec)
    if (clusters is None) == (size is None):
        return {"n_clusters": (False, "either n_clusters or cell_size (one of them, not both)")}
    return {
        **_erase(spec),
        "n_clusters": (clusters is None or 2 <= clusters <= most, _range(most, "the samples")),
        "min_batch_size": (
            least is None or (spec.cells_per_batch == 1 and 2 <= least <= spec.batch_size),
            f"2 to batch_size ({spec.batch_size}), together with cells_per_batch: 1",
        ),
        "cell_size": (
            not isinstance(size, int) or 2 <= size <= most / 2,
            _range(most / 2, "half the samples") + ", fine or coarse",
        ),
    }


def _drift(spec: StageSpec) -> dict[str, tuple[bool, str]]:
    drift = spec.drift
    if drift is not None and spec.init == "scratch":
        return {"drift": (False, "none, since init: scratch starts from nothing that could be lost")}
    holds = drift is None or (0 < drift.keep <= 1 and drift.every >= 1)
    return {"drift": (holds, "keep above 0 and at most 1, every 1 or more")}


def _erase(spec: StageSpec) -> dict[str, tuple[bool, str]]:
    known = isinstance(spec.erase, str) or 0 < spec.erase < 1
    return {"erase": (known, "auto, off, or the fraction of each sample to hide, between 0 and 1")}


def _range(most: float, meaning: str) -> str:
    return "at least 2" if most == math.inf else f"2 to {int(most):,} ({meaning})"
