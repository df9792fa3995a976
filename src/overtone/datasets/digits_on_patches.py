"""Two sets in one: pictures without and with a digit, and which are which."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from overtone.contracts import Batch, Sample
from overtone.datasets.digits import digits
from overtone.datasets.images import ImageDataset
from overtone.datasets.trifeature import trifeature
from overtone.rng import uniforms


class BackgroundAndTarget(ImageDataset):
    """Pictures of a background set and of a target set, which has something that the background never has.

    Samples and batches also hold `target`: 1, or 0 of the background.

    Args:
        target: (N,) int64.
        *arguments: As `ImageDataset`.
    """

    def __init__(self, target: NDArray[np.int64], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.target = target

    def __getitem__(self, index: int) -> Sample:
        return {**super().__getitem__(index), "target": int(self.target[index])}

    def collate(self, samples: list[Sample]) -> Batch:
        """`{"index": (B,) int64, "image": (B, C, H, W), "target": (B,) int64}`."""
        target = torch.tensor([sample["target"] for sample in samples], dtype=torch.int64)
        return {**super().collate(samples), "target": target}


def digits_on_patches(
    n: int, *, image_size: int = 32, strength: float = 1.0, seed: int = 0, start: int = 0
) -> BackgroundAndTarget:
    """Pictures of `trifeature`; a drawn half of them, the targets, with one of `digits` laid over.

    Attributes are those of both; background has no `digit`. Sample i is a function of (seed, start + i)
    alone: take another `start` for a test set.

    Args:
        n: How many.
        image_size: Height and width in pixels; at least 16.
        strength: Brightness of the digits; the brighter of picture and digit is seen at each pixel.
        seed: Address of the draws, with "digits on patches".
        start: Number of the first sample.

    Raises:
        RecipeError: Fewer than one picture, or too small ones.

    >>> dataset = digits_on_patches(6)
    >>> (dataset.labels["digit"] >= 0).astype(int).tolist() == dataset.target.tolist()
    True
    """
    below = trifeature(n, image_size=image_size, seed=seed, start=start)
    above = digits(n, image_size=image_size, seed=seed, start=start)
    draws = uniforms(torch.arange(start, start + n), 1, seed, "digits on patches")
    target = (draws[:, 0] < 0.5).long().numpy()
    pictures, laid = (np.stack([one[i]["image"].numpy() for i in range(n)]) for one in (below, above))
    shown = (strength * target[:, None, None, None] * laid).astype(np.uint8)
    images = np.maximum(pictures, shown)
    digit = np.where(target == 1, above.labels["digit"], -1)
    return BackgroundAndTarget(
        target,
        images,
        below.ids,
        {**below.labels, "digit": digit},
        {**below.label_names, **above.label_names},
        hashlib.blake2b(repr((start, images.shape)).encode() + images.tobytes(), digest_size=16).hexdigest(),
    )
