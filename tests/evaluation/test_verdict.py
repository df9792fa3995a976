from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from overtone.errors import DataError
from overtone.evaluation.bootstrap import Interval
from overtone.evaluation.labelled import folds
from overtone.evaluation.verdict import Verdict, asked_about, read, verdict


def about(accuracy: float) -> Interval:
    return Interval(accuracy, accuracy - 3, accuracy + 3)


@pytest.mark.parametrize(
    ("accuracy", "untrained", "other", "word"),
    [
        (12, [], None, "ignored"),  # its interval holds chance
        (26, [32, 28], None, "ignored"),  # training has lost it
        (34, [32, 28], None, "ignored"),  # not surely better
        (40, [32, 28], None, "partly"),  # better, but far from all
        (70, [75, 20], None, "partly"),  # most of it, but pixels give more
        (70, [32, 28], None, "learned"),
        (98, [100, 100], None, "learned"),  # nothing is left to learn
        (70, [32, 28], 90, "partly"),  # there is clearly more
        (70, [32, 28], 74, "learned"),  # intervals overlap
        (26, [32, 28], 90, "ignored"),
    ],
)
def test_the_rule_case_by_case(
    accuracy: float, untrained: list[float], other: float | None, word: Verdict
) -> None:
    second = None if other is None else about(other)
    assert verdict(about(accuracy), 10, [about(each) for each in untrained], second) == word


def planted(n: int, share: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Two classes, the second of a share of all, apart by three deviations in one direction of ten."""
    draws = np.random.default_rng(0)
    labels = (draws.random(n) < share).astype(np.int64)
    embeddings = draws.standard_normal((n, 10)).astype(np.float32)
    embeddings[:, 3] += 3 * labels
    return embeddings, labels


def test_a_rare_class_is_read_as_well_as_an_even_one() -> None:
    # The best border between the two lies in the middle: normal deviates of 1.5, 93 % of each side.
    for share in (0.5, 0.05):
        embeddings, labels = planted(4000, share)
        found = read(embeddings, labels, folds(4000, 0))
        assert found.linear.accuracy == pytest.approx(93, abs=2.5)


def test_noise_is_at_chance_however_uneven_the_classes() -> None:
    embeddings, labels = planted(2000, 0.05)
    found = read(np.delete(embeddings, 3, axis=1), labels, folds(2000, 0))
    for interval in found:
        assert interval.accuracy == pytest.approx(50, abs=11)  # three standard errors of 100 samples


def test_every_sample_of_few_is_asked_about_once_by_probes_that_did_not_see_it() -> None:
    parts = folds(103, 0)
    assert np.array_equal(np.sort(np.concatenate([test for _, test in parts])), np.arange(103))
    for train, test in parts:
        assert not set(train) & set(test)
        assert len(train) + len(test) == 103


def test_a_class_that_only_one_fold_holds_is_not_asked_about() -> None:
    embeddings, labels = planted(100, 0.5)
    labels[folds(100, 0)[0][1][:1]] = 7
    assert read(embeddings, labels, folds(100, 0)).linear.accuracy > 80


def test_splits_without_anything_to_ask_are_left_out() -> None:
    embeddings, labels = planted(100, 0.5)
    splits = folds(100, 0)
    labels[splits[0][1]] = -1  # nothing to ask
    labels[splits[1][0]] = np.where(labels[splits[1][0]] == 1, -1, labels[splits[1][0]])  # one class to learn
    for unusable in (splits[0], splits[1]):
        assert len(asked_about(labels, *unusable)) == 0
    labels = planted(100, 0.5)[1]
    labels[splits[0][1]] = -1
    assert read(embeddings, labels, splits) == read(embeddings, labels, splits[1:])
    with pytest.raises(DataError, match="0 labelled test samples"):
        read(embeddings, labels, splits[:1])
