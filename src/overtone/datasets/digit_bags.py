"""Bags of digits, of which only is known whether a 9 is in them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from overtone.contracts import Batch, Sample
from overtone.datasets.digits import NUMBERS, drawn_digits
from overtone.datasets.images import ImageDataset
from overtone.datasets.trifeature import trifeature
from overtone.errors import RecipeError
from overtone.rng import uniforms

_POSITIVE = 9


class Bags(ImageDataset):
    """Instances of bags, a sample each. Samples and batches also hold `bag_positive`, 1 or 0.

    Args:
        bag_positive: (N,) int64, of the bag of each instance: whether any of it is positive.
        *arguments: As `ImageDataset`.
    """

    def __init__(self, bag_positive: NDArray[np.int64], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.bag_positive = bag_positive

    def __getitem__(self, index: int) -> Sample:
        return {**super().__getitem__(index), "bag_positive": int(self.bag_positive[index])}

    def collate(self, samples: list[Sample]) -> Batch:
        """`{"index": (B,) int64, "image": (B, C, H, W), "bag_positive": (B,) int64}`."""
        known = torch.tensor([sample["bag_positive"] for sample in samples], dtype=torch.int64)
        return {**super().collate(samples), "bag_positive": known}


def digit_bags(
    n: int,
    *,
    bag_size: int = 20,
    share: float = 0.2,
    image_size: int = 32,
    patches: bool = False,
    seed: int = 0,
    start: int = 0,
) -> Bags:
    """Bags of consecutive digits; half of the bags, drawn, are positive: of their instances a share are 9s.

    Attributes: `digit`, and `positive`, whether an instance is a 9, which about as many others have as there
    are 9s, all of positive bags. Sample i is a function of (seed, start + i) alone.

    Args:
        n: How many instances; the last bag may be cut.
        bag_size: Instances of a bag.
        share: Of 9s in a positive bag; its first is one always.
        image_size: Height and width in pixels; at least 12, with patches 16.
        patches: Whether each digit is laid over a picture of `trifeature`, which says nothing of its bag.
        seed: Address of the draws, with "digit bags".
        start: Number of the first instance, a multiple of the size of a bag.

    Raises:
        RecipeError: A value is out of range.

    >>> bags = digit_bags(200)
    >>> bool((bags.labels["digit"][bags.bag_positive == 0] == 9).any())
    False
    """
    if n < 1 or image_size < 12 or bag_size < 2 or not 0 < share <= 0.5 or start % bag_size:
        raise RecipeError(
            f"digit_bags: n={n}, image_size={image_size}, bag_size={bag_size}, share={share}, start={start}; "
            "give n >= 1, image_size >= 12, bag_size >= 2, a share above 0 and up to 0.5, and a start at "
            "which a bag begins"
        )
    numbers = torch.arange(start, start + n)
    bag, place = numbers // bag_size, numbers % bag_size
    positive = (uniforms(bag, 1, seed, "digit bags", "bags")[:, 0] < 0.5).numpy()
    draws = uniforms(numbers, 1 + NUMBERS, seed, "digit bags").double().numpy()
    nine = positive & ((draws[:, 0] < share) | (place == 0).numpy())
    codes = np.where(nine, _POSITIVE, (draws[:, 1] * _POSITIVE).astype(np.int64))
    images = drawn_digits(codes, draws[:, 1:], image_size)
    if patches:
        below = trifeature(n, image_size=image_size, seed=seed, start=start)
        images = np.maximum(images, np.stack([below[i]["image"].numpy() for i in range(n)]))
    asked = nine | (positive & (draws[:, 0] < 2 * share))
    labels = {"digit": codes, "positive": np.where(asked, nine, -1).astype(np.int64)}
    names = {"digit": tuple("0123456789"), "positive": ("no", "yes")}
    return Bags(
        positive.astype(np.int64),
        images,
        [str(number) for number in numbers.tolist()],
        labels,
        names,
        hashlib.blake2b(
            repr((start, bag_size)).encode() + images.tobytes() + positive.tobytes(), digest_size=16
        ).hexdigest(),
    )
