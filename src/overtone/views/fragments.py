"""Views of sequences: fragments that do not overlap."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from overtone import rng
from overtone.contracts import Address, Batch
from overtone.errors import DataError
from overtone.views.arguments import require


@dataclass
class FragmentViews:
    """Two fragments of each sequence, of one length, that share no place.

    What is drawn for a sample belongs to (address, its index) alone.

    Attributes:
        length: Of a fragment; a sequence has at least two.

    Raises:
        RecipeError: The length is below 1.

    >>> batch = {"index": torch.tensor([5]), "sequence": torch.arange(10)[None]}
    >>> views = FragmentViews(length=4)(batch, Address(seed=0, stage=0, step=0))
    >>> [view["sequence"].tolist() for view in views]
    [[[1, 2, 3, 4]], [[6, 7, 8, 9]]]
    """

    length: int = 200

    def __post_init__(self) -> None:
        require(self.length >= 1, "views.length", self.length, "at least 1")

    def __call__(self, batch: Batch, address: Address) -> list[Batch]:
        """Makes two views of `batch["sequence"]`, (B, L); all other keys are the batch's own.

        Raises:
            DataError: The sequences are shorter than two fragments.
        """
        sequence, index = batch["sequence"], batch["index"]
        spare = sequence.shape[1] - 2 * self.length
        if spare < 0:
            raise DataError(
                f"sequences of {sequence.shape[1]}: views.length={self.length} needs twice that; "
                f"set views.length={sequence.shape[1] // 2} or less"
            )
        drawn = rng.uniforms(index, 3, address.seed, "views", address.stage, address.step, "fragments")
        gaps = (drawn[:, :2] * (spare + 1)).long().sort(dim=1).values
        starts = gaps + torch.tensor([0, self.length])
        swapped = torch.where(drawn[:, 2:] < 0.5, starts.flip(1), starts).to(sequence.device)
        within = torch.arange(self.length, device=sequence.device)
        return [{**batch, "sequence": sequence.gather(1, start[:, None] + within)} for start in swapped.T]
