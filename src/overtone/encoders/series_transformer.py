"""A transformer over patches of series, with a [CLS] for the whole and a token for each patch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.encoders.encoder import Encoder
from overtone.errors import DataError, RecipeError


class Patched(NamedTuple):
    """What `SeriesTransformer` makes of a batch.

    Attributes:
        whole: (B, dim), the output at the [CLS].
        tokens: (B, P, dim), the output at each patch.
        patches: (B, P, patch * C), the patches that went in, normalised.
        present: (B, P) bool; the others are padding.
    """

    whole: Tensor
    tokens: Tensor
    patches: Tensor
    present: Tensor


class SeriesTransformer(Encoder):
    """Each series is normalised by its own mean and deviation, cut into patches and read by a transformer.

    Takes `batch["series"]`, (B, L, C) zero-padded, and `batch["length"]`, (B,). A series is prolonged by its
    last value for `stride` steps, so its end is covered too. The embedding is the output at a learned [CLS];
    what lies beyond a series' end is masked, so embeddings do not depend on the padding.

    Args:
        channels: C.
        patch: Steps of a patch.
        stride: Steps from one patch to the next, at most `patch`.
        dim: Width of the embeddings.
        layers: Of attention.
        heads: Of attention; `dim` is a multiple.
        dropout: In training alone: what makes two passes over one input differ.

    Raises:
        RecipeError: A number is below 1, the stride is longer than a patch, or the heads do not divide `dim`.

    >>> encoder = SeriesTransformer(channels=2)
    >>> batch = {"series": torch.zeros(4, 40, 2), "length": torch.full((4,), 40)}
    >>> encoder(batch).shape, encoder(batch, parts=True).patches.shape  # (40 + 8 - 16) / 8 + 1 patches
    (torch.Size([4, 64]), torch.Size([4, 5, 32]))
    """

    def __init__(
        self,
        channels: int,
        *,
        patch: int = 16,
        stride: int = 8,
        dim: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = {"channels": channels, "patch": patch, "stride": stride}
        sizes |= {"dim": dim, "layers": layers, "heads": heads}
        for name, value in sizes.items():
            if value < 1:
                raise RecipeError(f"encoder.{name}={value}: expected at least 1")
        if stride > patch:
            raise RecipeError(
                f"encoder.stride={stride}: longer than a patch of {patch}; give {patch} or less"
            )
        if dim % (2 * heads):
            raise RecipeError(f"encoder.dim={dim}: expected a multiple of 2 heads = {2 * heads}")
        self.patch, self.stride, self.dim = patch, stride, dim
        self.begin = nn.Parameter(torch.empty(patch * channels))
        nn.init.normal_(self.begin, std=1 / math.sqrt(patch))
        self.embed = nn.Linear(patch * channels, dim)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(transformer_layer(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.spec = {"name": "series_transformer", **sizes, "dropout": dropout}

    def forward(self, batch: Batch, parts: bool = False) -> Tensor | Patched:
        """(B, dim) embeddings of `batch["series"]`; with `parts`, all of `Patched`.

        Raises:
            DataError: The batch holds no series.
        """
        if "series" not in batch:
            raise DataError(f"a batch with the keys {sorted(batch)}: this encoder expects `series`")
        length = batch["length"]
        steps = normalised(batch["series"].to(self.embed.weight.dtype), length)
        patches = cut(steps, length, self.patch, self.stride)
        count = (length + self.stride - self.patch).clamp(min=0) // self.stride + 1
        place = torch.arange(patches.shape[1] + 1, device=patches.device)
        tokens = torch.cat([self.begin.expand(len(patches), 1, -1), patches], dim=1)
        tokens = self.dropout(self.embed(tokens) + waves(len(place), self.dim).to(patches))
        beyond = place > count[:, None]
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=beyond)
        tokens = self.norm(tokens)
        made = Patched(tokens[:, 0], tokens[:, 1:], patches, ~beyond[:, 1:])
        return made if parts else made.whole


def transformer_layer(dim: int, heads: int, dropout: float) -> nn.TransformerEncoderLayer:
    """Attention and a perceptron of twice the width, each on what a layer norm leaves."""
    return nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout, "gelu", batch_first=True, norm_first=True)


def normalised(series: Tensor, length: Tensor) -> Tensor:
    """Each channel of each series less its mean over its own steps, over its deviation.

    Args:
        series: (B, L, C).
        length: (B,) int64.

    Returns:
        (B, L, C), zero beyond the end.

    >>> normalised(torch.tensor([[[1.0], [3.0], [0.0]]]), torch.tensor([2])).abs().flatten()
    tensor([1., 1., 0.])
    """
    exists = (torch.arange(series.shape[1], device=series.device) < length[:, None])[:, :, None]
    n = length.clamp(min=1)[:, None, None]
    centred = (series - (series * exists).sum(1, keepdim=True) / n) * exists
    deviation = (centred.square().sum(1, keepdim=True) / n + 1e-10).sqrt()
    return centred / deviation


def cut(series: Tensor, length: Tensor, patch: int, stride: int) -> Tensor:
    """Patches of `patch` steps, one every `stride`, of series that go on with their last value.

    Args:
        series: (B, L, C).
        length: (B,) int64.
        patch: Steps of a patch.
        stride: Steps from one to the next.

    Returns:
        (B, P, patch * C). Of a series of T steps, the first (T + stride - patch) / stride + 1 are its own,
        rounded down, and at least one.

    >>> cut(torch.tensor([[[1.0], [2.0], [3.0], [0.0]]]), torch.tensor([3]), 2, 1).squeeze(0).tolist()
    [[1.0, 2.0], [2.0, 3.0], [3.0, 3.0], [3.0, 3.0]]
    """
    step = torch.arange(max(patch, series.shape[1] + stride), device=series.device)
    source = step.minimum(length[:, None].clamp(min=1) - 1)
    longer = series.gather(1, source[:, :, None].expand(-1, -1, series.shape[2]))
    return longer.unfold(1, patch, stride).mT.flatten(2)


def waves(n: int, dim: int) -> Tensor:
    """(n, dim) positions as sines and cosines (Vaswani et al., "Attention Is All You Need", 3.5)."""
    frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000) / dim))
    angle = torch.arange(n)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)
