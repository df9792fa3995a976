"""A picture's and a text's encoder whose outputs can be compared: CLIP and its kin."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overtone.contracts import Batch
from overtone.encoders.encoder import Encoder, ImageEncoder
from overtone.encoders.small import resnet18_cifar, small_cnn
from overtone.errors import DataError, RecipeError

Embeds = Literal["image", "text", "both"]


class TwoTowerEncoder(Encoder):
    """An image tower and a text tower with outputs of one width.

    A batch with pictures alone gives image features, one with texts alone text features. A batch with both
    gives what stands for the sample: what is clustered, and what probes read.

    Args:
        image_tower: `{"image": ...}` -> (B, D).
        text_tower: A list of B strings -> (B, D).
        width: D.
        embeds: What stands for a sample: its "image" features, its "text" features, or "both" side by side,
            each of unit length.
        logit_scale: Where it begins; by default as CLIP's (Radford et al., arXiv 2103.00020, section 2.5).
        logit_bias: Where that begins; None for models that have none.
        spec: See `Encoder`.

    Attributes:
        logit_scale: The logarithm of what cosines are multiplied with; exp(logit_scale) is 1 / temperature.
        logit_bias: What models trained with the sigmoid loss add to them then; None for others.

    Raises:
        RecipeError: `embeds` is none of these.

    >>> towers = small_clip(width=16)
    >>> images, texts = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), ["a red square", "a blue dot"]
    >>> towers.encode_image(images).shape, towers.encode_text(texts).shape
    (torch.Size([2, 16]), torch.Size([2, 16]))
    >>> towers({"image": images, "text": texts}).shape, small_clip(width=16, embeds="both").dim
    (torch.Size([2, 16]), 32)
    """

    def __init__(
        self,
        image_tower: nn.Module,
        text_tower: nn.Module,
        *,
        width: int,
        embeds: Embeds = "image",
        logit_scale: float = math.log(1 / 0.07),
        logit_bias: float | None = None,
        spec: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if embeds not in get_args(Embeds):
            raise RecipeError(f"encoder.embeds={embeds!r}: expected one of {', '.join(get_args(Embeds))}")
        self.image_tower, self.text_tower = image_tower, text_tower
        self.logit_scale = nn.Parameter(torch.tensor(logit_scale))
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.tensor(logit_bias))
        self.width, self.embeds, self.spec = width, embeds, spec
        self.dim = 2 * width if embeds == "both" else width

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8, uint16 or float in [0, 1] -> (B, D) image features, not normalised."""
        return cast(Tensor, self.image_tower({"image": images}))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D) text features, not normalised."""
        return cast(Tensor, self.text_tower(list(texts)))

    def forward(self, batch: Batch) -> Tensor:
        """The features of what a batch holds."""
        if "image" not in batch and "text" not in batch:
            raise DataError(
                f"a batch with the keys {sorted(batch)}: two towers expect `image`, `text` or both"
            )
        both = "image" in batch and "text" in batch
        wanted = self.embeds if both else "image" if "image" in batch else "text"
        if wanted == "image":
            return self.encode_image(batch["image"])
        if wanted == "text":
            return self.encode_text(batch["text"])
        features = self.encode_image(batch["image"]), self.encode_text(batch["text"])
        return torch.cat([F.normalize(each, dim=1) for each in features], dim=1)


def small_clip(
    *,
    width: int = 128,
    backbone: Literal["small_cnn", "resnet18_cifar"] = "small_cnn",
    vocabulary: int = 8192,
    embeds: Embeds = "image",
    channels: int = 3,
) -> TwoTowerEncoder:
    """Two towers small enough to train on a laptop: a convolutional network, and the mean of word vectors.

    Args:
        width: D of the features.
        backbone: Of the image tower.
        vocabulary: Rows of the table of word vectors, see `WordBag`.
        embeds: See `TwoTowerEncoder`.
        channels: Of the pictures.
    """
    network = {"small_cnn": small_cnn, "resnet18_cifar": resnet18_cifar}[backbone](channels)
    bare = ImageEncoder(network, mean=[0.5] * channels, std=[0.25] * channels)
    spec = {
        "name": "small_clip",
        "width": width,
        "backbone": backbone,
        "vocabulary": vocabulary,
        "embeds": embeds,
        "channels": channels,
    }
    image_tower = nn.Sequential(bare, nn.Linear(bare.dim, width))
    return TwoTowerEncoder(image_tower, WordBag(vocabulary, width), width=width, embeds=embeds, spec=spec)


class WordBag(nn.Module):
    """The mean of a text's word vectors, then two layers.

    A word's row in the table follows from its letters (feature hashing, Weinberger et al., ICML 2009), so
    there is no vocabulary to build or keep; two words may share a row. The order of words does not count.

    Args:
        rows: Of the table.
        width: Of the features.

    >>> bag = WordBag(64, 8)
    >>> torch.equal(bag(["a red dot"]), bag(["A dot: red!"]))
    True
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.rows = rows
        self.vectors = nn.EmbeddingBag(rows, width, mode="mean")
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, texts: list[str]) -> Tensor:
        """B strings -> (B, width)."""
        words = [hashed_words(text, self.rows) for text in texts]
        device = self.vectors.weight.device
        begins = torch.tensor([0, *(len(each) for each in words[:-1])]).cumsum(0).to(device)
        flat = torch.tensor([row for each in words for row in each], dtype=torch.int64).to(device)
        return cast(Tensor, self.layers(self.vectors(flat, begins)))


@lru_cache(maxsize=2**17)
def hashed_words(text: str, rows: int) -> tuple[int, ...]:
    """The rows of the words of a text, ascending; case, and what is neither letter nor digit, do not count.

    >>> len(hashed_words("Two red dots, two!", 100)), hashed_words("dot", 100) == hashed_words(" DOT.", 100)
    (4, True)
    """
    words = re.findall(r"\w+", text.lower())
    digests = (hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest() for word in words)
    return tuple(sorted(int.from_bytes(digest, "little") % rows for digest in digests))
