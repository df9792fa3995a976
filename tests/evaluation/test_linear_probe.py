from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from overtone.evaluation import linear_probe


def planted(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((n, 20)).astype(np.float32)
    # Six directions of very different scale carry the class: standardisation has something to do.
    labels = np.argmax(embeddings[:, :6], axis=1)
    embeddings[:, :6] *= np.array([1e-3, 1e-1, 1, 10, 100, 1000], np.float32)
    return embeddings, labels


def test_it_recovers_labels_that_are_linear_in_the_embeddings_at_any_scale() -> None:
    accuracy = linear_probe(*planted(3000, 0), *planted(1000, 1))
    assert accuracy > 90


def test_it_is_at_chance_on_noise() -> None:
    rng = np.random.default_rng(0)
    embeddings, labels = rng.standard_normal((4000, 50)).astype(np.float32), rng.integers(0, 4, 4000)
    accuracy = linear_probe(embeddings[:2000], labels[:2000], embeddings[2000:], labels[2000:])
    assert accuracy == pytest.approx(25, abs=4)  # four standard errors of 2,000 samples


def test_it_is_the_ridge_regression_of_the_normal_equations() -> None:
    (train, train_labels), (test, test_labels) = planted(300, 0), planted(500, 1)
    train, test = train + np.float32(3), test + np.float32(3)

    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    x = np.column_stack([(train - mean) / deviation])
    queries = (test - mean) / deviation
    targets = np.where(np.arange(6) == train_labels[:, None], 1.0, -1.0)
    centred = targets - targets.mean(axis=0)

    def left_out(alpha: float) -> float:
        hat = x @ np.linalg.solve(x.T @ x + alpha * np.eye(20), x.T) + 1 / len(x)
        residual = (targets - hat @ targets) / (1 - np.diag(hat))[:, None]
        return float((residual**2).mean())

    alpha = min((10.0**power for power in range(-1, 6)), key=left_out)
    weights = np.linalg.solve(x.T @ x + alpha * np.eye(20), x.T @ centred)
    predicted = np.argmax(queries @ weights + targets.mean(axis=0), axis=1)
    assert linear_probe(train, train_labels, test, test_labels) == pytest.approx(
        100 * (predicted == test_labels).mean(),
        abs=0.21,  # one of 500 may sit on a border
    )


def test_two_classes_and_constant_features_are_no_trouble() -> None:
    embeddings = np.column_stack([np.ones(50), np.linspace(-1, 1, 50)]).astype(np.float32)
    labels = (embeddings[:, 1] > 0).astype(np.int64) * 7
    assert linear_probe(embeddings, labels, embeddings, labels) == 100
