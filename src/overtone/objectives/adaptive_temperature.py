"""Several heads, and a temperature of its own for each pair, which is learnt: AMCL.

Wang et al., "Adaptive Multi-head Contrastive Learning", ECCV 2024. The likelihood of a pair under a
temperature t is exp(s / t - omega(t)) with omega(t) = d / 2 log t + 1 / t, from a Gaussian of the distance of
two unit vectors in d dimensions. Theirs takes the hardest negative, and so has no lower bound; here all
negatives and the positive share a softmax, which is >= 0. No head is more than a part of z.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from overtone.contracts import Ids
from overtone.errors import RecipeError
from overtone.objectives.logits import unit
from overtone.objectives.many_positives import allowed, many_positives


def adaptive_temperature(
    cosines: Tensor,
    temperatures: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    dim: int,
    weight: float = 1e-4,
) -> Tensor:
    """Mean over rows of -l_p + log(exp l_p + sum of exp l_j), where l = s / t - weight omega(t).

    omega is least at t = 2 / dim: a pair has to pay for a temperature that makes much or little of it.

    Args:
        cosines: (n, m) of one head.
        temperatures: (n, m), > 0.
        positives: (n, m) bool, one a row or more.
        negatives: (n, m) bool; see `many_positives.allowed`.
        dim: Width of the head.
        weight: Of omega; the authors' 1e-4. At 0 and a constant temperature this is NT-Xent.

    Returns:
        Scalar >= 0. A row without negatives is exactly 0 and counts in the mean.

    >>> eye = torch.eye(2, dtype=torch.bool)
    >>> adaptive_temperature(torch.eye(2), torch.ones(2, 2), eye, ~eye, dim=8)  # log(1 + exp(0 - 1))
    tensor(0.3133)
    """
    omega = dim / 2 * temperatures.log() + 1 / temperatures
    return many_positives(cosines / temperatures - weight * omega, positives, negatives)


class AdaptiveTemperature(nn.Module):
    """The sum of `adaptive_temperature` over heads, with temperatures from a small network: an `Objective`.

    z is cut into heads of equal width. The network phi, shared by all heads, maps each to a vector, and
    t = lowest + (highest - lowest) sigmoid(-<phi(a), phi(b)>). Logits are dense matrices, one a head: for
    batches of up to a few thousand.

    Args:
        heads: Into how many parts z is cut. The authors have 3 of 128 each.
        out_dim: Width of z: that of the projection head, a multiple of `heads`.
        lowest: Of the temperatures, > 0.
        highest: Of the temperatures, >= lowest. The authors' 2.
        weight: Of omega, >= 0.

    Raises:
        RecipeError: A value is out of bounds, or z has another width.

    >>> z, ids = torch.eye(6), Ids(cell=torch.zeros(6), identity=torch.arange(6))
    >>> AdaptiveTemperature(heads=2, out_dim=6)(z, z, torch.arange(6), ids, ids).shape
    torch.Size([])
    """

    def __init__(
        self,
        heads: int = 4,
        out_dim: int = 128,
        lowest: float = 0.05,
        highest: float = 2.0,
        weight: float = 1e-4,
    ) -> None:
        super().__init__()
        if heads < 1 or out_dim < 1 or out_dim % heads:
            raise RecipeError(
                f"heads={heads}, out_dim={out_dim}: expected a multiple of the heads, as 4 and 128"
            )
        if not 0 < lowest <= highest < float("inf"):
            raise RecipeError(f"lowest={lowest}, highest={highest}: expected 0 < lowest <= highest")
        if not 0 <= weight < float("inf"):
            raise RecipeError(f"weight={weight}: expected a finite number >= 0, such as 1e-4")
        self.heads, self.out_dim = heads, out_dim
        self.lowest, self.highest, self.weight = lowest, highest, weight
        width = out_dim // heads
        self.phi = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, width))

    def forward(
        self, rows: Tensor, columns: Tensor, positive: Tensor, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        """See `Objective`."""
        if rows.shape[1] != self.out_dim:
            raise RecipeError(
                f"objective.out_dim={self.out_dim}: z has width {rows.shape[1]}; set the two alike."
            )
        positives = one_hot(positive, len(columns)).bool()
        negatives = allowed(row_ids, column_ids, positives)
        total = rows.new_zeros(())
        with torch.autocast(rows.device.type, enabled=False):
            for a, b in zip(self._parts(rows), self._parts(columns), strict=True):
                temperatures, dim = self.temperatures(a, b), a.shape[1]
                total = total + adaptive_temperature(
                    a @ b.T, temperatures, positives, negatives, dim=dim, weight=self.weight
                )
        return total

    def temperatures(self, a: Tensor, b: Tensor) -> Tensor:
        """(n, m), of each pair of the unit vectors (n, d) and (m, d) of one head."""
        near = torch.sigmoid(-self.phi(a) @ self.phi(b).T)
        return self.lowest + (self.highest - self.lowest) * near

    def _parts(self, z: Tensor) -> list[Tensor]:
        return [unit(part) for part in z.chunk(self.heads, dim=1)]
