"""Pictures with a text each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from overtone.contracts import Batch, Dataset, Sample
from overtone.errors import DataError


class Captioned:
    """A dataset whose samples have a `text` besides; attributes as in `contracts.Dataset`.

    A sample is `{"index": int, "image": (C, H, W), "text": str}`; in a batch the texts are a list.

    Args:
        dataset: N samples.
        texts: N strings.

    Raises:
        DataError: There are not N texts, or one is empty.

    >>> from overtone.datasets import arrays
    >>> pairs = Captioned(arrays(np.zeros((2, 8, 8, 3), np.uint8)), ["a cat", "a dog"])
    >>> pairs[1]["text"], pairs.collate([pairs[0], pairs[1]])["text"]
    ('a dog', ['a cat', 'a dog'])
    """

    def __init__(self, dataset: Dataset, texts: Sequence[str]) -> None:
        if len(texts) != len(dataset):
            raise DataError(f"texts: {len(texts):,} of {len(dataset):,} samples; expected one a sample")
        if empty := [dataset.ids[row] for row, text in enumerate(texts) if not text.strip()]:
            raise DataError(
                f"texts: {len(empty):,} of {len(texts):,} are empty, first that of {empty[0]!r}; leave these "
                "samples out"
            )
        self.modality = dataset.modality
        self.ids: Sequence[str] = dataset.ids
        self.labels: Mapping[str, NDArray[np.int64]] = dataset.labels
        self.label_names = dataset.label_names
        self.texts = texts
        digest = hashlib.blake2b(dataset.fingerprint.encode(), digest_size=16)
        for text in texts:
            digest.update(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
        self.fingerprint = digest.hexdigest()
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Sample:
        return {**self._dataset[index], "text": self.texts[index]}

    def collate(self, samples: list[Sample]) -> Batch:
        """As the dataset's, and `text`: a list of B strings."""
        return {**self._dataset.collate(samples), "text": [sample["text"] for sample in samples]}
