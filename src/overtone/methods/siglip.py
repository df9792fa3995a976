"""SigLIP (Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from overtone.contracts import Batch, Ids
from overtone.distributed import everyones, gathered
from overtone.encoders import TwoTowerEncoder
from overtone.methods.clip import CLIP
from overtone.methods.pairing import check_pairs, ids_of, own_columns
from overtone.objectives.sigmoid import sigmoid


class SigLIP(CLIP):
    """CLIP's two sides under the pairwise sigmoid loss, which asks of every pair by itself whether it is one.

    Args:
        encoder: An own `logit_bias`, of a model made for this loss, is trained on, with its `logit_scale`.
            Otherwise `logit_scale` begins at log 10, as the authors have it.
        bias: Added to all logits; where it begins instead, -10 by default.

    >>> from overtone.encoders import build_encoder
    >>> method = SigLIP(build_encoder("small_clip", width=16))
    >>> ids = {"cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> loss, z = method.step([{"image": torch.rand(4, 3, 16, 16), **ids}, {"text": list("abcd"), **ids}])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 16]))
    """

    def __init__(self, encoder: TwoTowerEncoder, *, bias: float | None = None) -> None:
        super().__init__(encoder)
        self._own_bias = None if encoder.logit_bias is not None else nn.Parameter(torch.zeros(()))
        if encoder.logit_bias is None or bias is not None:
            with torch.no_grad():
                encoder.logit_scale.fill_(math.log(10))
                self.logit_bias.fill_(-10.0 if bias is None else bias)

    @property
    def logit_bias(self) -> nn.Parameter:
        """What is added to all logits: the encoder's, or one of its own."""
        bias = self.encoder.logit_bias if self._own_bias is None else self._own_bias
        assert bias is not None
        return bias

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """The mean over the pictures; each pair of a picture and a text is looked at once."""
        self.check(views)
        check_pairs(z, "siglip")
        ids = ids_of(views[0])
        images, texts = z
        own = own_columns(images)
        temperature = 1 / self.encoder.logit_scale.exp()
        return sigmoid(
            images, gathered(texts), own, ids, Ids(*map(everyones, ids)), temperature, self.logit_bias
        )
