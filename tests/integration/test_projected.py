from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from overtone.errors import DataError, RecipeError
from overtone.integration import moments, projection
from overtone.rng import numpy_generator


def _embeddings(n: int = 500, dim: int = 6) -> NDArray[np.float32]:
    """Correlated columns of different sizes, far from the origin."""
    draws = numpy_generator(0, "embeddings")
    rows: NDArray[np.float32] = (draws.normal(size=(n, dim)) @ draws.normal(size=(dim, dim)) + 9).astype(
        np.float32
    )
    return rows


@pytest.mark.parametrize("chunk", [1, 7, 500])
def test_moments_of_chunks_are_those_of_all_rows_at_once(chunk: int) -> None:
    rows = _embeddings()
    mean, covariance = moments(rows[begin : begin + chunk] for begin in range(0, len(rows), chunk))
    np.testing.assert_allclose(mean, rows.astype(np.float64).mean(0), rtol=1e-10)
    np.testing.assert_allclose(covariance, np.cov(rows.astype(np.float64).T), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("whiten", [False, True])
def test_principal_components_are_those_of_scikit_learn_up_to_their_signs(whiten: bool) -> None:
    rows = _embeddings()
    ours = projection(*moments([rows]), 4, whiten=whiten)(torch.from_numpy(rows)).numpy()
    theirs = PCA(4, whiten=whiten, svd_solver="full").fit_transform(rows.astype(np.float64))
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-3)


def test_whitened_embeddings_have_the_identity_as_their_covariance() -> None:
    rows = _embeddings()
    white = projection(*moments([rows]), None, whiten=True)(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(np.cov(white.T), np.eye(6), atol=1e-3)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-3)


@pytest.mark.parametrize("dim", [0, 4, 7])
def test_more_components_than_vary_are_refused_with_both_numbers(dim: int) -> None:
    rows = _embeddings(dim=3)
    twice = np.concatenate([rows, rows], axis=1)  # six numbers, three directions
    with pytest.raises(RecipeError, match=f"dim: {dim}; expected 1 to 3"):
        projection(*moments([twice]), dim)
    assert projection(*moments([twice]), None).out_dim == 3


def test_one_embedding_has_no_covariance() -> None:
    with pytest.raises(DataError, match="1 embeddings; expected at least 2"):
        moments([_embeddings(1)])
