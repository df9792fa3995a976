"""Half of a drawn digit as a picture, and what can be measured of the other half as a table with gaps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from overtone.contracts import Batch, Sample
from overtone.datasets.digits import digits
from overtone.datasets.drawing import Field
from overtone.errors import RecipeError
from overtone.rng import uniforms

LEVELS = (3, 4, 4, 4)
"""Of the categories: the third with most ink, and how many strokes, up to 3, a line across the upper half
meets, one across the lower half, one from top to bottom."""
# The quantities are ink in all, in each third, and where its middle lies from the top and from the cut, each
# of them with a mean of about 0 and a spread of about 1.
_MEAN = np.array([0.21, 0.18, 0.28, 0.17, 0.49, 0.21])
_SPREAD = np.array([0.07, 0.10, 0.09, 0.09, 0.08, 0.08])


class ImageTable:
    """Samples `{"index": int, "image": (3, H, W), "table": (F,) float32, "known": (F,) bool}`.

    A table holds categories, as codes from 0, and then quantities; attributes are as in `contracts.Dataset`.
    What stands in a cell that is not known means nothing.
    """

    modality = "image"

    def __init__(
        self,
        images: NDArray[np.uint8],
        table: NDArray[np.float32],
        known: NDArray[np.bool_],
        codes: NDArray[np.int64],
        start: int,
    ) -> None:
        self.ids: Sequence[str] = [str(start + i) for i in range(len(images))]
        self.labels: Mapping[str, NDArray[np.int64]] = {"digit": codes}
        self.label_names: Mapping[str, Sequence[str]] = {"digit": tuple("0123456789")}
        digest = hashlib.blake2b(repr((start, images.shape)).encode(), digest_size=16)
        for part in (images, table, known):
            digest.update(np.ascontiguousarray(part).tobytes())
        self.fingerprint = digest.hexdigest()
        self._parts: dict[str, NDArray[Any]] = {"image": images, "table": table, "known": known}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        return {"index": index, **{k: torch.from_numpy(v[index].copy()) for k, v in self._parts.items()}}

    def collate(self, samples: list[Sample]) -> Batch:
        """Each stacked, and `index`, (B,) int64."""
        index = torch.tensor([sample["index"] for sample in samples], dtype=torch.int64)
        return {"index": index, **{key: torch.stack([s[key] for s in samples]) for key in self._parts}}


def image_table(
    n: int,
    *,
    missing: tuple[float, float] = (0.1, 0.5),
    image_size: int = 24,
    seed: int = 0,
    start: int = 0,
) -> ImageTable:
    """The left half of a drawn digit, with four categories and six quantities of its right half.

    Sample i is a function of (seed, start + i) alone: take another `start` for a test set.

    Args:
        n: How many.
        missing: Each sample lacks a share of its cells that is drawn from this range.
        image_size: Height of the picture, twice its width; see `digits`.
        seed: Address of the draws, with "image_table".
        start: Number of the first sample.

    Raises:
        RecipeError: See `digits`; or `missing` is no range within 0 and 1.

    >>> sample = image_table(3)[1]
    >>> sample["image"].shape, sample["table"].shape, sample["known"].shape
    (torch.Size([3, 24, 12]), torch.Size([10]), torch.Size([10]))
    """
    if not (len(missing) == 2 and 0 <= missing[0] <= missing[1] <= 1):
        raise RecipeError(f"image_table: missing={missing}; give two rising shares from 0 to 1")
    whole = digits(n, image_size=image_size, seed=seed, start=start)
    images = np.stack([whole.__getitem__(row)["image"].numpy() for row in range(n)])
    half = image_size // 2
    table = _measured(images[:, 0, :, half:] / 255)
    draws = uniforms(torch.arange(start, start + n), 1 + table.shape[1], seed, "image_table").numpy()
    share = missing[0] + (missing[1] - missing[0]) * draws[:, :1]
    return ImageTable(images[..., :half], table, draws[:, 1:] >= share, whole.labels["digit"], start)


def _measured(half: Field) -> NDArray[np.float32]:
    """(n, 10) of (n, H, W) from 0 to 1."""
    height, width = half.shape[1:]
    rows = half.mean(axis=2)
    thirds = np.stack([part.mean(axis=1) for part in np.array_split(rows, 3, axis=1)], axis=1)
    total = np.maximum(half.sum(axis=(1, 2)), 1e-6)
    middle = (half.sum(axis=2) * np.linspace(0, 1, height)).sum(axis=1) / total
    side = (half.sum(axis=1) * np.linspace(0, 1, width)).sum(axis=1) / total
    quantities = np.column_stack([half.mean(axis=(1, 2)), thirds, middle, side])
    inked = half > 0.5
    across = [_strokes(inked[:, height * quarter // 4]) for quarter in (1, 3)]
    categories = np.column_stack([thirds.argmax(axis=1), *across, _strokes(inked[:, :, width // 4])])
    return np.column_stack([categories, (quantities - _MEAN) / _SPREAD]).astype(np.float32)


def _strokes(line: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How often each of (n, W) lines meets ink, up to 3."""
    begins = line & ~np.pad(line, ((0, 0), (1, 0)))[:, :-1]
    strokes: NDArray[np.int64] = np.minimum(begins.sum(axis=1), 3)
    return strokes
