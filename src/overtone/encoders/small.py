"""The built-in networks: small enough to train on a laptop."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torchvision
from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.encoders.encoder import Encoder


class SmallCNN(nn.Module):
    """Three 3 x 3 stride-2 convolutions (32, 64, 128) with batch norm and ReLU, then a global average.

    >>> SmallCNN(channels=3)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 128])
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_block(*widths) for widths in pairwise([channels, 32, 64, 128])))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 128)."""
        features: Tensor = self.blocks(images)
        return features.mean((2, 3))


def _block(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
    )


def small_cnn(channels: int = 3) -> nn.Module:
    """The backbone of the experiments: 128-d, any size of picture."""
    return SmallCNN(channels)


def resnet18_cifar(channels: int = 3) -> nn.Module:
    """ResNet-18 for small pictures, 512-d (He et al., arXiv 1512.03385).

    The stem is a 3 x 3 stride-1 convolution and no max-pool follows, so that 32 x 32 pixels are not
    reduced to 8 x 8 at once (Chen et al., arXiv 2002.05709, appendix B.9).
    """
    backbone = torchvision.models.resnet18(weights=None)
    backbone.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
    backbone.maxpool, backbone.fc = nn.Identity(), nn.Identity()
    network: nn.Module = backbone
    return network


class SeriesEncoder(Encoder):
    """A convolutional network over time with a mean over the steps that exist.

    Takes `batch["series"]`, (B, L, C) zero-padded, and `batch["length"]`, (B,). Each block is a convolution
    of 5 steps with stride 2, a layer norm over the channels and a ReLU; what lies beyond a series' end is
    set to zero after each, so embeddings do not depend on the padding (nor on the rest of the batch).

    Args:
        channels: C.
        widths: Channels of each block; the last is the width of the embeddings.

    >>> encoder = SeriesEncoder(channels=2)
    >>> encoder({"series": torch.zeros(4, 10, 2), "length": torch.full((4,), 10)}).shape
    torch.Size([4, 128])
    """

    def __init__(self, channels: int, widths: Sequence[int] = (64, 128, 128)) -> None:
        super().__init__()
        pairs = list(pairwise([channels, *widths]))
        self.convolutions = nn.ModuleList(nn.Conv1d(a, b, 5, stride=2, padding=2) for a, b in pairs)
        self.norms = nn.ModuleList(nn.LayerNorm(b) for _, b in pairs)
        self.dim = widths[-1]
        self.spec = {"name": "series_cnn", "channels": channels, "widths": list(widths)}

    def forward(self, batch: Batch) -> Tensor:
        """(B, dim) embeddings of `batch["series"]`."""
        length, steps = batch["length"], batch["series"].to(self.norms[0].weight.dtype)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            steps = norm(convolution(steps.mT).mT).relu()
            length = (length + 1) // 2
            steps = steps * (torch.arange(steps.shape[1], device=steps.device) < length[:, None])[:, :, None]
        mean: Tensor = steps.sum(1) / length.clamp(min=1)[:, None]
        return mean
