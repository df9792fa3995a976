from __future__ import annotations

import numpy as np
import pytest

from overtone.errors import DataError, RecipeError
from overtone.evaluation import evaluate_attributes, knn, linear_probe, split_labelled
from overtone.evaluation.labelled import labelled

TRAIN = np.array([[0], [1], [10], [11], [500]], np.float32)


@pytest.mark.parametrize("probe", [linear_probe, knn])
def test_samples_without_a_label_neither_teach_nor_count(probe: object) -> None:
    train = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0]], np.float32)
    with_a_trap = np.array([0, 0, 1, 1, -1])
    test_labels = np.array([0, 0, 1, 1, -1])
    assert probe(train, with_a_trap, train, test_labels) == 100  # type: ignore[operator]


@pytest.mark.parametrize(
    ("train_labels", "test_labels", "complaint"),
    [
        ([0, 0, 0, -1, -1], [0, 0, 0, 0, 0], "shape: 1 classes"),
        ([-1] * 5, [0] * 5, "shape: 0 classes"),
        ([0, 1, 0, 1, 0], [-1] * 5, "0 labelled test samples"),
        ([0, 1, 0, 1, 0], [0, 1, 2, 3, 0], r"shape: .*no training sample has, codes \[2, 3\]"),
        ([0, 1, 0, 1], [0] * 5, "shape: 5 train embeddings but 4 labels"),
    ],
)
def test_what_cannot_be_probed_is_an_error_that_names_the_attribute(
    train_labels: list[int], test_labels: list[int], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        labelled(TRAIN, np.array(train_labels), TRAIN, np.array(test_labels), "shape")


def test_every_attribute_is_scored_by_every_probe_beside_its_chance() -> None:
    rng = np.random.default_rng(0)
    digit, shape = rng.integers(0, 2, 400), rng.integers(0, 4, 400)
    embeddings = (np.eye(2)[digit] + 0.1 * rng.standard_normal((400, 2))).astype(np.float32)
    shape[300:] = np.repeat([0, 1, 2, -1], [60, 20, 10, 10])
    labels = {"digit": digit, "shape": shape}
    train, test = ({name: codes[part] for name, codes in labels.items()} for part in np.s_[:300, 300:])
    scores = evaluate_attributes(embeddings[:300], train, embeddings[300:], test)
    assert [(s["attribute"], s["probe"]) for s in scores] == [
        ("digit", "linear"), ("digit", "knn"), ("shape", "linear"), ("shape", "knn"),
    ]  # fmt: skip
    assert [s["accuracy"] for s in scores[:2]] == [100, 100]
    assert [s["n_test"] for s in scores] == [100, 100, 90, 90]
    assert scores[2]["chance"] == pytest.approx(100 * 60 / 90)
    assert scores[2]["n_train"] == 300


def test_an_unknown_probe_and_an_attribute_of_one_set_only_are_refused() -> None:
    codes = {"shape": np.array([0, 1, 0, 1, 0])}
    with pytest.raises(RecipeError, match="'svm' is unknown"):
        evaluate_attributes(TRAIN, codes, TRAIN, codes, probes=["svm"])
    with pytest.raises(DataError, match="colour: labelled in only one"):
        evaluate_attributes(TRAIN, codes, TRAIN, {**codes, "colour": codes["shape"]})


@pytest.mark.parametrize(
    ("n", "share", "n_test"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.2, 2), (1001, 0.25, 250)]
)
def test_a_split_is_a_keyed_partition_of_the_samples(n: int, share: float, n_test: int) -> None:
    train, test = split_labelled(n, 3, share)
    assert len(test) == n_test
    assert sorted([*train, *test]) == list(range(n))
    assert np.array_equal(test, split_labelled(n, 3, share)[1])


def test_another_seed_gives_another_split() -> None:
    assert not np.array_equal(split_labelled(100, 0)[1], split_labelled(100, 1)[1])


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(RecipeError, match="test_share"):
        split_labelled(10, 0, 1.0)
    with pytest.raises(DataError, match="1 samples"):
        split_labelled(1, 0)
