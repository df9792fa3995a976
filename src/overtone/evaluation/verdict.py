"""Whether an encoder learned an attribute, learned it partly, or ignores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from overtone.evaluation.bootstrap import Interval, balanced_accuracy
from overtone.evaluation.knn import knn_predictions
from overtone.evaluation.labelled import labelled
from overtone.evaluation.linear_probe import linear_predictions

Verdict: TypeAlias = Literal["learned", "partly", "ignored"]

HALF, NEARLY_ALL = 0.5, 0.9
RULE = (
    "Two questions are asked of the linear probe. Is the attribute read better than without any training, so "
    "that the whole interval lies above chance, raw pixels and random weights? And is at least half of it "
    "read, on the way from chance to 100 %? Twice yes is learned, twice no is ignored, all else partly. Nearly "
    "all of it (90 % of the way) is learned, whatever the pixels say. What a second encoder reads clearly "
    "better, its interval above this one's, is partly at most."
)


class Readings(NamedTuple):
    """What both probes read of an attribute, as balanced accuracy."""

    linear: Interval
    knn: Interval


def read(
    train: NDArray[np.float32],
    train_labels: NDArray[np.int64],
    test: NDArray[np.float32],
    test_labels: NDArray[np.int64],
    *,
    attribute: str = "label",
    seed: int = 0,
) -> Readings:
    """Reads an attribute from embeddings by both probes, all classes counting alike however uneven they are.

    Args:
        train: (N, D) float32.
        train_labels: (N,) int64, -1 where a sample has no label and is left out.
        test: (M, D) float32.
        test_labels: (M,) int64, likewise.
        attribute: Named in errors.
        seed: Address of the bootstrap's draws.

    Raises:
        DataError: See `labelled`.

    >>> x, y = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.1]], np.float32), np.array([0, 1, 1])
    >>> read(x, y, x, y).linear
    Interval(accuracy=100.0, low=100.0, high=100.0)
    """
    data = labelled(train, train_labels, test, test_labels, attribute)
    return Readings(
        *(
            balanced_accuracy(predict(data, balanced=True) == data.test_labels, data.test_labels, seed=seed)
            for predict in (linear_predictions, knn_predictions)
        )
    )


def verdict(
    linear: Interval, chance: float, untrained: Sequence[Interval], other: Interval | None = None
) -> Verdict:
    """One word for what a linear probe reads from an encoder; the rule is `RULE`.

    Args:
        linear: From the encoder.
        chance: What guessing would give, in percent.
        untrained: From what costs no training: raw pixels, random weights.
        other: From a second encoder that it is compared with.

    >>> verdict(Interval(26, 24, 28), 10, [Interval(32, 30, 34)])
    'ignored'
    >>> verdict(Interval(45, 43, 47), 10, [Interval(32, 30, 34)])
    'partly'
    >>> verdict(Interval(75, 73, 77), 10, [Interval(32, 30, 34)])
    'learned'
    """
    better = linear.low > max([chance, *(reference.accuracy for reference in untrained)])
    share = (linear.accuracy - chance) / (100 - chance)
    if not better and share < HALF:
        return "ignored"
    if other is not None and other.low > linear.high:
        return "partly"
    return "learned" if share >= NEARLY_ALL or (better and share >= HALF) else "partly"


class Attribute(NamedTuple):
    """What was read of one attribute.

    Attributes:
        name: Of the attribute.
        verdict: On the encoder.
        chance: What guessing gives, in percent: 100 / classes.
        classes: How many were asked about.
        n_train: Samples that the probes learned from.
        n_test: Samples that they were asked about.
        readings: Who reads -> what; the encoder itself comes first.
    """

    name: str
    verdict: Verdict
    chance: float
    classes: int
    n_train: int
    n_test: int
    readings: Mapping[str, Readings]
