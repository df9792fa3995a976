"""What embeddings can tell: probes of attributes, signs of collapse; of two towers, pairs and retrieval.

Pictures without labels have attributes too: `statistic_labels` makes them of what can be measured.

A probe is a function of (train, train_labels, test, test_labels), the embeddings (N, D) float32 and
the labels (N,) int64 with -1 for none, that gives the accuracy in percent on the test set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from overtone.errors import DataError, RecipeError
from overtone.evaluation.cka import linear_cka
from overtone.evaluation.collapse import alignment, collapse_alarm, effective_rank, uniformity
from overtone.evaluation.image_statistics import STATISTICS, Statistic, image_statistics
from overtone.evaluation.knn import knn
from overtone.evaluation.labelled import labelled, split_labelled
from overtone.evaluation.linear_probe import linear_probe
from overtone.evaluation.mmvp import read_mmvp
from overtone.evaluation.pairs import PairScore, PairScores, image_reader, pair_accuracy
from overtone.evaluation.pairs_csv import read_pairs
from overtone.evaluation.retrieval import Retrieval, retrieval
from overtone.evaluation.statistic_labels import StatisticLabels, statistic_labels
from overtone.evaluation.zero_shot import zero_shot_accuracy, zero_shot_classifier

__all__ = [
    "PairScore",
    "PairScores",
    "Retrieval",
    "STATISTICS",
    "Score",
    "Statistic",
    "StatisticLabels",
    "alignment",
    "collapse_alarm",
    "effective_rank",
    "evaluate_attributes",
    "image_reader",
    "image_statistics",
    "knn",
    "linear_cka",
    "linear_probe",
    "pair_accuracy",
    "read_mmvp",
    "read_pairs",
    "retrieval",
    "split_labelled",
    "statistic_labels",
    "uniformity",
    "zero_shot_accuracy",
    "zero_shot_classifier",
]

_PROBES = {"linear": linear_probe, "knn": knn}


class Score(TypedDict):
    """How well one probe reads one attribute; `accuracy` and `chance` in percent."""

    attribute: str
    probe: str
    accuracy: float
    chance: float
    n_train: int
    n_test: int


def evaluate_attributes(
    train: NDArray[np.float32],
    train_labels: Mapping[str, NDArray[np.int64]],
    test: NDArray[np.float32],
    test_labels: Mapping[str, NDArray[np.int64]],
    *,
    probes: Sequence[str] = ("linear", "knn"),
) -> list[Score]:
    """Reads every attribute from the embeddings with every probe.

    Args:
        train: (N, D) float32.
        train_labels: Attribute -> (N,) int64, -1 where a sample has no label and is left out.
        test: (M, D) float32.
        test_labels: Attribute -> (M,) int64, likewise.
        probes: Among `linear` and `knn`.

    Returns:
        One score for each attribute and probe. `chance` is what guessing the test set's most
        frequent class would give.

    Raises:
        RecipeError: An unknown probe.
        DataError: An attribute that one set lacks or that cannot be probed (see `labelled`).

    >>> x, y = np.array([[0.0], [1.0], [5.0]], np.float32), {"shape": np.array([0, 0, 1])}
    >>> evaluate_attributes(x, y, x, y, probes=["linear"])[0]["accuracy"]
    100.0
    """
    if unknown := sorted(set(probes) - set(_PROBES)):
        raise RecipeError(f"probes: {unknown[0]!r} is unknown; expected one of {', '.join(_PROBES)}.")
    if odd := sorted(set(train_labels) ^ set(test_labels)):
        raise DataError(
            f"{odd[0]}: labelled in only one of the training and the test set; expected both. "
            "Label the other set or leave the attribute out."
        )
    return [
        _score(probe, attribute, (train, codes, test, test_labels[attribute]))
        for attribute, codes in train_labels.items()
        for probe in probes
    ]


def _score(
    probe: str,
    attribute: str,
    sets: tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]],
) -> Score:
    data = labelled(*sets, attribute)
    return Score(
        attribute=attribute,
        probe=probe,
        accuracy=_PROBES[probe](*data, attribute=attribute),
        chance=100 * float(np.bincount(data.test_labels).max()) / len(data.test_labels),
        n_train=len(data.train_labels),
        n_test=len(data.test_labels),
    )
