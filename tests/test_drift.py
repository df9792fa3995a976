from __future__ import annotations

import json
import logging
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from processes import finished, start
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional as F

from overtone import interrupts, multistage
from overtone.contracts import Dataset
from overtone.datasets import Captioned, arrays, captioned_scenes, trifeature
from overtone.drift import check_drift, recall_at_1
from overtone.encoders import Encoder, ImageEncoder, TwoTowerEncoder, build_encoder
from overtone.encoders.two_towers import WordBag
from overtone.errors import RecipeError
from overtone.methods import CLIP
from overtone.multistage import run
from overtone.rng import numpy_generator, seeded
from overtone.run_folder import Parts
from overtone.stages import Drift, StageSpec, complaints
from overtone.views import ImageTextViews

FIRST = StageSpec(epochs=8, batch_size=36, lr=3e-3)
SLOW, DESTRUCTIVE = 1e-5, 0.3
LAST = StageSpec(epochs=1, batch_size=36, cell_size=20, init="base", lr=SLOW)


def colours(n: int, start: int) -> Captioned:
    """Pictures of one of 24 colours each, or a little off it, with its number as the text."""
    palette = numpy_generator(0, "palette").integers(0, 256, (24, 1, 1, 3))
    which = np.arange(start, start + n) % 24
    noise = numpy_generator(start, "noise").integers(-4, 5, (n, 8, 8, 3))
    pictures = np.clip(palette[which] + noise, 0, 255).astype(np.uint8)
    return Captioned(arrays(pictures), [f"colour{code}" for code in which])


def towers(_: int = 0) -> TwoTowerEncoder:
    """Two towers without batch norm, whose statistics are those of a process."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.GELU(), nn.Linear(64, 16))
    picture = ImageEncoder(layers, mean=[0.5] * 3, std=[0.25] * 3, dim=16)
    return TwoTowerEncoder(picture, WordBag(256, 16), width=16)


def guarded(lr: float, drift: Drift | None, **changes: Any) -> StageSpec:
    values = {"epochs": 4, "batch_size": 36, "cell_size": 20, "init": "base", "lr": lr, "drift": drift}
    return StageSpec(**{**values, **changes})


# It keeps enough in its first epoch and too little from the second on.
FALLING = guarded(0.01, Drift(stop=True), warmup_epochs=4.0, optimizer_warm_start_steps=3)


def parts(*later: StageSpec, **changes: Any) -> Parts:
    given: dict[str, Any] = {
        "dataset": colours(144, 0),
        "test": colours(48, 1000),
        "views": ImageTextViews(),
        "encoder": towers,
        "method": CLIP,
        "stages": [FIRST, *later],
        "duplicates": "keep",
    }
    return Parts(**{**given, **changes})


def measured(folder: Path, stage: int = 1) -> dict[int, dict[str, float]]:
    """Step -> what the guard found."""
    lines = map(json.loads, (folder / f"stage-{stage}" / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line for line in lines if "drift/kept" in line}


def weights(folder: Path, stage: int) -> dict[str, Any]:
    return load_file(folder / f"stage-{stage}" / "encoder" / "encoder.safetensors")
