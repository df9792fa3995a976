"""A dataset whose samples carry the label of one attribute, for methods that learn from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from overtone.contracts import Batch, Dataset, Sample
from overtone.errors import RecipeError


class WithLabel:
    """A dataset whose batches also hold `label`, (B,) int64; all else is the dataset's own."""

    def __init__(self, dataset: Dataset, attribute: str) -> None:
        if attribute not in dataset.labels:
            raise RecipeError(
                f"attribute={attribute!r}: is none of the dataset's: "
                f"{', '.join(map(repr, dataset.labels)) or 'it has none'}"
            )
        self.modality, self.ids = dataset.modality, dataset.ids
        self.labels: Mapping[str, NDArray[np.int64]] = dataset.labels
        self.label_names: Mapping[str, Sequence[str]] = dataset.label_names
        self.digests: NDArray[np.uint64] | None = getattr(dataset, "digests", None)
        if (texts := getattr(dataset, "texts", None)) is not None:
            self.texts = texts
        self._dataset, self._codes = dataset, dataset.labels[attribute]
        # Another label makes another encoder.
        stamp = f"{dataset.fingerprint} {attribute} ".encode() + self._codes.astype("<i8").tobytes()
        self.fingerprint = hashlib.blake2b(stamp, digest_size=16).hexdigest()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return {**self._dataset[index], "label": int(self._codes[index])}

    def collate(self, samples: list[Sample]) -> Batch:
        """As the dataset's, and `label`, (B,) int64, -1 where a sample has none."""
        label = torch.tensor([sample["label"] for sample in samples], dtype=torch.int64)
        return {**self._dataset.collate(samples), "label": label}


def with_label(dataset: Dataset, attribute: str) -> WithLabel:
    """The dataset with the label of an attribute in each sample.

    Raises:
        RecipeError: It has no such attribute.

    >>> from overtone.datasets import digits
    >>> labelled = with_label(digits(5), "digit")
    >>> batch = labelled.collate([labelled[2], labelled[0]])
    >>> batch["label"].tolist() == labelled.labels["digit"][[2, 0]].tolist()
    True
    """
    return WithLabel(dataset, attribute)
