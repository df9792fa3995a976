"""Shape x colour x texture: pictures in which three independent features compete.

After Hermann & Lampinen, "What shapes feature representations? Exploring datasets, architectures,
and training", NeurIPS 2020, section 2: ten values each, drawn anew here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from overtone.datasets.drawing import Field, by_kind, coverage, placed
from overtone.datasets.images import ImageDataset
from overtone.errors import RecipeError
from overtone.rng import uniforms

COLOURS = {
    "red": (225, 30, 35),
    "orange": (255, 140, 0),
    "yellow": (250, 235, 40),
    "lime": (150, 240, 60),
    "green": (15, 145, 70),
    "cyan": (60, 225, 235),
    "blue": (40, 70, 235),
    "purple": (135, 40, 190),
    "pink": (255, 130, 195),
    "white": (245, 245, 245),
}
BACKGROUND = 20
SHADE = 0.35  # brightness of the dark parts of a texture

_BATCH = 256
_PLACE = 8  # columns of a sample's random numbers: 3 labels, x, y, radius, angle, the texture's angle
_GRAIN = 8  # the noise texture is a board of 8 x 8 random cells


def trifeature(n: int, *, image_size: int = 32, seed: int = 0, start: int = 0) -> ImageDataset:
    """One coloured, textured shape on a dark ground; `shape`, `colour` and `texture` are independent.

    Position, size and rotation vary. Sample i is a function of (seed, start + i) alone: take another
    `start` for a test set.

    Args:
        n: How many.
        image_size: Height and width in pixels; at least 16, below which textures cannot be told.
        seed: Address of the draws, with "trifeature".
        start: Number of the first sample.

    Raises:
        RecipeError: Fewer than one picture, or too small ones.

    >>> dataset = trifeature(4)
    >>> dataset.image_shape, [len(dataset.label_names[a]) for a in ("shape", "colour", "texture")]
    ((3, 32, 32), [10, 10, 10])
    """
    if n < 1 or image_size < 16:
        raise RecipeError(f"trifeature: n={n}, image_size={image_size}; give n >= 1 and image_size >= 16")
    columns = _PLACE + 2 + _GRAIN**2
    draws = uniforms(torch.arange(start, start + n), columns, seed, "trifeature").double().numpy()
    kinds = (draws[:, :3] * 10).astype(np.int64)
    images = np.concatenate(
        [_drawn(kinds[i : i + _BATCH], draws[i : i + _BATCH], image_size) for i in range(0, n, _BATCH)]
    )
    names = {"shape": tuple(SHAPES), "colour": tuple(COLOURS), "texture": tuple(TEXTURES)}
    return ImageDataset(
        images,
        [str(start + i) for i in range(n)],
        {name: kinds[:, column].copy() for column, name in enumerate(names)},
        names,
        hashlib.blake2b(repr((start, images.shape)).encode() + images.tobytes(), digest_size=16).hexdigest(),
    )


def _drawn(kinds: NDArray[np.int64], draws: Field, size: int) -> NDArray[np.uint8]:
    """(B, 3, size, size) from the labels (B, 3) and all random numbers of the samples."""
    radius = size * (0.34 + 0.1 * draws[:, 5])
    centre = size / 2 + (size / 2 - radius)[:, None] * (draws[:, 3:5] - 0.5) * 2
    turns = (draws[:, 6:8] - 0.5) * np.pi / 4  # of the shape and of its texture
    inside = coverage(by_kind(SHAPES, kinds[:, 0], *placed(size, centre, radius, turns[:, 0])), radius)
    x, y = placed(size, centre, radius, turns[:, 1])
    light = SHADE + (1 - SHADE) * by_kind(TEXTURES, kinds[:, 2], x, y, draws[:, _PLACE:])
    painted = np.array(list(COLOURS.values()))[kinds[:, 1], :, None, None] * light[:, None]
    image: Field = BACKGROUND + inside[:, None] * (painted - BACKGROUND)
    return np.rint(image).astype(np.uint8)


# Shapes: (x, y) -> signed distance to the edge, in radii, negative inside.


def _box(x: Field, y: Field, width: float, height: float) -> Field:
    distance: Field = np.maximum(np.abs(x) - width, np.abs(y) - height)
    return distance


def _star(x: Field, y: Field) -> Field:
    """Five points: the plane folded onto half of one, whose edge goes from (0, 1) to (0.247, 0.34)."""
    sector = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, y) + sector / 2) % sector - sector / 2)
    r = np.hypot(x, y)
    edge: Field = (r * np.sin(angle) * 0.66 + (r * np.cos(angle) - 1) * 0.247) / 0.705
    return edge


def _heart(x: Field, y: Field) -> Field:
    lobes = np.hypot(np.abs(x) - 0.44, y - 0.36) - 0.5
    wedge = np.maximum((np.abs(x) - y) * 0.707 - 0.556, y - 0.15)
    heart: Field = np.minimum(lobes, wedge)
    return heart


SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    "circle": lambda x, y: np.hypot(x, y) - 0.9,
    "square": lambda x, y: _box(x, y, 0.78, 0.78),
    "triangle": lambda x, y: np.maximum(np.abs(x) * 0.866 + y * 0.5 - 0.5, -y - 0.6),
    "star": _star,
    "plus": lambda x, y: np.minimum(_box(x, y, 0.95, 0.32), _box(x, y, 0.32, 0.95)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.68) - 0.27,
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 0.95, 0.65 - np.hypot(x - 0.45, y)),
    "heart": _heart,
    "tee": lambda x, y: np.minimum(_box(x, y - 0.58, 0.9, 0.32), _box(x, y + 0.2, 0.3, 0.75)),
    "hourglass": lambda x, y: np.maximum(np.abs(x) * 0.76 - np.abs(y) * 0.65 - 0.06, np.abs(y) - 0.9),
}


# Textures: (x, y, draws) -> brightness in [0, 1]; draws (B, 2 + 64): a shift in x and y, and grain.


def _wave(phase: Field) -> Field:
    """One light and one dark stripe each time `phase` grows by 1, with soft borders."""
    return np.clip(0.5 + 1.6 * np.sin(phase * 2 * np.pi), 0, 1)


def _tile(x: Field, y: Field, draws: Field, period: float) -> tuple[Field, Field]:
    """Where in its tile each pixel lies, both from -0.5 to 0.5; the tiling is shifted at random."""
    u, v = x / period + draws[:, 0, None, None], y / period + draws[:, 1, None, None]
    return u - np.rint(u), v - np.rint(v)


def _checker(x: Field, y: Field, draws: Field) -> Field:
    u, v = _tile(x, y, draws, 0.9)
    return np.clip(0.5 + 3 * np.sin(u * 2 * np.pi) * np.sin(v * 2 * np.pi), 0, 1)


def _dots(x: Field, y: Field, draws: Field) -> Field:
    return np.clip((np.hypot(*_tile(x, y, draws, 0.52)) - 0.22) * 5, 0, 1)


def _grid(x: Field, y: Field, draws: Field) -> Field:
    u, v = _tile(x, y, draws, 0.62)
    return np.clip(1 - (np.minimum(np.abs(u), np.abs(v)) - 0.1) * 7, 0, 1)


def _zigzag(x: Field, y: Field, draws: Field) -> Field:
    u, v = _tile(x, y, draws, 0.6)
    return _wave(v + np.abs(u) * 1.6)


def _noise(x: Field, y: Field, draws: Field) -> Field:
    column, row = (np.clip((t + 1) * _GRAIN / 2, 0, _GRAIN - 1).astype(np.int64) for t in (x, y))
    grain: Field = draws[:, 2:].reshape(-1, _GRAIN, _GRAIN)[np.arange(len(x))[:, None, None], row, column]
    return grain


TEXTURES: dict[str, Callable[[Field, Field, Field], Field]] = {
    "solid": lambda x, y, draws: np.ones_like(x),
    "stripes": lambda x, y, draws: _wave(y / 0.5 + draws[:, 0, None, None]),
    "checker": _checker,
    "dots": _dots,
    "grid": _grid,
    "rings": lambda x, y, draws: _wave(np.hypot(x, y) / 0.5 + draws[:, 0, None, None]),
    "spokes": lambda x, y, draws: _wave(np.arctan2(y, x) * 5 / (2 * np.pi) + draws[:, 0, None, None]),
    "zigzag": _zigzag,
    "noise": _noise,
    "fade": lambda x, y, draws: np.clip(0.5 + y * 0.75, 0, 1),
}
