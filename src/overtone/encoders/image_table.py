"""A picture and a table with gaps as one embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.encoders.encoder import Encoder, ImageEncoder
from overtone.encoders.patch_towers import Patches
from overtone.errors import DataError, RecipeError


class ImageTableEncoder(Encoder):
    """A convolutional network, a transformer over a table's cells, and one in which cells look at patches.

    A cell is a token: its column's vector plus that of its value; one that is not known is its column's plus
    a vector for gaps, at which no other looks before all look at the picture. The embedding of a sample is
    that of both its sides: what the last layer gives for a token that stands before the cells.

    Args:
        levels: Of the categories, which are the first columns: how many values each has.
        quantities: How many columns follow them.
        width: D of all tokens and of the embeddings.
        layers: Of each transformer.
        heads: Of each attention.
        channels: Of the pictures.

    Raises:
        RecipeError: There are no columns.

    >>> encoder = ImageTableEncoder(levels=[3, 2], quantities=1, width=8)
    >>> table = {"table": torch.zeros(4, 3), "known": torch.ones(4, 3).bool()}
    >>> encoder({"image": torch.zeros(4, 3, 24, 12), **table}).shape
    torch.Size([4, 8])
    """

    begins: Tensor

    def __init__(
        self,
        *,
        levels: Sequence[int],
        quantities: int,
        width: int = 64,
        layers: int = 1,
        heads: int = 4,
        channels: int = 3,
    ) -> None:
        super().__init__()
        if len(levels) + quantities < 1 or quantities < 0 or any(level < 2 for level in levels):
            raise RecipeError(
                f"encoder.levels={list(levels)}, encoder.quantities={quantities}: expected at least one "
                "column, and 2 or more values of each category"
            )
        self.dim = self.width = width
        self.levels, self.quantities = list(levels), quantities
        self.spec = {"name": "image_table", "levels": self.levels, "quantities": quantities, "width": width}
        self.spec |= {"layers": layers, "heads": heads, "channels": channels}
        mean, std = [0.5] * channels, [0.25] * channels
        self.patches = ImageEncoder(Patches(channels, width), mean=mean, std=std, dim=width)
        self.register_buffer("begins", torch.tensor([0, *levels[:-1]]).cumsum(0), persistent=False)
        self.values = nn.Embedding(sum(levels), width)
        self.slopes = _drawn(quantities, width)
        self.columns = _drawn(len(levels) + quantities, width)
        self.gap, self.whole = _drawn(width), _drawn(width)
        shape: dict[str, Any] = {"d_model": width, "nhead": heads, "dim_feedforward": 2 * width}
        shape |= {"dropout": 0.0, "batch_first": True, "norm_first": True}
        self.within = nn.ModuleList(nn.TransformerEncoderLayer(**shape) for _ in range(layers))
        self.across = nn.ModuleList(nn.TransformerDecoderLayer(**shape) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, batch: Batch) -> Tensor:
        """(B, dim) of the pictures and tables of a batch; of one side alone, where it has no other."""
        if "table" not in batch and "image" not in batch:
            raise DataError(f"a batch with the keys {sorted(batch)}: expected `image`, `table` or both")
        if "table" not in batch:
            return self.encode_image(batch["image"]).mean(1)
        table = self.encode_table(batch["table"], batch["known"])
        if "image" in batch:
            table = self.joined(self.encode_image(batch["image"]), table)
        return table[:, 0]

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, L, D), a token a patch."""
        return cast(Tensor, self.patches({"image": images}))

    def encode_table(self, table: Tensor, known: Tensor) -> Tensor:
        """(B, F) and which of it is known, bool -> (B, 1 + F, D), that of the whole first."""
        n = len(self.levels)
        table = torch.where(known, table, 0)
        codes = self.values(table[:, :n].long() + self.begins[:n])
        content = torch.cat([codes, table[:, n:, None] * self.slopes], dim=1)
        cells = self.columns + torch.where(known[..., None], content, self.gap)
        tokens = torch.cat([self.whole.expand(len(cells), 1, -1), cells], dim=1)
        for layer in self.within:
            tokens = layer(tokens, src_key_padding_mask=_unseen(known))
        return tokens

    def joined(self, picture: Tensor, table: Tensor) -> Tensor:
        """The tokens of a table (B, 1 + F, D) once they have looked at those of a picture (B, L, D).

        Here gaps are looked at too: what they saw of the picture may stand in for what is missing.
        """
        for layer in self.across:
            table = layer(table, picture)
        return cast(Tensor, self.norm(table))


def _drawn(*shape: int) -> nn.Parameter:
    """Vectors of a length of about 1."""
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=shape[-1] ** -0.5))


def _unseen(known: Tensor) -> Tensor:
    """(B, 1 + F) bool: the gaps; never the token of the whole."""
    return torch.cat([torch.zeros_like(known[:, :1]), ~known], dim=1)
