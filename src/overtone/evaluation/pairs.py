"""Blind pairs: two pictures, two statements, and whether an encoder gives each picture its own.

The score of MMVP-VLM (Tong et al., "Eyes Wide Shut? Exploring the Visual Shortcomings of Multimodal LLMs",
CVPR 2024, section 3), for pairs of any origin.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from overtone.contracts import TwoTowers
from overtone.datasets import Pair
from overtone.datasets.decoding import Fit, Framing, decoded
from overtone.errors import DataError
from overtone.evaluation.towers import unit_images, unit_texts

CHANCE = 25.0
"""In percent: two statements, each right half the time."""

Read = Callable[[Path], Tensor]
"""From an image file to (C, H, W)."""


class PairScore(NamedTuple):
    """How many of `n_pairs` pairs are right, in percent with a 95 % interval (Wilson's).

    `ties` counts the statements for which the two pictures are exactly as near; there are two a pair.
    """

    right: int
    n_pairs: int
    ties: int
    accuracy: float
    low: float
    high: float


class PairScores(NamedTuple):
    """The score of each pattern, of all pairs together, and the mean over the patterns in percent."""

    patterns: dict[str, PairScore]
    all: PairScore
    mean: float


def pair_accuracy(
    encoder: TwoTowers,
    pairs: Sequence[Pair],
    prompt: str = "a photo of ",
    *,
    read: Read | None = None,
    batch_size: int = 64,
) -> PairScores:
    """Asks of each statement which of the two pictures is nearer; a pair is right if both answers are.

    Cosines are compared in float32. Where they are equal the second picture is the answer, as in the
    published score, whose probability of the first then does not exceed a half.

    Args:
        encoder: Two towers.
        pairs: At least one.
        prompt: Stands before each statement.
        read: Reads the pictures that are files; `image_reader` makes one.
        batch_size: Pairs at a time.

    Raises:
        DataError: There is no pair, or its pictures cannot be read or have different sizes.
        NumericalError: An embedding is not finite, or zero.

    >>> class Brightness:
    ...     def encode_image(self, images):
    ...         mean = images.float().mean((1, 2, 3)) / 255
    ...         return torch.stack([mean, 1 - mean], dim=1)
    ...     def encode_text(self, texts):
    ...         return torch.tensor([[1.0, 0.0] if "snow" in text else [0.0, 1.0] for text in texts])
    >>> white, black = torch.full((3, 4, 4), 255), torch.zeros(3, 4, 4)
    >>> pair = Pair((white, black), ("snow", "a night"), "Color")
    >>> pair_accuracy(Brightness(), [pair]).patterns["Color"].accuracy
    100.0
    """
    if not pairs:
        raise DataError("pairs: there are none; expected at least one.")
    cosines = torch.cat(
        [
            _cosines(encoder, pairs[begin : begin + batch_size], prompt, read)
            for begin in range(0, len(pairs), batch_size)
        ]
    )
    first_nearer = cosines[:, :, 0] > cosines[:, :, 1]
    right = first_nearer[:, 0] & ~first_nearer[:, 1]
    ties = (cosines[:, :, 0] == cosines[:, :, 1]).sum(1)
    patterns = list(dict.fromkeys(pair.pattern for pair in pairs))
    rows = {name: [i for i, pair in enumerate(pairs) if pair.pattern == name] for name in patterns}
    scores = {name: _score(right[rows[name]], ties[rows[name]]) for name in patterns}
    mean = math.fsum(score.accuracy for score in scores.values()) / len(scores)
    return PairScores(scores, _score(right, ties), mean)


def image_reader(image_size: int | tuple[int, int], channels: int = 3, fit: Fit = "crop") -> Read:
    """A reader that brings every picture to one size; see `overtone.datasets.decoding`."""
    return partial(_read, Framing.of(image_size, channels, fit))


class Corrections(NamedTuple):
    """Pairs after corrections: statements changed, pairs left out, and digests that no picture has."""

    pairs: list[Pair]
    changed: int
    left_out: int
    unused: int


def corrected(pairs: Sequence[Pair], errata: Mapping[str, str | None]) -> Corrections:
    """Gives pictures other statements where those published are wrong.

    Args:
        pairs: Pairs of files; of pairs in memory none is touched.
        errata: SHA-256 of an image file, in hex -> the statement that is true of it, or None to leave the
            pair out. By content, because the same picture has several numbers in circulation.

    >>> pair = Pair((torch.zeros(3, 4, 4), torch.ones(3, 4, 4)), ("snow", "a night"), "Color")
    >>> corrected([pair], {"0" * 64: None})[1:]
    (0, 0, 1)
    """
    kept, changed, left_out, used = [], 0, 0, set()
    for pair in pairs:
        digests = [_digest(image) if isinstance(image, Path) else "" for image in pair.images]
        used |= set(digests) & set(errata)
        texts = [errata.get(digest, text) for digest, text in zip(digests, pair.texts, strict=True)]
        if texts[0] is None or texts[1] is None:
            left_out += 1
            continue
        changed += sum(new != old for new, old in zip(texts, pair.texts, strict=True))
        kept.append(pair._replace(texts=(texts[0], texts[1])))
    return Corrections(kept, changed, left_out, len(set(errata) - used))


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, both ends between 0 and 1 (Wilson, JASA 1927).

    >>> [round(end, 3) for end in wilson(6, 15)]
    [0.198, 0.643]
    """
    z = 1.959963984540054
    share, widening = right / n, z * z / n
    centre = share + widening / 2
    half = z * math.sqrt(share * (1 - share) / n + widening / (4 * n))
    return (max(centre - half, 0) / (1 + widening), min((centre + half) / (1 + widening), 1))


def _cosines(encoder: TwoTowers, pairs: Sequence[Pair], prompt: str, read: Read | None) -> Tensor:
    """(pairs, statement, picture)."""
    images = [_loaded(image, read) for pair in pairs for image in pair.images]
    ids = [name for pair in pairs for name in pair.ids]
    if odd := [i for i, image in enumerate(images) if image.shape != images[0].shape]:
        raise DataError(
            f"pairs: picture {ids[odd[0]]!r} has shape {tuple(images[odd[0]].shape)}, {ids[0]!r} "
            f"{tuple(images[0].shape)}; expected one shape: `read` has to bring them to one size."
        )
    pictures = unit_images(encoder, torch.stack(images), ids)
    texts = unit_texts(encoder, [prompt + text for pair in pairs for text in pair.texts])
    # No matrix product: its sums may differ in order from entry to entry, and equal pictures have to tie.
    products = texts.view(len(pairs), 2, 1, -1) * pictures.view(len(pairs), 1, 2, -1)
    return products.sum(dim=-1)


def _loaded(image: Tensor | Path, read: Read | None) -> Tensor:
    if isinstance(image, Tensor):
        return image
    if read is None:
        raise DataError(f"pairs: {image} is a file; give `read`, such as image_reader(224).")
    return read(image)


def _read(framing: Framing, path: Path) -> Tensor:
    try:
        return torch.from_numpy(decoded(path.read_bytes(), framing))
    except Exception as error:  # Pillow raises half a dozen kinds on a damaged file
        raise DataError(f"pairs: {path} cannot be read as an image: {error}") from error


def _score(right: Tensor, ties: Tensor) -> PairScore:
    n, n_right = len(right), int(right.sum())
    low, high = wilson(n_right, n)
    return PairScore(n_right, n, int(ties.sum()), 100 * n_right / n, 100 * low, 100 * high)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
