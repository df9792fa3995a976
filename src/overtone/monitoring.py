"""What a person sees of a training while it runs: loss, speed, alarms, and an online kNN."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from overtone import rng
from overtone.contracts import Dataset
from overtone.datasets import subset
from overtone.embedding import embed
from overtone.evaluation import collapse_alarm, effective_rank, knn
from overtone.progress import Display

logger = logging.getLogger(__name__)

SAMPLES = 2000  # half of them vote, half are asked: a second of work, two points of error
BEFORE_ALARMS = 50  # steps; a fresh head can look collapsed
CHECKS = 8  # online kNN evaluations a stage


class Monitor:
    """Takes the records of a training, adds what only the data set knows, and shows both.

    Args:
        encoder: The encoder in training.
        dataset: Its training set; each attribute with labels is followed by kNN.
        stage: The number of the stage.
        epochs: How many the stage trains.
        steps_per_epoch: Steps of one epoch.
        device: Where the encoder is.
        sink: Takes the finished records.
        display: Shows them.
        warm_start_steps: Steps before the first that moves the weights, with records up to step 0.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dataset: Dataset,
        stage: int,
        epochs: int,
        steps_per_epoch: int,
        device: torch.device,
        sink: Callable[[dict[str, Any]], None],
        display: Display,
        warm_start_steps: int = 0,
    ) -> None:
        self.encoder, self.dataset, self.device = encoder, dataset, device
        self.stage, self.epochs, self.steps_per_epoch = stage, epochs, steps_per_epoch
        self.sink, self.display, self.warm_start_steps = sink, display, warm_start_steps
        self._accuracies: dict[str, float] = {}
        self._last: dict[str, Any] = {}
        self._alarmed = False

    def log(self, record: dict[str, Any], z: Tensor) -> None:
        """Shows a record of the step loop and passes it on; the first alarm of a stage is a warning."""
        began = record["step"] > min(self.steps_per_epoch, BEFORE_ALARMS)
        record["alarm"] = collapse_alarm(z) if began else None
        record["effective_rank"] = round(effective_rank(z.detach().float()), 2)
        if record["alarm"] and not self._alarmed:
            self._alarmed = True
            logger.warning("stage %d, step %d: %s", self.stage, record["step"], record["alarm"])
        self._last = record
        self.sink(record)
        note = f"loss {record['loss']:.3f}  {record['samples_per_second']:,.0f} samples/s  {self._knn()}"
        task, warm = f"stage {self.stage}", self.warm_start_steps
        if record["step"] <= 0:
            self.display.advance(f"{task} warm start", record["step"] + warm, warm, note)
        else:
            self.display.advance(task, record["step"], self.epochs * self.steps_per_epoch, note)

    def on_epoch(self, done: int) -> None:
        """Online kNN after some epochs, the last one always."""
        if done < self.epochs and done % max(1, self.epochs // CHECKS):
            return
        self._accuracies = online_knn(self.encoder, self.dataset, self.device)
        if self._accuracies:
            step = done * self.steps_per_epoch
            self.sink({"step": step, **{f"knn/{name}": v for name, v in self._accuracies.items()}})

    def summary(self) -> str:
        """One line on how the stage ended."""
        if not self._last:
            return "was already trained"
        return f"loss {self._last['loss']:.3f}" + (f", {self._knn()}" if self._accuracies else "")

    def _knn(self) -> str:
        values = " ".join(f"{name} {value:.0f}" for name, value in self._accuracies.items())
        return f"kNN {values}" if values else ""


def online_knn(encoder: nn.Module, dataset: Dataset, device: torch.device) -> dict[str, float]:
    """kNN accuracy in percent of each labelled attribute, on a fixed draw of training samples."""
    if not dataset.labels:
        return {}
    count = min(SAMPLES, len(dataset))
    chosen = rng.numpy_generator(0, "online knn").choice(len(dataset), count, replace=False)
    embeddings = embed(encoder, subset(dataset, chosen), device=device)
    half = count // 2
    accuracies = {}
    for name, codes in dataset.labels.items():
        voters, asked = codes[chosen[:half]], codes[chosen[half:]]
        asked = np.where(np.isin(asked, voters), asked, -1)  # a rare class may have no voter
        if len(np.unique(voters[voters >= 0])) > 1 and (asked >= 0).any():
            accuracies[name] = knn(embeddings[:half], voters, embeddings[half:], asked, attribute=name)
    return accuracies
