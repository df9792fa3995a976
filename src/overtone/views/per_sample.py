"""Views by a transform of the user's that takes one sample at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from overtone import rng
from overtone.contracts import Address, Batch
from overtone.errors import RecipeError
from overtone.views.arguments import require


class PerSampleViews:
    """Applies any per-sample transform, such as one of torchvision.transforms.v2, to each sample of a batch.

    The transform draws from the global streams of torch, NumPy and Python as it likes: they are seeded
    by (address, view, the sample's index) around each call and put back afterwards. Slower than
    `ImageViews`, which works on whole batches.

    Args:
        transform: Takes one sample's tensor, for pictures uint8 (C, H, W), and returns a tensor; of one
            shape and type for all samples, since the results are stacked.
        n_views: How many views.
        key: The key of the batch that it is applied to.

    Raises:
        RecipeError: The results do not stack; names the sample.

    >>> views = PerSampleViews(lambda image: image + torch.rand(()), n_views=1)
    >>> batch = {"index": torch.tensor([5, 5, 6]), "image": torch.zeros(3, 1, 1, 1)}
    >>> a, b, c = views(batch, Address(seed=0, stage=0, step=0))[0]["image"].flatten().tolist()
    >>> a == b, a == c
    (True, False)
    """

    def __init__(self, transform: Callable[[Tensor], Any], n_views: int = 2, key: str = "image") -> None:
        require(callable(transform), "views.transform", transform, "a callable")
        require(n_views >= 1, "views.n_views", n_views, "at least 1")
        self.transform, self.n_views, self.key = transform, n_views, key

    def __call__(self, batch: Batch, address: Address) -> list[Batch]:
        """`n_views` batches with `key` replaced; all other keys are the batch's own."""
        return [{**batch, self.key: self._view(batch, address, view)} for view in range(self.n_views)]

    def _view(self, batch: Batch, address: Address, view: int) -> Tensor:
        results: list[Tensor] = []
        for sample, index in zip(batch[self.key], batch["index"].tolist(), strict=True):
            with rng.seeded(address.seed, "views", address.stage, address.step, view, index):
                # A copy, since the next view needs the sample as it was.
                results.append(self.transform(sample.clone()))
            _require_alike(results[0], results[-1], index)
        return torch.stack(results)


def _require_alike(first: object, result: object, index: int) -> None:
    if not isinstance(result, Tensor) or not isinstance(first, Tensor):
        raise RecipeError(
            f"views.transform returned a {type(result).__name__} for sample {index}: expected a tensor"
        )
    if (result.shape, result.dtype) != (first.shape, first.dtype):
        raise RecipeError(
            f"views.transform returned {tuple(result.shape)} {result.dtype} for sample {index}, but "
            f"{tuple(first.shape)} {first.dtype} for the first of the batch: expected one shape and type "
            "for all; end the transform with a resize or a crop of fixed size"
        )
