"""Two networks as one encoder, for methods that keep two things apart."""

from __future__ import annotations

import torch
from torch import Tensor

from overtone.contracts import Batch
from overtone.encoders.encoder import MEAN, STD, Encoder, ImageEncoder
from overtone.encoders.small import small_cnn


class Halves(Encoder):
    """Two small convolutional networks of their own weights; the embedding is theirs side by side.

    Args:
        channels: Of the pictures.

    >>> Halves(3)({"image": torch.zeros(2, 3, 16, 16)}).shape
    torch.Size([2, 256])
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        mean, std = [MEAN] * channels, [STD] * channels
        self.first, self.second = (ImageEncoder(small_cnn(channels), mean=mean, std=std) for _ in range(2))
        self.dim = self.first.dim + self.second.dim
        self.spec = {"name": "halves", "channels": channels}

    def forward(self, batch: Batch) -> Tensor:
        """(B, 256) embeddings, the first network's first."""
        return torch.cat([self.first(batch), self.second(batch)], dim=1)
