"""Some of the samples of a dataset, renumbered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from overtone.contracts import Batch, Dataset, Sample
from overtone.errors import DataError, RecipeError
from overtone.rng import derive, numpy_generator, permuted


class Subset:
    """The samples `indices` of a dataset, in that order; attributes as in `contracts.Dataset`.

    >>> from overtone.datasets import tones
    >>> few = Subset(tones(10), [7, 2])
    >>> few.ids, few[1]["index"]
    (['7', '2'], 1)
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int] | NDArray[np.int64]) -> None:
        rows = np.asarray(indices, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(dataset)):
            raise RecipeError(
                f"indices: {rows.min()} to {rows.max()} of a dataset of {len(dataset):,} samples; "
                f"they must lie in 0 to {len(dataset) - 1:,}"
            )
        self.modality = dataset.modality
        self.ids: Sequence[str] = [dataset.ids[row] for row in rows]
        self.labels: Mapping[str, NDArray[np.int64]] = {
            name: codes[rows] for name, codes in dataset.labels.items()
        }
        self.label_names = dataset.label_names
        self.fingerprint = hashlib.blake2b(
            dataset.fingerprint.encode() + rows.tobytes(), digest_size=16
        ).hexdigest()
        digests = getattr(dataset, "digests", None)
        self.digests: NDArray[np.uint64] | None = None if digests is None else digests[rows]
        if (texts := getattr(dataset, "texts", None)) is not None:
            self.texts = [texts[row] for row in rows]
        self._dataset = dataset
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        return {**self._dataset[int(self._rows[index])], "index": index}

    def collate(self, samples: list[Sample]) -> Batch:
        """As the whole dataset's."""
        return self._dataset.collate(samples)


def subset(dataset: Dataset, indices: Sequence[int] | NDArray[np.int64] | int) -> Subset:
    """Some samples of a dataset: those with the given indices, or the first so many.

    Raises:
        RecipeError: There are fewer.

    >>> from overtone.datasets import tones
    >>> subset(tones(10), 3).ids
    ['0', '1', '2']
    """
    return Subset(dataset, range(indices) if isinstance(indices, int) else indices)


def drawn(n: int, most: int, seed: int = 0) -> NDArray[np.int64]:
    """At most so many of n samples, a keyed draw in ascending order, (n,) or (most,) int64.

    >>> len(drawn(10, 3)), drawn(2, 3).tolist()
    (3, [0, 1])
    """
    return np.sort(permuted(np.arange(min(n, most)), n, derive(seed, "drawn")))


def balanced(dataset: Dataset, n: int, *, attribute: str | None = None, seed: int = 0) -> Subset:
    """`n` samples drawn so that every class of an attribute has n / classes, one more at most.

    The draw depends on the seed, the labels and `n` alone.

    Args:
        dataset: What to draw from.
        n: How many.
        attribute: Whose classes; not needed where there is one attribute.
        seed: Address of the draw, with "balanced".

    Raises:
        RecipeError: No such attribute.
        DataError: A class has too few samples.

    >>> from overtone.datasets import tones
    >>> np.bincount(balanced(tones(200), 16, attribute="pitch").labels["pitch"])
    array([2, 2, 2, 2, 2, 2, 2, 2])
    """
    name = attribute or (next(iter(dataset.labels)) if len(dataset.labels) == 1 else "")
    if name not in dataset.labels:
        raise RecipeError(
            f"attribute={attribute!r}: to draw {n} samples evenly, name one of the dataset's attributes: "
            f"{', '.join(map(repr, dataset.labels)) or 'it has none'}"
        )
    codes, draw = dataset.labels[name], numpy_generator(seed, "balanced")
    classes = np.unique(codes[codes >= 0])
    chosen = []
    for turn, code in enumerate(classes):
        wanted = n // len(classes) + (turn < n % len(classes))
        members = np.flatnonzero(codes == code)
        if len(members) < wanted:
            raise DataError(
                f"{name}={dataset.label_names[name][code]!r} has {len(members)} samples, {wanted} are needed "
                f"for {n} over {len(classes)} classes; ask for fewer"
            )
        chosen.append(draw.permutation(members)[:wanted])
    return Subset(dataset, np.sort(np.concatenate(chosen)))
