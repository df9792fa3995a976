"""How alike two representations of the same samples are: linear centred kernel alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from overtone.errors import DataError


def linear_cka(x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]) -> float:
    """Linear CKA, ||Y'X||² / (||X'X|| ||Y'Y||) of centred features (Kornblith et al., arXiv 1905.00414).

    From 0 to 1; rotating, mirroring or scaling a representation, or moving it, changes nothing.

    Args:
        x: (N, D) embeddings.
        y: (N, E) others, of the same samples in the same order.

    Returns:
        nan where all rows of either are the same.

    Raises:
        DataError: They are not of the same samples.

    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    >>> round(linear_cka(x, 3 * x[:, ::-1] + 7), 6)
    1.0
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise DataError(
            f"linear_cka: {x.shape} and {y.shape}; expected (N, D) and (N, E) of the same samples."
        )
    x, y = (np.asarray(side, np.float64) - side.mean(axis=0, dtype=np.float64) for side in (x, y))
    norm = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(y.T @ x) ** 2 / norm) if norm else float("nan")
