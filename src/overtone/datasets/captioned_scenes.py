"""Pictures with captions, in which a scene drowns nine weaker properties.

The properties are those of the nine patterns of MMVP (Tong et al., "Eyes Wide Shut? Exploring the Visual
Shortcomings of Multimodal LLMs", CVPR 2024, section 3), drawn here. Which scene it is tells pictures
and captions apart on its own, so a contrastive encoder has no need of the rest.

What makes the scene the easy feature: it fills the picture, and its name is made of syllables that each
stand for one of its bands, so that each is learned from many pictures, as a word that only one scene has
would not be. What makes the properties hard: each thing has another place, size, tilt and colour from picture
to picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from overtone.datasets.blind_pairs import Pair
from overtone.datasets.captioned import Captioned
from overtone.datasets.drawing import Field, by_kind, coverage, placed
from overtone.datasets.images import ImageDataset
from overtone.datasets.trifeature import COLOURS
from overtone.errors import RecipeError
from overtone.rng import uniforms

PATTERNS: dict[str, tuple[str, ...]] = {
    "orientation": ("up", "right", "down", "left"),
    "presence": ("without", "with"),
    "state": ("filled", "hollow"),
    "count": ("one", "two", "three", "four"),
    "position": ("top left", "top right", "bottom right", "bottom left"),
    "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"),
    "structure": ("circle", "square", "triangle", "diamond", "dome"),
    "text": ("E", "H", "K", "L", "T", "V", "X", "Z"),
    "viewpoint": ("near", "far"),
}
"""The nine properties, each with its values as the caption says them."""

_ONSETS = ("bdfghj", "klmnpr", "stvwyz")  # of the syllables for each band of a scene: no two share one
_VOWELS = "aeiou"
_VALUES = len(_ONSETS[0]) * len(_VOWELS)
MOST_SCENES = _VALUES ** len(_ONSETS)

_SIZES = np.array([len(values) for values in PATTERNS.values()])
_CODE = {name: column for column, name in enumerate(PATTERNS)}

_BATCH = 256
_PATCHES = 4  # colours of a band of a scene, which flow into each other
_BRIGHTEST = 160  # of a scene, so that what is drawn on it stands out
_TINTS = np.array(list(COLOURS.values()))  # of what may have any colour
_HUES = np.array([COLOURS[name] for name in PATTERNS["colour"]])
# Where the sun may stand, in quarters of the picture: between the things.
_SITES = np.array([[2, 2], [2, 0.35], [2, 3.65], [0.35, 2], [3.65, 2]])


def captioned_scenes(
    n: int, *, scenes: int = 1000, start: int = 0, image_size: int = 32, seed: int = 0
) -> Captioned:
    """Pictures of things before one of many scenes, with captions that name the scene and all else.

    A shape in one quarter of the picture; an arrow, dots and a letter in the others, in any order. Attributes
    are `scene` and the nine `PATTERNS`, all independent. Sample i is a function of (seed, start + i,
    scenes) alone: take another `start` for a test set. How scenes look belongs to the seed.

    Args:
        n: How many.
        scenes: How many scenes, 2 to 27,000.
        start: Number of the first sample.
        image_size: Height and width in pixels; at least 32, below which hollow shapes are filled.
        seed: Address of the draws, with "captioned_scenes".

    Raises:
        RecipeError: A number is too small or too large.

    >>> captioned_scenes(4).texts[0]
    'a far filled purple diamond at the bottom left, without a sun, an arrow pointing left, three dots, the \
letter X, in du-la-sa'
    """
    _check("captioned_scenes", n, scenes, image_size)
    draws = uniforms(torch.arange(start, start + n), _COLUMNS, seed, "captioned_scenes").double().numpy()
    scene, kinds = _values(draws, scenes)
    bands = _bands(scene, scenes)
    images = _drawn(bands, kinds, draws, image_size, seed)
    labels = {"scene": scene, **{name: kinds[:, column].copy() for name, column in _CODE.items()}}
    names = {"scene": tuple(map(_name, _bands(np.arange(scenes), scenes))), **PATTERNS}
    stamp = repr((start, images.shape)).encode() + images.tobytes()
    fingerprint = hashlib.blake2b(stamp, digest_size=16).hexdigest()
    dataset = ImageDataset(images, [str(start + i) for i in range(n)], labels, names, fingerprint)
    return Captioned(dataset, [_caption(*row) for row in zip(bands, kinds, strict=True)])


def scene_pairs(
    n: int, pattern: str, *, scenes: int = 1000, start: int = 0, image_size: int = 32, seed: int = 0
) -> list[Pair]:
    """Pairs of such pictures that differ in one property alone, with their captions.

    Args:
        n: How many pairs.
        pattern: One of `PATTERNS`.
        scenes: As for `captioned_scenes`; the same scenes under the same seed.
        start: Number of the first pair.
        image_size: As for `captioned_scenes`.
        seed: Address of the draws, with "scene_pairs" and the pattern: no picture of a training set.

    Raises:
        RecipeError: The pattern is unknown, or a number is too small or too large.

    >>> (pair,) = scene_pairs(1, "count")
    >>> [text.partition("up, ")[2] for text in pair.texts]
    ['four dots, the letter L, in be-ka-tu', 'two dots, the letter L, in be-ka-tu']
    """
    if pattern not in PATTERNS:
        raise RecipeError(f"pattern: {pattern!r} is unknown; expected one of {', '.join(PATTERNS)}.")
    _check("scene_pairs", n, scenes, image_size)
    index = torch.arange(start, start + n)
    draws = uniforms(index, _COLUMNS + 1, seed, "scene_pairs", pattern).double().numpy()
    scene, first = _values(draws, scenes)
    bands = _bands(scene, scenes)
    second, column = first.copy(), _CODE[pattern]
    step = 1 + (draws[:, -1] * (_SIZES[column] - 1)).astype(np.int64)
    second[:, column] = (first[:, column] + step) % _SIZES[column]
    images = [torch.from_numpy(_drawn(bands, kinds, draws, image_size, seed)) for kinds in (first, second)]
    return [
        Pair(
            (images[0][i], images[1][i]),
            (_caption(bands[i], first[i]), _caption(bands[i], second[i])),
            pattern,
            (f"{pattern}-{start + i}-1", f"{pattern}-{start + i}-2"),
        )
        for i in range(n)
    ]


def _caption(bands: NDArray[np.int64], kinds: NDArray[np.int64]) -> str:
    said = {name: values[kinds[_CODE[name]]] for name, values in PATTERNS.items()}
    dots = "dot" if said["count"] == "one" else "dots"
    return (
        f"a {said['viewpoint']} {said['state']} {said['colour']} {said['structure']} "
        f"at the {said['position']}, {said['presence']} a sun, an arrow pointing {said['orientation']}, "
        f"{said['count']} {dots}, the letter {said['text']}, in {_name(bands)}"
    )


def _bands(scene: NDArray[np.int64], scenes: int) -> NDArray[np.int64]:
    """(B, 3): what each band of a scene shows, one of the fewest values that make enough scenes."""
    values = next(values for values in range(2, _VALUES + 1) if values ** len(_ONSETS) >= scenes)
    return np.stack([scene // values**band % values for band in range(len(_ONSETS))], axis=1)


def _name(bands: NDArray[np.int64]) -> str:
    """The name of a scene: a syllable a band."""
    parts = zip(_ONSETS, bands, strict=True)
    return "-".join(onsets[code // len(_VOWELS)] + _VOWELS[code % len(_VOWELS)] for onsets, code in parts)


def _check(what: str, n: int, scenes: int, image_size: int) -> None:
    if n < 1 or not 2 <= scenes <= MOST_SCENES or image_size < 32:
        raise RecipeError(
            f"{what}: n={n}, scenes={scenes}, image_size={image_size}; give n >= 1, scenes from 2 to "
            f"{MOST_SCENES:,} and image_size >= 32"
        )


def _values(draws: Field, scenes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The scene (B,) and the codes of the properties (B, 9)."""
    return (draws[:, 0] * scenes).astype(np.int64), (draws[:, 1 : 1 + len(_SIZES)] * _SIZES).astype(np.int64)


class _Chance(NamedTuple):
    """What varies from picture to picture and no caption names; uniform, of the four things in turn."""

    place: Field  # (B, 4, 2)
    tilt: Field  # (B, 4)
    size: Field  # (B, 4)
    tint: Field  # (B, 4); the shape's is unused, its colour is a property
    order: Field  # (B, 3): of the three that are not the shape
    light: Field  # (B,)
    site: Field  # (B,)

    @classmethod
    def of(cls, draws: Field) -> _Chance:
        place, tilt, size, tint, order, light, site = np.split(draws, [8, 12, 16, 20, 23, 24], axis=1)
        return cls(place.reshape(-1, 4, 2), tilt, size, tint, order, light[:, 0], site[:, 0])


_COLUMNS = 1 + len(PATTERNS) + 25  # of a sample's random numbers


def _drawn(
    bands: NDArray[np.int64], kinds: NDArray[np.int64], draws: Field, size: int, seed: int
) -> NDArray[np.uint8]:
    """(B, 3, size, size) from the scenes (B, 3), the codes (B, 9) and all random numbers of the samples."""
    chance = draws[:, 1 + len(_SIZES) : _COLUMNS]
    parts = [slice(begin, begin + _BATCH) for begin in range(0, len(kinds), _BATCH)]
    return np.concatenate([_painted(bands[p], kinds[p], _Chance.of(chance[p]), size, seed) for p in parts])


def _painted(
    bands: NDArray[np.int64], kinds: NDArray[np.int64], chance: _Chance, size: int, seed: int
) -> NDArray[np.uint8]:
    code = {name: kinds[:, column] for name, column in _CODE.items()}
    image = _scenery(bands, size, seed) * (0.8 + 0.4 * chance.light[:, None, None, None])
    centre = _centres(size, code["position"], chance)
    tint = _TINTS[(chance.tint * len(_TINTS)).astype(np.int64)]
    tilt = (chance.tilt - 0.5) * np.array([0.4, 0.7, 2.0, 0.5])
    radius = size * 0.17 * np.exp((chance.size - 0.5) * 0.5)
    radius[:, 0] = (
        size * np.where(code["viewpoint"] == 0, 0.2, 0.13) * np.exp((chance.size[:, 0] - 0.5) * 0.2)
    )
    tilt[:, 1] += np.pi / 2 * (1 - code["orientation"])

    fields = [placed(size, centre[:, i], radius[:, i], tilt[:, i]) for i in range(4)]
    _paint(image, coverage(_outline(code, *fields[0], radius[:, 0]), radius[:, 0]), _HUES[code["colour"]])
    _paint(image, coverage(_arrow(*fields[1]), radius[:, 1]), tint[:, 1])
    _paint(image, coverage(_dots(*fields[2], code["count"]), radius[:, 2]), tint[:, 2])
    _paint(image, _letter(*fields[3], code["text"]), tint[:, 3])

    site = size / 4 * _SITES[(chance.site * len(_SITES)).astype(np.int64)]
    spot = np.full(len(kinds), 0.06 * size)
    sun = coverage(np.hypot(*placed(size, site, spot, np.zeros(len(kinds)))) - 1, spot)
    there = (code["presence"] == 1)[:, None, None]
    _paint(image, sun * there, np.broadcast_to(np.array(COLOURS["yellow"]), (len(kinds), 3)))
    return np.rint(image).astype(np.uint8)


def _scenery(bands: NDArray[np.int64], size: int, seed: int) -> Field:
    """(B, 3, size, size): three bands, each a row of colours that belong to its place and its value."""
    numbers = torch.from_numpy((bands + _VALUES * np.arange(bands.shape[1])).ravel())
    colours = _BRIGHTEST * uniforms(numbers, 3 * _PATCHES, seed, "scenes").double().numpy()
    board = colours.reshape(*bands.shape, 3, _PATCHES).transpose(0, 2, 1, 3)
    row = np.arange(size) * bands.shape[1] // size
    at = np.linspace(0, _PATCHES - 1, size)
    hats = np.maximum(1 - np.abs(np.arange(_PATCHES)[:, None] - at), 0)  # interpolates linearly
    scenery: Field = (board @ hats)[:, :, row]
    return scenery


def _centres(size: int, position: NDArray[np.int64], chance: _Chance) -> Field:
    """(B, 4, 2): the shape in the quarter of its position, the others in any order in the rest."""
    after = np.concatenate([np.zeros((len(position), 1), np.int64), 1 + chance.order.argsort(axis=1)], axis=1)
    middle = np.array([[1, 1], [3, 1], [3, 3], [1, 3]])[(position[:, None] + after) % 4]
    centres: Field = size / 4 * middle + size / 12 * (chance.place - 0.5)
    return centres


def _paint(image: Field, mask: Field, colours: NDArray[np.int64]) -> None:
    image += mask[:, None] * (colours[:, :, None, None] - image)


def _outline(code: dict[str, NDArray[np.int64]], x: Field, y: Field, radius: Field) -> Field:
    """Signed distance to the shape, or to a line along its edge where it is hollow."""
    inside = by_kind(_KINDS, code["structure"], x, y)
    half = 0.65 / radius[:, None, None]  # of the line, 1.3 pixels wide
    hollow = (code["state"] == 1)[:, None, None]
    outline: Field = np.where(hollow, np.abs(inside + half) - half, inside)
    return outline


# All roomy enough inside that hollow ones can be told from filled ones when they are far.
_KINDS: dict[str, Callable[..., Field]] = {
    "circle": lambda x, y: np.hypot(x, y) - 0.95,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.8,
    "triangle": lambda x, y: np.maximum(np.abs(x) * 0.866 + y * 0.5 - 0.5, -y - 0.8),
    "diamond": lambda x, y: (np.abs(x) + np.abs(y)) * 0.707 - 0.74,
    "dome": lambda x, y: np.maximum(np.hypot(x, y + 0.5) - 1.05, -y - 0.5),
}


def _arrow(x: Field, y: Field) -> Field:
    """Signed distance; it points to the right."""
    shaft = np.maximum(np.abs(x + 0.4) - 0.6, np.abs(y) - 0.2)
    head = np.maximum((x - 1) * 0.707 + np.abs(y) * 0.707, 0.05 - x)
    arrow: Field = np.minimum(shaft, head)
    return arrow


_SPOTS = (
    ((0, 0),),
    ((-0.6, 0), (0.6, 0)),
    ((-0.6, -0.5), (0.6, -0.5), (0, 0.6)),
    ((-0.6, -0.6), (0.6, -0.6), (-0.6, 0.6), (0.6, 0.6)),
)


def _dots(x: Field, y: Field, count: NDArray[np.int64]) -> Field:
    """Signed distance; `count` is the code, one less than the number."""
    distance = np.empty_like(x)
    for code, spots in enumerate(_SPOTS):
        members = count == code
        distances = [np.hypot(x[members] - right, y[members] - up) for right, up in spots]
        distance[members] = np.min(distances, axis=0) - 0.33
    return distance


_GLYPHS = {
    "E": "##### #.... ####. #.... #####",
    "H": "#...# #...# ##### #...# #...#",
    "K": "#...# #..#. ###.. #..#. #...#",
    "L": "#.... #.... #.... #.... #####",
    "T": "##### ..#.. ..#.. ..#.. ..#..",
    "V": "#...# #...# .#.#. .#.#. ..#..",
    "X": "#...# .#.#. ..#.. .#.#. #...#",
    "Z": "##### ...#. ..#.. .#... #####",
}
_PIXELS = np.array([[list(row) for row in _GLYPHS[name].split()] for name in PATTERNS["text"]]) == "#"


def _letter(x: Field, y: Field, text: NDArray[np.int64]) -> Field:
    """1 where a letter's board of 5 x 5 is set, 0 elsewhere."""
    column, row = (np.floor((t + 1) * 2.5).astype(np.int64) for t in (x, -y))
    on_board = (column >= 0) & (column < 5) & (row >= 0) & (row < 5)
    pixels = _PIXELS[text[:, None, None], row.clip(0, 4), column.clip(0, 4)]
    letter: Field = (pixels & on_board).astype(np.float64)
    return letter
