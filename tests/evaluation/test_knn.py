from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from overtone.evaluation import knn


def by_loops(
    train: NDArray[np.float32], labels: NDArray[np.int64], test: NDArray[np.float32], k: int
) -> list[int]:
    predicted = []
    for query in test.astype(float):
        cosines = [
            float(query @ row) / math.sqrt(float(query @ query) * float(row @ row))
            for row in train.astype(float)
        ]
        votes: dict[int, float] = {}
        for i in sorted(range(len(train)), key=lambda i: -cosines[i])[:k]:
            votes[int(labels[i])] = votes.get(int(labels[i]), 0.0) + math.exp(cosines[i] / 0.07)
        predicted.append(max(votes, key=lambda label: votes[label]))
    return predicted


@pytest.mark.parametrize("k", [1, 5, 20, 500])
def test_it_is_the_weighted_vote_of_wu_et_al_by_loops(k: int) -> None:
    rng = np.random.default_rng(k)
    train, test = rng.standard_normal((2, 80, 3)).astype(np.float32)
    train *= rng.uniform(0.1, 10, (80, 1)).astype(np.float32)  # lengths must not matter
    labels, predicted = rng.integers(0, 4, 80), np.zeros(80, np.int64)
    predicted[:] = by_loops(train, labels, test, k)
    assert knn(train, labels, test, predicted, n_neighbors=k) == 100
    assert knn(train, labels, test, (predicted + 1) % 4, n_neighbors=k) == 0


def test_a_near_neighbour_outweighs_a_majority_of_far_ones() -> None:
    def at(degrees: list[float]) -> NDArray[np.float32]:
        angles = np.deg2rad(degrees)
        return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)

    assert knn(at([1, 60, 61, 62]), np.array([0, 1, 1, 1]), at([0]), np.array([0]), n_neighbors=4) == 100


@pytest.mark.filterwarnings("error")
def test_nearly_as_many_classes_as_samples_pass_without_a_warning() -> None:
    points = np.eye(6, dtype=np.float32)
    assert knn(points, np.arange(6), points, np.arange(6), n_neighbors=1) == 100
