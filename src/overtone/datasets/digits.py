"""Handwritten-looking digits, drawn: a dominant feature that needs no download."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from overtone.datasets.drawing import Field, coverage, placed, to_segment
from overtone.datasets.images import ImageDataset
from overtone.errors import RecipeError
from overtone.rng import uniforms

Strokes: TypeAlias = tuple[tuple[float, float] | None, ...]

# Pen strokes on a field from -1 to 1, y upwards; a gap (None) lifts the pen.
_STROKES: tuple[Strokes, ...] = (
    ((0, 1), (-0.5, 0.6), (-0.6, 0), (-0.5, -0.6), (0, -1), (0.5, -0.6), (0.6, 0), (0.5, 0.6), (0, 1)),
    ((-0.35, 0.6), (0.1, 1), (0.1, -1)),
    ((-0.55, 0.55), (-0.3, 0.9), (0.2, 1), (0.55, 0.6), (0.4, 0.1), (-0.6, -1), (0.65, -1)),
    ((-0.5, 0.9), (0.2, 1), (0.55, 0.6), (0.1, 0.1), (0.6, -0.4), (0.25, -0.95), (-0.55, -0.85)),
    ((0.1, 1), (-0.65, -0.2), (0.7, -0.2), None, (0.35, 0.4), (0.35, -1)),
    ((0.55, 1), (-0.4, 1), (-0.5, 0.15), (0.15, 0.25), (0.6, -0.3), (0.25, -0.95), (-0.55, -0.85)),
    ((0.4, 1), (-0.3, 0.4), (-0.55, -0.4), (-0.1, -1), (0.5, -0.7), (0.4, -0.1), (-0.1, 0.0), (-0.55, -0.4)),
    ((-0.6, 1), (0.6, 1), (-0.1, -1)),
    ((0, 0.05), (-0.5, 0.5), (0, 1), (0.5, 0.5), (0, 0.05), (-0.55, -0.5), (0, -1), (0.55, -0.5), (0, 0.05)),
    ((0.55, 0.45), (0.05, 0.05), (-0.5, 0.4), (-0.15, 0.95), (0.4, 0.9), (0.55, 0.45), (0.35, -1)),
)
_POINTS = max(map(len, _STROKES))
NUMBERS = 6 + 2 * _POINTS
"""Random numbers that a digit is drawn from."""
_BATCH = 256


def digits(n: int, *, image_size: int = 32, seed: int = 0, start: int = 0) -> ImageDataset:
    """White digits on black, with attribute `digit`; position, size, slant, weight and strokes vary.

    Sample i is a function of (seed, start + i) alone: take another `start` for a test set.

    Args:
        n: How many.
        image_size: Height and width in pixels; at least 12.
        seed: Address of the draws, with "digits".
        start: Number of the first sample.

    Raises:
        RecipeError: Fewer than one picture, or too small ones.

    >>> digits(5, image_size=16).image_shape
    (3, 16, 16)
    """
    if n < 1 or image_size < 12:
        raise RecipeError(f"digits: n={n}, image_size={image_size}; give n >= 1 and image_size >= 12")
    draws = uniforms(torch.arange(start, start + n), NUMBERS, seed, "digits").double().numpy()
    codes = (draws[:, 0] * 10).astype(np.int64)
    images = drawn_digits(codes, draws, image_size)
    return ImageDataset(
        images,
        [str(start + i) for i in range(n)],
        {"digit": codes},
        {"digit": tuple("0123456789")},
        hashlib.blake2b(repr((start, images.shape)).encode() + images.tobytes(), digest_size=16).hexdigest(),
    )


def drawn_digits(codes: NDArray[np.int64], draws: Field, image_size: int) -> NDArray[np.uint8]:
    """(n, 3, size, size) pictures of the digits `codes`, (n,); `draws`, (n, NUMBERS), but for the first."""
    batches = range(0, len(codes), _BATCH)
    return np.concatenate([_drawn(codes[i : i + _BATCH], draws[i : i + _BATCH], image_size) for i in batches])


def _drawn(codes: NDArray[np.int64], draws: Field, size: int) -> NDArray[np.uint8]:
    radius = size * (0.3 + 0.08 * draws[:, 1])
    centre = size / 2 + size * 0.16 * (draws[:, 2:4] - 0.5)
    x, y = placed(size, centre, radius, (draws[:, 4] - 0.5) * 0.6)
    weight = 0.12 + 0.12 * draws[:, 5]
    wobble = (draws[:, 6:].reshape(-1, _POINTS, 2) - 0.5) * 0.25
    distance = np.empty_like(x)
    for code, strokes in enumerate(_STROKES):
        members = np.flatnonzero(codes == code)
        if len(members):
            distance[members] = _to_strokes(x[members], y[members], strokes, wobble[members])
    ink = coverage(distance - weight[:, None, None], radius)
    grey = np.rint(255 * ink).astype(np.uint8)
    return np.repeat(grey[:, None], 3, axis=1)


def _to_strokes(x: Field, y: Field, strokes: Strokes, wobble: Field) -> Field:
    nearest = np.full(x.shape, np.inf)
    for number, (start, end) in enumerate(pairwise(strokes)):
        if start is not None and end is not None:
            a = np.array(start) + wobble[:, number]
            b = np.array(end) + wobble[:, number + 1]
            nearest = np.minimum(nearest, to_segment(x, y, a, b))
    return nearest
