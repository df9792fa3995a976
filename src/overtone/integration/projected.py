"""Principal components of the stages side by side: fewer numbers for the same samples."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from overtone import rng
from overtone.errors import DataError, RecipeError
from overtone.heads import ProjectionHead

Floats = NDArray[np.float64]

# Below this share of the largest variance lies what rounding made of float32 embeddings.
_SMALLEST = 1e-10


def moments(chunks: Iterable[NDArray[np.float32]]) -> tuple[Floats, Floats]:
    """The mean (D,) and the covariance (D, D) of rows that come in chunks, (n, D) each, divided by N - 1.

    Raises:
        DataError: There are fewer than two rows.

    >>> mean, covariance = moments([np.array([[0.0, 1.0]]), np.array([[2.0, 1.0]])])
    >>> mean.tolist(), covariance.tolist()
    ([1.0, 1.0], [[2.0, 0.0], [0.0, 0.0]])
    """
    count, mean, scatter = 0, np.zeros(1), np.zeros((1, 1))
    for chunk in chunks:
        rows = chunk.astype(np.float64)
        here = rows.mean(axis=0)
        # Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances"
        # (1979): unlike sums of squares, no difference of large numbers.
        apart, total = here - mean, count + len(rows)
        scatter = (
            scatter + (rows - here).T @ (rows - here) + np.outer(apart, apart) * count * len(rows) / total
        )
        mean, count = mean + apart * len(rows) / total, total
    if count < 2:
        raise DataError(f"projection: {count} embeddings; expected at least 2.")
    return mean, scatter / (count - 1)


def projection(mean: Floats, covariance: Floats, dim: int | None, *, whiten: bool = False) -> ProjectionHead:
    """A linear layer onto the first principal components.

    Args:
        mean: (D,), see `moments`.
        covariance: (D, D).
        dim: How many components; None takes all that vary.
        whiten: Gives each component unit variance, so that none outweighs another in a distance.

    Returns:
        Takes (B, D), gives (B, dim): centred, uncorrelated, the largest variance first. The sign of a
        component is such that its largest entry is positive.

    Raises:
        RecipeError: `dim` is not between 1 and the number of components that vary at all.

    >>> linear = projection(np.array([1.0, 0.0]), np.diag([1.0, 9.0]), dim=1, whiten=True)
    >>> linear(torch.tensor([[1.0, 6.0]])).tolist()
    [[2.0]]
    """
    variances, vectors = np.linalg.eigh(covariance)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    varying = int((variances > _SMALLEST * variances[0]).sum()) if variances[0] > 0 else 0
    dim = varying if dim is None else dim
    if not 1 <= dim <= varying:
        raise RecipeError(
            f"dim: {dim}; expected 1 to {varying}, the directions in which the training embeddings vary "
            f"(they have {len(mean)} numbers)."
        )
    components = vectors[:, :dim].T
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    components = components * np.sign(largest)
    if whiten:
        components = components / np.sqrt(variances[:dim, None])
    with rng.seeded(0, "projection"):  # it draws weights, which are then replaced
        linear = ProjectionHead(len(mean), out_dim=dim, n_layers=1)
    state = {"0.weight": components, "0.bias": -components @ mean}
    linear.load_state_dict({name: torch.from_numpy(value).float() for name, value in state.items()})
    return linear.requires_grad_(False)
