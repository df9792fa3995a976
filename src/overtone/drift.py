"""How much of the retrieval that a stage starts with is left while it trains, on held-out pairs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from overtone import checkpoints, distributed
from overtone.contracts import Dataset
from overtone.encoders import Encoder, TwoTowerEncoder
from overtone.errors import RecipeError
from overtone.evaluation.retrieval import retrieval
from overtone.stages import Drift, StageSpec

logger = logging.getLogger(__name__)


def check_drift(stages: Sequence[StageSpec], held_out: Dataset | None, encoder: Encoder) -> None:
    """Refuses a drift guard that has nothing to measure, before anything is trained.

    Raises:
        RecipeError: There are no held-out pairs, or the encoder has no two towers.
    """
    stage = next((number for number, spec in enumerate(stages) if number and spec.drift is not None), None)
    if stage is None:
        return
    if not isinstance(encoder, TwoTowerEncoder):
        raise RecipeError(
            f"stages[{stage}].drift: it is measured by retrieval, for which {type(encoder).__name__} lacks a "
            "tower; leave drift out, there is no guard for encoders of one modality."
        )
    if held_out is None or not len(held_out) or "text" not in held_out[0]:
        found = "there is none" if held_out is None else f"its {len(held_out):,} samples have no text"
        raise RecipeError(
            f"stages[{stage}].drift: it is measured on held-out pairs, the recipe's `test`, but {found}; "
            "give pictures with texts as `test`, or leave drift out."
        )


class DriftGuard:
    """Measures what is left of the starting encoder's recall@1, warns, and may end the stage.

    Made before the first step. All processes call it, and go by what the first one finds.

    Args:
        method: Its two-tower `encoder` is about to train; on its device.
        optimizer: Kept with it.
        held_out: Pairs that are never trained on.
        at_start: What `recall_at_start` found of them.
        spec: The stage's values, with a `drift`.
        stage: The number of the stage.
        steps_per_epoch: Steps of one epoch.
        folder: Takes, if the guard may end the stage, the weights that it would end with.
        inputs: As for `overtone.training.train`.
        sink: Takes a record of each measurement.
    """

    def __init__(
        self,
        method: nn.Module,
        optimizer: torch.optim.Optimizer,
        held_out: Dataset,
        at_start: float,
        spec: StageSpec,
        *,
        stage: int,
        steps_per_epoch: int,
        folder: Path,
        inputs: Mapping[str, str],
        sink: Callable[[dict[str, Any]], None],
    ) -> None:
        self.method, self.optimizer = method, optimizer
        self.held_out, self.at_start, self.drift = held_out, at_start, spec.drift or Drift()
        self.stage, self.epochs, self.steps_per_epoch = stage, spec.epochs, steps_per_epoch
        self.folder, self.inputs, self.sink = folder, inputs, sink
        self._warned = False
        if self.drift.stop:
            self._save("start", 0)

    def __call__(self, done: int) -> bool:
        """Measures, where it is time to.

        Args:
            done: Epochs.

        Returns:
            Whether the stage ends here; the method then has the last weights that kept enough.
        """
        if done % self.drift.every and done < self.epochs:
            return False
        found = _recall_of_first(cast(nn.Module, self.method.encoder), self.held_out)
        kept = found / self.at_start if self.at_start else 1.0
        step = done * self.steps_per_epoch
        self.sink(
            {"step": step, "drift/recall@1": found, "drift/at_start": self.at_start, "drift/kept": kept}
        )
        said = f"stage {self.stage}, epoch {done}: recall@1 {found:.1f} of {self.at_start:.1f} %"
        if kept >= self.drift.keep:
            logger.info("%s, %.0f %% kept.", said, 100 * kept)
            if self.drift.stop:
                self._save("kept", done)
            return False
        said += f", {100 * kept:.0f} % kept where {100 * self.drift.keep:.0f} were asked for"
        if self.drift.stop:
            epoch = self._restore("kept") or self._restore("start")
            logger.warning("%s: the stage ends, with the weights of epoch %d.", said, epoch)
        else:
            logger.log(logging.INFO if self._warned else logging.WARNING, "%s.", said)
            self._warned = True
        return self.drift.stop

    def _save(self, name: str, epoch: int) -> None:
        checkpoints.save(self.folder / name, epoch, self.method, self.optimizer, self.inputs)

    def _restore(self, name: str) -> int:
        return checkpoints.restore(self.folder / name, self.method, self.optimizer, self.inputs)


def recall_at_start(encoder: nn.Module, held_out: Dataset, stage: int) -> float:
    """What the encoder that a stage starts from finds of held-out pairs, said in the log.

    A resumed stage measures it again, to the same end. Not for a split encoder: `fully_shard` takes the
    module of the first forward pass for the outermost, and that is the method, not its encoder.
    """
    found = _recall_of_first(encoder, held_out)
    logger.info(
        "stage %d: it starts with a recall@1 of %.1f %% on %s held-out pairs.",
        stage,
        found,
        f"{len(held_out):,}",
    )
    if not found:
        logger.warning("stage %d: so there is nothing that the drift guard could see it lose.", stage)
    return found


def _recall_of_first(encoder: nn.Module, held_out: Dataset) -> float:
    """What the first process finds; of a split encoder every process has to run its part."""
    found = 0.0
    with distributed.together():
        if distributed.is_first() or distributed.is_sharded(encoder):
            found = recall_at_1(encoder, held_out)
    return distributed.largest([found], next(encoder.parameters()).device)[0]


def recall_at_1(encoder: nn.Module, pairs: Dataset) -> float:
    """In percent, the mean of both directions.

    Args:
        encoder: Takes batches with pictures alone, and with texts alone.
        pairs: Pictures with a text each.

    >>> from overtone.datasets import captioned_scenes
    >>> from overtone.encoders import build_encoder
    >>> 0 <= recall_at_1(build_encoder("small_clip"), captioned_scenes(4)) <= 100
    True
    """
    found = retrieval(_ByForward(encoder), pairs, ks=[1])
    return (found.image_to_text[1] + found.text_to_image[1]) / 2


class _ByForward(nn.Module):
    """Two towers that are asked through `forward`, for which alone a split encoder gathers its parameters."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def encode_image(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.encoder({"image": images}))

    def encode_text(self, texts: list[str]) -> Tensor:
        return cast(Tensor, self.encoder({"text": texts}))
