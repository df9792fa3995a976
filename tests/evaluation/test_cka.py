from __future__ import annotations

import math

import numpy as np
import pytest

from overtone.errors import DataError
from overtone.evaluation import linear_cka


def _gram(rows: list[list[float]]) -> list[list[float]]:
    """Dot products of all pairs, from which row, column and overall means are taken."""
    n = len(rows)
    k = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]
    means = [sum(row) / n for row in k]
    whole = sum(means) / n
    return [[k[i][j] - means[i] - means[j] + whole for j in range(n)] for i in range(n)]


def _hsic(k: list[list[float]], m: list[list[float]]) -> float:
    return sum(a * b for row, other in zip(k, m, strict=True) for a, b in zip(row, other, strict=True))


def test_linear_cka_is_the_normalised_hsic_of_centred_gram_matrices() -> None:
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(12, 3)), draws.normal(size=(12, 5)) + 2
    k, m = _gram(x.tolist()), _gram(y.tolist())
    assert linear_cka(x, y) == pytest.approx(_hsic(k, m) / math.sqrt(_hsic(k, k) * _hsic(m, m)), rel=1e-9)


def test_rotating_scaling_and_moving_change_nothing_but_independent_features_are_unlike() -> None:
    draws = np.random.default_rng(0)
    x = draws.normal(size=(2000, 4))
    turned, _ = np.linalg.qr(draws.normal(size=(4, 4)))
    assert linear_cka(x, 5 * x @ turned - 3) == pytest.approx(1)
    assert linear_cka(x, draws.normal(size=(2000, 4))) < 0.01


def test_rows_that_are_all_alike_are_like_nothing_and_other_samples_are_refused() -> None:
    x = np.arange(6.0).reshape(3, 2)
    assert math.isnan(linear_cka(x, np.ones((3, 2))))
    with pytest.raises(DataError, match=r"\(3, 2\) and \(2, 2\)"):
        linear_cka(x, x[:2])
