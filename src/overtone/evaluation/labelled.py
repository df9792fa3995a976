"""Which samples an evaluation may use: those with a label, on both sides of one split."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone.errors import DataError, RecipeError
from overtone.rng import derive, permuted

_FOLDS = 5


class Labelled(NamedTuple):
    """Embeddings (n, D) float32 and labels (n,) int64 of the labelled samples of two sets."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]


def labelled(
    train: NDArray[np.float32],
    train_labels: NDArray[np.int64],
    test: NDArray[np.float32],
    test_labels: NDArray[np.int64],
    attribute: str,
) -> Labelled:
    """Leaves out the samples labelled -1 and checks that the rest can be probed.

    Raises:
        DataError: Lengths disagree, nothing is labelled, the training set has fewer than two classes,
            or the test set has a class that the training set lacks; the message names the attribute.

    >>> x = np.zeros((3, 1), np.float32)
    >>> labelled(x, np.array([0, 1, -1]), x, np.array([-1, 1, 0]), "shape").train_labels
    array([0, 1])
    """
    for name, embeddings, labels in (("train", train, train_labels), ("test", test, test_labels)):
        if len(embeddings) != len(labels):
            raise DataError(
                f"{attribute}: {len(embeddings)} {name} embeddings but {len(labels)} labels; expected one "
                "label a sample. Embed the dataset the labels belong to."
            )
    known, asked = train_labels >= 0, test_labels >= 0
    classes, queries = np.unique(train_labels[known]), np.unique(test_labels[asked])
    if len(classes) < 2 or not len(queries):
        raise DataError(
            f"{attribute}: {len(classes)} classes among the {known.sum()} labelled training samples and "
            f"{asked.sum()} labelled test samples; expected two classes or more, and a test sample. "
            "Leave the attribute out or label more samples."
        )
    if missing := sorted(set(queries.tolist()) - set(classes.tolist())):
        raise DataError(
            f"{attribute}: the test set has classes that no training sample has, codes {missing[:5]}; "
            "expected each in both. Leave these samples out (label -1) or split the data anew."
        )
    return Labelled(train[known], train_labels[known], test[asked], test_labels[asked])


def split_labelled(n: int, seed: int, test_share: float = 0.2) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits n samples without a test set of their own, by a keyed draw.

    Returns:
        The training and the test samples, int64, each in ascending order; neither is empty.

    Raises:
        RecipeError: `test_share` is not inside (0, 1).
        DataError: Fewer than two samples.

    >>> train, test = split_labelled(10, seed=0)
    >>> len(test), sorted([*train.tolist(), *test.tolist()]) == list(range(10))
    (2, True)
    """
    if not 0 < test_share < 1:
        raise RecipeError(f"test_share: {test_share}; expected a share between 0 and 1, such as 0.2.")
    if n < 2:
        raise DataError(f"{n} samples cannot be split; expected at least 2. Give a test set.")
    n_test = min(max(round(n * test_share), 1), n - 1)
    order = permuted(np.arange(n), n, derive(seed, "split"))
    return np.sort(order[n_test:]), np.sort(order[:n_test])


def folds(n: int, seed: int, most: int = 2000) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Splits n samples so that as many as are needed are asked about.

    Up to `most` samples are split into five parts by a keyed draw, each asked about once by probes that
    learn from the other four; of more, one split as by `split_labelled` does.

    >>> [len(test) for _, test in folds(12, seed=0)], len(folds(12, seed=0, most=10))
    ([3, 3, 2, 2, 2], 1)
    """
    if n > most:
        return [split_labelled(n, seed)]
    part = permuted(np.arange(n), n, derive(seed, "split")) % _FOLDS
    return [(np.flatnonzero(part != fold), np.flatnonzero(part == fold)) for fold in range(_FOLDS)]
