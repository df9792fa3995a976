"""What the parts of Overtone ask of each other, and nothing more. Nothing here knows an image.

A *sample* and a *batch* are dicts: always `index`, plus one key per modality (`image`, `series`, ...).
A batch in training also carries `cell` and `identity`, (B,) int64: the cell of each sample in the
partition of its stage, and what it is (samples of one identity are never negatives of each other).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Sample = dict[str, Any]
Batch = dict[str, Any]


class Address(NamedTuple):
    """Where in a run a random draw happens; together with a sample's index it names the draw."""

    seed: int
    stage: int
    step: int


class Ids(NamedTuple):
    """What decides whether a pair may be negative: the cells agree and the identities differ.

    Both are (n,) int64 tensors.
    """

    cell: Tensor
    identity: Tensor


class Dataset(Protocol):
    """A finite set of samples with stable ids and any number of attribute labels.

    Attributes:
        modality: The key under which a sample holds its content (`image`, `series`, ...).
        ids: N strings that name the samples wherever the data lie; labels are joined by them.
        labels: Attribute -> (N,) int64 codes, -1 where a sample has no label.
        label_names: Attribute -> the name of each code.
        fingerprint: Hex digest of the ids and the content; ties artifacts to the data.
    """

    @property
    def modality(self) -> str: ...

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def labels(self) -> Mapping[str, NDArray[np.int64]]: ...

    @property
    def label_names(self) -> Mapping[str, Sequence[str]]: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...

    def collate(self, samples: list[Sample], /) -> Batch: ...


class Views(Protocol):
    """Makes the views of a batch: a pure function of the batch and the address."""

    def __call__(self, batch: Batch, address: Address, /) -> list[Batch]: ...


class Objective(Protocol):
    """A loss over a matrix of similarities, of which some pairs may be negatives.

    Called with `rows` (n, d), `columns` (m, d), `positive` (n,) int64: the column of each row's
    positive, and the ids of rows and columns. Returns a scalar.
    """

    def __call__(
        self, rows: Tensor, columns: Tensor, positive: Tensor, row_ids: Ids, column_ids: Ids, /
    ) -> Tensor: ...


class TwoTowers(Protocol):
    """An encoder of pictures and of texts into one space; neither embedding need have unit length.

    `encode_image` takes (B, C, H, W), uint8 or float in [0, 1]; both return (B, D).
    """

    def encode_image(self, images: Tensor, /) -> Tensor: ...

    def encode_text(self, texts: list[str], /) -> Tensor: ...
