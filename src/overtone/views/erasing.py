"""Views that hide part of each sample: the evidence on which earlier stages rely."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from overtone import rng
from overtone.contracts import Address, Batch, Dataset, Views
from overtone.errors import RecipeError

BANK = 256  # samples that lend their content to what is hidden


class Units(NamedTuple):
    """What is hidden or shown as one: a patch of a picture, a stretch of a series, a column, a token.

    Attributes:
        side: Pixels of a patch's side, or steps of a stretch; 1 for columns and tokens.
    """

    side: int

    @classmethod
    def of(cls, content: Tensor) -> Units:
        """The units of a batch of contents: an eighth of a picture's shorter side, at least 4 pixels; a
        sixty-fourth of a series; single columns and tokens.

        Args:
            content: (B, C, H, W) pictures, (B, L, C) series, (B, D) columns, or (B, L) whole numbers: tokens.

        Raises:
            RecipeError: The content is none of these.

        >>> Units.of(torch.zeros(2, 3, 32, 64))
        Units(side=4)
        """
        if not isinstance(content, Tensor):
            raise RecipeError(
                f"erase: content that is a {type(content).__name__} has no parts that could be hidden; "
                "expected a tensor. Set erase: off."
            )
        if content.ndim == 4:
            return cls(max(4, min(content.shape[2:]) // 8))
        if content.ndim == 3:
            return cls(math.ceil(content.shape[1] / 64))
        if content.ndim == 2:
            return cls(1)
        raise RecipeError(
            f"erase: content of shape {tuple(content.shape)} a batch has no parts that could be hidden; "
            "expected pictures (B, C, H, W), series (B, L, C), columns or tokens (B, L). Set erase: off."
        )

    def numbers(self, content: Tensor) -> Tensor:
        """The unit of each value of a batch of contents, int64, of a shape that broadcasts to the content's.

        >>> Units(2).numbers(torch.zeros(1, 3, 4, 4))[0, 0, :, 0]
        tensor([0, 0, 2, 2])
        """
        if content.ndim == 4:
            height, width = content.shape[2:]
            rows, columns = (torch.arange(n, device=content.device) // self.side for n in (height, width))
            return (rows[:, None] * math.ceil(width / self.side) + columns)[None, None]
        steps = torch.arange(content.shape[1], device=content.device) // self.side
        return steps.view(1, -1, *(1 for _ in range(content.ndim - 2)))

    def hidden(self, marked: Tensor, content: Tensor) -> Tensor:
        """Where (B, U) marked units lie in the content, bool, of a shape that broadcasts to the content's."""
        numbers = self.numbers(content)
        return marked[:, numbers.flatten()].view(len(marked), *numbers.shape[1:])


class ErasingViews:
    """Hides the marked units of each sample, then makes its views.

    What is hidden shows the content of another sample at that place, drawn anew for each view from a bank
    of `BANK` samples: a fill that both views share would tell which sample it is. A draw belongs to
    (address, view, the sample's index).

    Args:
        views: Makes the views of what is left.
        marked: (N, U) bool, the units to hide of each sample; see `Units`.
        dataset: Lends the bank.
        units: What U counts.
        seed: Address of the bank's draw, with "erasing".

    >>> from overtone.datasets import trifeature
    >>> data, whole = trifeature(20), np.ones((20, 64), bool)
    >>> erasing = ErasingViews(lambda batch, address: [batch, batch], whole, data, Units(4), seed=0)
    >>> one, two = erasing(data.collate([data[3]]), Address(0, 1, 0))
    >>> torch.equal(one["image"], two["image"])
    False
    """

    def __init__(
        self, views: Views, marked: NDArray[np.bool_], dataset: Dataset, units: Units, *, seed: int
    ) -> None:
        self.views, self.marked, self.units, self.modality = views, marked, units, dataset.modality
        self.bank = bank_of(dataset, seed)[dataset.modality]

    def __call__(self, batch: Batch, address: Address) -> list[Batch]:
        """The views of the batch; what each hides is filled anew."""
        first = self.views(self.erased(batch, address, 0), address)
        return first[:1] + [
            self.views(self.erased(batch, address, view), address)[view] for view in range(1, len(first))
        ]

    def erased(self, batch: Batch, address: Address, view: int) -> Batch:
        """The batch as one view sees it before it is augmented."""
        content, index = batch[self.modality], batch["index"]
        marked = torch.from_numpy(self.marked[index.cpu().numpy()]).to(content.device)
        place = (address.seed, "erasing", address.stage, address.step, view)
        donors = (rng.uniforms(index, 1, *place)[:, 0] * len(self.bank)).long()
        fill = self.bank[donors].to(content)
        if fill.ndim < 4 and fill.shape[1] != content.shape[1]:  # series are padded to their own batch
            fill = fill[:, torch.arange(content.shape[1]) % fill.shape[1]]
        hidden = self.units.hidden(marked, content) & present(batch, self.modality)
        return {**batch, self.modality: torch.where(hidden, fill, content)}


def present(batch: Batch, modality: str) -> Tensor:
    """Where a batch has content and no padding, bool, of a shape that broadcasts to the content's.

    >>> present({"series": torch.zeros(1, 3, 1), "length": torch.tensor([2])}, "series")[0, :, 0]
    tensor([ True,  True, False])
    """
    content = batch[modality]
    if content.ndim != 3 or "length" not in batch:
        return torch.ones((), dtype=torch.bool, device=content.device)
    steps = torch.arange(content.shape[1], device=content.device)
    existing: Tensor = steps < batch["length"][:, None]
    return existing[:, :, None]


def bank_of(dataset: Dataset, seed: int) -> Batch:
    """A seeded draw of `BANK` samples, collated."""
    n = len(dataset)
    rows = rng.permuted(np.arange(min(BANK, n)), n, rng.derive(seed, "erasing", "bank"))
    return dataset.collate([dataset[row] for row in rows.tolist()])
