"""The nearest-neighbour probe: what the geometry of the embeddings says without any training."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from overtone.evaluation.labelled import Labelled, labelled

_TEMPERATURE = 0.07
N_NEIGHBORS = 20


def knn(
    train: NDArray[np.float32],
    train_labels: NDArray[np.int64],
    test: NDArray[np.float32],
    test_labels: NDArray[np.int64],
    *,
    attribute: str = "label",
    n_neighbors: int = N_NEIGHBORS,
) -> float:
    """Accuracy of a vote of the nearest training samples, each weighing exp(cosine / 0.07).

    The weights are those of Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", CVPR 2018, section 3.4. The memory is bounded: scikit-learn searches in chunks.

    Args:
        train: (N, D) float32.
        train_labels: (N,) int64, -1 where a sample has no label and is left out.
        test: (M, D) float32.
        test_labels: (M,) int64, likewise.
        attribute: Named in errors.
        n_neighbors: How many vote; all training samples where there are fewer.

    Returns:
        Percent of the labelled test samples that are classified rightly.

    Raises:
        DataError: See `labelled`.

    >>> x = np.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0]], np.float32)
    >>> knn(x, np.array([0, 0, 1]), np.array([[0.0, 3.0]], np.float32), np.array([0]), n_neighbors=2)
    100.0
    """
    data = labelled(train, train_labels, test, test_labels, attribute)
    return 100 * float((knn_predictions(data, n_neighbors=n_neighbors) == data.test_labels).mean())


def knn_predictions(
    data: Labelled, *, n_neighbors: int = N_NEIGHBORS, balanced: bool = False
) -> NDArray[np.int64]:
    """The class that the vote gives each test sample.

    Args:
        data: Who votes, and who is asked about.
        n_neighbors: How many vote; all training samples where there are fewer.
        balanced: Whether a vote counts the less the more samples its class has, so that a rare class is
            found where it is more frequent than elsewhere.

    Returns:
        (M,) int64.

    >>> x = np.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0]], np.float32)
    >>> knn_predictions(Labelled(x, np.array([0, 0, 1]), x[:1], np.array([0])), n_neighbors=2)
    array([0])
    """
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import normalize

    probe = KNeighborsClassifier(
        min(n_neighbors, len(data.train)), weights=_weights, algorithm="brute", metric="euclidean"
    )
    with warnings.catch_warnings():  # many classes of few samples are no mistake here
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        probe.fit(normalize(data.train), data.train_labels)
        if not balanced:
            predicted: NDArray[np.int64] = probe.predict(normalize(data.test))
            return predicted
        votes = probe.predict_proba(normalize(data.test))
    classes, sizes = np.unique(data.train_labels, return_counts=True)
    most: NDArray[np.int64] = classes[(votes / sizes).argmax(axis=1)]
    return most


def _weights(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    # On the unit sphere distance² = 2 - 2 cosine; the constant factor exp(1 / 0.07) cancels in the vote.
    weights: NDArray[np.float64] = np.exp(-(distances**2) / (2 * _TEMPERATURE))
    return weights
