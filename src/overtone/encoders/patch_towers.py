"""Two towers whose picture is many tokens: one a patch, and one of all of them."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from overtone.encoders.encoder import ImageEncoder
from overtone.encoders.two_towers import Embeds, TwoTowerEncoder, WordBag


class PatchTowers(TwoTowerEncoder):
    """A convolutional network that keeps its places, and the mean of word vectors.

    The tokens of a picture are those of its patches, a quarter of the picture's sides in number, and before
    them their mean, in the place of a class token. What stands for a picture is that mean.

    Args:
        width: D of tokens and texts.
        vocabulary: See `WordBag`.
        embeds: See `TwoTowerEncoder`.
        channels: Of the pictures.

    >>> towers = PatchTowers(width=16)
    >>> towers.encode_tokens(torch.zeros(2, 3, 32, 32)).shape, towers.encode_text(["a dot"]).shape
    (torch.Size([2, 65, 16]), torch.Size([1, 16]))
    """

    def __init__(
        self, *, width: int = 128, vocabulary: int = 8192, embeds: Embeds = "image", channels: int = 3
    ) -> None:
        tower = ImageEncoder(
            Patches(channels, width), mean=[0.5] * channels, std=[0.25] * channels, dim=width
        )
        spec = {"name": "patch_towers", "width": width, "vocabulary": vocabulary, "embeds": embeds}
        super().__init__(
            tower,
            WordBag(vocabulary, width),
            width=width,
            embeds=embeds,
            spec={**spec, "channels": channels},
        )

    def encode_tokens(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8, uint16 or float in [0, 1] -> (B, 1 + H W / 16, D), not normalised."""
        patches = cast(Tensor, self.image_tower({"image": images}))
        return torch.cat([patches.mean(1, keepdim=True), patches], dim=1)

    def encode_image(self, images: Tensor) -> Tensor:
        """As `TwoTowerEncoder`: the mean of the tokens."""
        return self.encode_tokens(images)[:, 0]


class Patches(nn.Module):
    """Convolutions of 3 x 3, two of them with stride 2, and a linear layer for each place."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        blocks = []
        for (width_in, width_out), stride in zip(pairwise([channels, 32, 64, 128]), (2, 2, 1), strict=True):
            blocks += [
                nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(width_out),
                nn.ReLU(inplace=True),
            ]
        self.blocks, self.linear = nn.Sequential(*blocks), nn.Linear(128, width)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, L, width)."""
        return cast(Tensor, self.linear(self.blocks(images).flatten(2).mT))
