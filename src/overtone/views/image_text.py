"""The two sides of a sample with a picture and a text."""

from __future__ import annotations

from overtone.contracts import Address, Batch
from overtone.views.images import ImageViews


class ImageTextViews:
    """Two views of a pair: its picture, cut at random, and its text.

    Args:
        crop_scale: The crop's share of the picture's area; CLIP takes at least 0.9.
        flip: Probability of a horizontal flip; 0 where texts may say left and right.
        jitter: Probability of a change of colours; 0 where texts may name them.

    >>> import torch
    >>> batch = {"index": torch.arange(2), "image": torch.zeros(2, 3, 8, 8), "text": ["a dot", "a line"]}
    >>> [sorted(view) for view in ImageTextViews()(batch, Address(seed=0, stage=0, step=0))]
    [['image', 'index'], ['index', 'text']]
    """

    def __init__(
        self, crop_scale: tuple[float, float] = (0.9, 1.0), flip: float = 0.0, jitter: float = 0.0
    ) -> None:
        self.pictures = ImageViews(n_views=1, crop_scale=crop_scale, flip=flip, jitter=jitter, grey=0.0)

    def __call__(self, batch: Batch, address: Address) -> list[Batch]:
        """The batch without its text and with a picture cut at random, and the batch without its picture."""
        (seen,) = self.pictures(batch, address)
        return [
            {key: value for key, value in view.items() if key != other}
            for view, other in ((seen, "text"), (batch, "image"))
        ]
