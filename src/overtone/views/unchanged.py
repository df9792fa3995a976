"""The batch as it is, for methods that need no augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from overtone.contracts import Address, Batch
from overtone.views.arguments import require


@dataclass
class Unchanged:
    """Gives the batch itself, of whatever modality.

    Attributes:
        n_views: How many times.

    Raises:
        RecipeError: The number is below 1.

    >>> Unchanged()({"index": [3]}, Address(seed=0, stage=0, step=0))
    [{'index': [3]}]
    """

    n_views: int = 1

    def __post_init__(self) -> None:
        require(self.n_views >= 1, "views.n_views", self.n_views, "at least 1")

    def __call__(self, batch: Batch, address: Address) -> list[Batch]:
        """`n_views` times the batch."""
        return [batch] * self.n_views
