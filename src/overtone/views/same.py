"""Views that leave the batch as it is, for methods in which dropout or mixing makes the difference."""

from __future__ import annotations

from dataclasses import dataclass

from overtone.contracts import Address, Batch
from overtone.views.arguments import require


@dataclass
class SameViews:
    """The batch itself, so many times.

    Attributes:
        n_views: How many times.

    Raises:
        RecipeError: Fewer than once.

    >>> batch = {"index": [3]}
    >>> SameViews()(batch, Address(seed=0, stage=0, step=0)) == [batch, batch]
    True
    """

    n_views: int = 2

    def __post_init__(self) -> None:
        require(self.n_views >= 1, "views.n_views", self.n_views, "at least 1")

    def __call__(self, batch: Batch, _address: Address) -> list[Batch]:
        """`n_views` batches with the same tensors."""
        return [dict(batch) for _ in range(self.n_views)]
