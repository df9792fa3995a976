"""Whether an encoder learned an attribute, learned it partly, or ignores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from overtone.evaluation.bootstrap import Interval, balanced_accuracy
from overtone.evaluation.knn import knn_predictions
from overtone.evaluation.labelled import labelled
from overtone.evaluation.linear_probe import linear_predictions

Verdict: TypeAlias = Literal["ignored", "partly", "learned"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

HALF, MOST = 0.5, 0.8
RULE = (
    "Two questions are asked of the linear probe. Is the attribute read better than without any training, so "
    "that the whole interval lies above chance, raw pixels and random weights? And is at least half of it "
    "read, on the way from chance to 100 %? Twice yes is learned, twice no is ignored, all else partly.",
    "Most of it (80 % of the way) is learned, whatever the pixels say. What a second encoder reads clearly "
    "better, its interval above this one's, is partly at most.",
)

_PREDICT = {"linear": linear_predictions, "knn": knn_predictions}


class Readings(NamedTuple):
    """What both probes read of an attribute, as balanced accuracy."""

    linear: Interval
    knn: Interval


def read(
    embeddings: NDArray[np.float32],
    codes: NDArray[np.int64],
    splits: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    *,
    attribute: str = "label",
    seed: int = 0,
) -> Readings:
    """Reads an attribute from embeddings by both probes, all classes counting alike however uneven they are.

    Args:
        embeddings: (N, D) float32.
        codes: (N,) int64, -1 where a sample has no label and is left out.
        splits: Samples that the probes learn from and samples that they are then asked about, none twice; a
            class that is missing among the former is not asked about, and a split in which nothing can be
            asked is left out.
        attribute: Named in errors.
        seed: Address of the bootstrap's draws.

    Raises:
        DataError: See `labelled`.

    >>> x, y = np.eye(2, dtype=np.float32)[np.arange(8) % 2], np.arange(8) % 2
    >>> read(x, y, [(np.arange(4), np.arange(4, 8))]).linear
    Interval(accuracy=100.0, low=100.0, high=100.0)
    """
    hits: dict[str, list[NDArray[np.bool_]]] = {"linear": [], "knn": []}
    asked = []
    usable = [split for split in splits if len(asked_about(codes, *split))] or splits[:1]  # which says why
    for train, test in usable:
        known = asked_about(codes, train, test)
        data = labelled(embeddings[train], codes[train], embeddings[known], codes[known], attribute)
        for name, predict in _PREDICT.items():
            hits[name].append(predict(data, balanced=True) == data.test_labels)
        asked.append(data.test_labels)
    labels = np.concatenate(asked)
    return Readings(*(balanced_accuracy(np.concatenate(hits[name]), labels, seed=seed) for name in _PREDICT))


def asked_about(
    codes: NDArray[np.int64], train: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The samples of `test` whose class has a sample in `train`; none where that has a single class."""
    classes = np.unique(codes[train][codes[train] >= 0])
    return test[np.isin(codes[test], classes)] if len(classes) > 1 else test[:0]


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
    return "learned" if share >= MOST or (better and share >= HALF) else "partly"


class Attribute(NamedTuple):
    """What was read of one attribute.

    Attributes:
        name: Of the attribute.
        verdict: On the encoder.
        chance: What guessing gives, in percent: 100 / classes.
        classes: How many were asked about.
        n_asked: Samples that the probes were asked about.
        readings: Who reads -> what; the encoder itself comes first.
    """

    name: str
    verdict: Verdict
    chance: float
    classes: int
    n_asked: int
    readings: Mapping[str, Readings]
