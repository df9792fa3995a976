"""SigLIP (Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from overtone.contracts import Batch, Ids
from overtone.distributed import everyones, gathered, rank
from overtone.encoders import TwoTowers
from overtone.methods.clip import CLIP
from overtone.objectives.sigmoid import sigmoid


class SigLIP(CLIP):
    """CLIP's two sides under the pairwise sigmoid loss, which asks of every pair by itself whether it is one.

    Args:
        encoder: Its `logit_scale` begins at log 10, as the authors have it, and is trained.
        bias: Added to all logits; where it begins.

    >>> from overtone.encoders import build_encoder
    >>> method = SigLIP(build_encoder("small_clip", width=16))
    >>> ids = {"cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> loss, z = method.step([{"image": torch.rand(4, 3, 16, 16), **ids}, {"text": list("abcd"), **ids}])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 16]))
    """

    def __init__(self, encoder: TwoTowers, *, bias: float = -10.0) -> None:
        super().__init__(encoder)
        with torch.no_grad():
            encoder.logit_scale.fill_(math.log(10))
        self.logit_bias = nn.Parameter(torch.tensor(bias))

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """The mean over the pictures; each pair of a picture and a text is looked at once."""
        self.check(views)
        ids = Ids(*(views[0][key] for key in Ids._fields))
        images, texts = z
        own = torch.arange(len(images), device=images.device) + rank() * len(images)
        temperature = 1 / self.encoder.logit_scale.exp()
        return sigmoid(
            images, gathered(texts), own, ids, Ids(*map(everyones, ids)), temperature, self.logit_bias
        )
