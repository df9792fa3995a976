"""The linear probe: what a linear function can read from frozen embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from overtone.evaluation.labelled import Labelled, labelled

# Standardised features have a squared norm of n a column, so the useful range ends near n.
_ALPHAS = np.logspace(-1, 5, 7)


def linear_probe(
    train: NDArray[np.float32],
    train_labels: NDArray[np.int64],
    test: NDArray[np.float32],
    test_labels: NDArray[np.int64],
    *,
    attribute: str = "label",
) -> float:
    """Accuracy of a ridge classifier on standardised embeddings.

    Ridge, not logistic regression: it has a closed form, so the same embeddings give the same figure
    on every machine, without a solver's tolerance or a learning rate to argue about, and one
    decomposition serves every strength of the penalty. That strength is chosen among seven by the
    exact leave-one-out error (Rifkin & Lippert, "Notes on Regularized Least Squares", 2007), so
    wider embeddings, such as a concatenation of stages, are not punished for their width.

    Args:
        train: (N, D) float32.
        train_labels: (N,) int64, -1 where a sample has no label and is left out.
        test: (M, D) float32.
        test_labels: (M,) int64, likewise.
        attribute: Named in errors.

    Returns:
        Percent of the labelled test samples that are classified rightly.

    Raises:
        DataError: See `labelled`.

    >>> x = np.array([[0.0], [1.0], [5.0], [6.0]], np.float32)
    >>> linear_probe(x, np.array([0, 0, 1, 1]), x + 0.2, np.array([0, 0, 1, 0]))
    75.0
    """
    data = labelled(train, train_labels, test, test_labels, attribute)
    return 100 * float((linear_predictions(data) == data.test_labels).mean())


def linear_predictions(data: Labelled, *, balanced: bool = False) -> NDArray[np.int64]:
    """The class that the probe gives each test sample.

    Args:
        data: What it learns from and is asked about.
        balanced: Whether every class weighs the same while it learns, however many samples it has.

    Returns:
        (M,) int64.

    >>> x = np.array([[0.0], [1.0], [5.0], [6.0]], np.float32)
    >>> linear_predictions(Labelled(x, np.array([0, 0, 1, 1]), x + 0.2, np.array([0, 0, 1, 0])))
    array([0, 0, 1, 1])
    """
    # Here, not above: training imports this package for its collapse alarm, and needs no scikit-learn.
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    weight = "balanced" if balanced else None
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(_ALPHAS, class_weight=weight))
    probe.fit(data.train, data.train_labels)
    predicted: NDArray[np.int64] = probe.predict(data.test)
    return predicted
