"""Signs that embeddings have collapsed: what a loss curve does not show."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_SAME_POINT = 0.99
_FEW_DIRECTIONS = 2.0
_SMALLEST = 8


def effective_rank(embeddings: Tensor | NDArray[np.float32]) -> float:
    """RankMe: over how many directions embeddings spread.

    The exponential of the entropy of the normalised singular values: Garrido et al., "RankMe:
    Assessing the Downstream Performance of Pretrained Self-Supervised Representations by Their
    Rank", ICML 2023, equation 1, without its epsilon (0 log 0 is taken as 0).

    Args:
        embeddings: (N, D) floats, not centred; a subset of several times D samples does.

    Returns:
        From 1, everything on one line through the origin, to min(N, D).

    >>> round(effective_rank(torch.eye(5)), 4), round(effective_rank(torch.ones(9, 5)), 4)
    (5.0, 1.0)
    """
    singular = torch.linalg.svdvals(torch.as_tensor(embeddings).detach().float())
    shares = singular / singular.sum().clamp_min(torch.finfo(singular.dtype).tiny)
    return float(torch.special.entr(shares).sum().exp())


def alignment(first: Tensor | NDArray[np.float32], second: Tensor | NDArray[np.float32]) -> float:
    """Mean squared distance of two views of the same samples on the unit sphere; 0 is perfect, 4 opposite.

    Equation for L_align with alpha = 2 of Wang & Isola, "Understanding Contrastive Representation
    Learning through Alignment and Uniformity on the Hypersphere", ICML 2020, section 4.1.1.

    Args:
        first: (N, D) floats, any length.
        second: (N, D) floats; row i is the other view of row i.

    >>> alignment(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    2.0
    """
    return float((_on_sphere(first) - _on_sphere(second)).square().sum(dim=1).mean())


def uniformity(embeddings: Tensor | NDArray[np.float32]) -> float:
    """Logarithm of the mean Gaussian potential of all pairs on the unit sphere; lower is more uniform.

    Equation for L_uniform with t = 2 of Wang & Isola (ICML 2020), section 4.1.2. Takes N² / 2
    distances: give a few thousand samples.

    Args:
        embeddings: (N, D) floats, any length, N >= 2.

    Returns:
        0 when all lie on one point; -4 when every pair is at a right angle, near the best of many points.

    >>> uniformity(torch.tensor([[1.0, 0.0], [-5.0, 0.0]]))
    -8.0
    """
    return float(torch.pdist(_on_sphere(embeddings)).square().mul(-2).exp().mean().log())


def collapse_alarm(z: Tensor) -> str | None:
    """A plain sentence when a batch of projections has collapsed, else None. Cheap: one SVD of the batch.

    Two signs, either of which is enough:
    - The mean cosine of all pairs exceeds 0.99. At a temperature of 0.2 the logits then differ by
      some 0.05, so the loss is that of guessing and its gradient says next to nothing.
    - The effective rank is under 2: all samples lie on one line.
    The cosine sees what the rank cannot (a point with noise in all directions) and the reverse (two
    opposite points). Both are far from health: SimCLR with a small CNN, batches of 256 CIFAR-10
    pictures, stayed below 0.7 and above 35 from its first step on. An encoder without any
    normalisation may start near a point, so an alarm counts only after the warm-up.

    Args:
        z: (B, D) floats, normalised or not. Under eight samples or dimensions nothing can be said.

    >>> collapse_alarm(torch.ones(16, 8))
    'collapsed: the mean cosine of all pairs is 1.000 (alarm above 0.99): every sample is at one point.'
    >>> collapse_alarm(torch.eye(16))
    """
    if min(z.shape) < _SMALLEST:
        return None
    if not torch.isfinite(z).all():
        return "not finite: the batch holds NaN or infinite projections."
    if (cosine := _mean_cosine(_on_sphere(z))) > _SAME_POINT:
        return (
            f"collapsed: the mean cosine of all pairs is {cosine:.3f} (alarm above {_SAME_POINT}): "
            "every sample is at one point."
        )
    if (rank := effective_rank(_on_sphere(z))) < _FEW_DIRECTIONS:
        return (
            f"collapsed: the effective rank of the batch is {rank:.2f} of {min(z.shape)} (alarm below "
            f"{_FEW_DIRECTIONS:g}): every sample lies on one line."
        )
    return None


def _on_sphere(embeddings: Tensor | NDArray[np.float32]) -> Tensor:
    return functional.normalize(torch.as_tensor(embeddings).detach().float())


def _mean_cosine(unit: Tensor) -> float:
    n, total = len(unit), unit.sum(dim=0)
    return float((total @ total - n) / (n * (n - 1)))
