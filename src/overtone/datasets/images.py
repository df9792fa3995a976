"""A dataset of pictures of one size, and the source that pictures are read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from overtone.contracts import Batch, Sample
from overtone.datasets.decoding import Content, Framing, decoded
from overtone.errors import DataError


@dataclass(frozen=True)
class Source:
    """Where pictures come from, before they have one size.

    Attributes:
        name: What to call it in messages.
        ids: One string a picture, the same wherever the data lie.
        read: Row -> what is stored there: a file's bytes, a PIL image, an array (C, H, W) or (H, W).
        labels: Attribute -> (N,) int64 codes.
        label_names: Attribute -> the name of each code.
        stamp: Changes whenever the content may have; None where that cannot be told without reading.
        parallel: Whether `read` may run in several threads at once.
    """

    name: str
    ids: Sequence[str]
    read: Callable[[int], Content]
    labels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    label_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    stamp: str | None = None
    parallel: bool = True

    def take(self, rows: NDArray[np.int64]) -> Source:
        """The pictures of some rows, in that order.

        >>> Source("three", ["a", "b", "c"], lambda row: f"{row}".encode()).take(np.array([2, 0])).ids
        ['c', 'a']
        """
        return replace(
            self,
            ids=[self.ids[row] for row in rows],
            read=partial(_read_of, self.read, rows),
            labels={name: np.asarray(codes)[rows] for name, codes in self.labels.items()},
            stamp=None if self.stamp is None else f"{self.stamp} {rows.tolist()}",
        )


def _read_of(read: Callable[[int], Content], rows: NDArray[np.int64], row: int) -> Content:
    return read(int(rows[row]))


class Images(Protocol):
    """Pictures by row, each (C, H, W): an array, in memory or mapped, or `DecodedOnAccess`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, row: int, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class DecodedOnAccess:
    """Pictures that are decoded each time they are asked for."""

    source: Source
    framing: Framing
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, row: int) -> NDArray[Any]:
        try:
            image = decoded(self.source.read(row), self.framing)
        except Exception as error:  # Pillow raises half a dozen kinds on a damaged file
            raise DataError(
                f"{self.source.name}: {self.source.ids[row]!r} can no longer be read: {error}"
            ) from error
        if (image.shape, image.dtype) != (self.shape[1:], self.dtype):
            raise DataError(
                f"{self.source.name}: {self.source.ids[row]!r} has changed since it was first read"
            )
        return image


class ImageDataset:
    """Pictures of one size, each a sample `{"index": int, "image": (C, H, W)}`.

    The image is uint8, or float32 where the pictures have more than 8 bits (see `decoding`).

    Attributes:
        modality: `"image"`.
        ids: N strings that name the samples wherever the data lie.
        labels: Attribute -> (N,) int64 codes, -1 where a sample has no label.
        label_names: Attribute -> the name of each code.
        fingerprint: Hex digest of ids, content and size.
        quarantined: (id, reason) of every picture that was left out because it cannot be read.
        rows: (N,) int64, which picture of the source each sample is.
        digests: (N,) uint64 of what each picture was read from, or None.
        image_shape: (C, H, W).

    >>> from overtone.datasets import arrays
    >>> dataset = arrays(np.zeros((3, 8, 8, 3), np.uint8))
    >>> dataset[1]["image"].shape, dataset.collate([dataset[0], dataset[2]])["index"]
    (torch.Size([3, 8, 8]), tensor([0, 2]))
    """

    def __init__(
        self,
        images: Images,
        ids: Sequence[str],
        labels: Mapping[str, NDArray[np.int64]],
        label_names: Mapping[str, Sequence[str]],
        fingerprint: str,
        *,
        rows: NDArray[np.int64] | None = None,
        digests: NDArray[np.uint64] | None = None,
        quarantined: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Ids and labels have one entry a sample; `rows` says which row of `images` each sample is."""
        self.modality = "image"
        self.ids = ids
        self.labels = labels
        self.label_names = label_names
        self.fingerprint = fingerprint
        self.quarantined = quarantined
        self.digests = digests
        self.image_shape = images.shape[1:]
        self._images = images
        self.rows = np.arange(len(ids)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        return {"index": index, "image": torch.from_numpy(np.array(self._images[self.rows[index]]))}

    def collate(self, samples: list[Sample]) -> Batch:
        """`{"index": (B,) int64, "image": (B, C, H, W)}`."""
        return {
            "index": torch.tensor([sample["index"] for sample in samples], dtype=torch.int64),
            "image": torch.stack([sample["image"] for sample in samples]),
        }
