"""BYOL (Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from overtone.contracts import Batch
from overtone.methods.pairing import check_two
from overtone.methods.predicting import Predicting
from overtone.objectives.logits import unit


class BYOL(Predicting):
    """Each view predicts what a slowly following copy of the encoder says of the other view.

    There are no negatives, so cells cannot work on it: a later stage learns anew what its batches and views
    hold, and joins the others by concatenation only.

    Args:
        encoder: Takes a batch, gives (B, D); what is kept after training.
        momentum: Of the copy at the first step, from where it rises to 1 along half a cosine; 0.996 in the
            paper, for 1,000 epochs.
        hidden_dim: Width of both heads; the encoder's own by default.
        out_dim: Dimension of what is predicted.
        norm: Of both heads, see `ProjectionHead`.

    Raises:
        RecipeError: The momentum is out of range.

    >>> from overtone.encoders import build_encoder
    >>> view = {"image": torch.rand(4, 3, 16, 16)}
    >>> loss, z = BYOL(build_encoder("small_cnn"), out_dim=16).step([view, view])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 16]))
    """

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """The squared distances, at length 1, of the predictions to the other view's targets, summed."""
        check_two(views, "byol")
        with torch.no_grad():
            targets = [unit(self.teacher.module(view)) for view in views]
        cosines = [
            (unit(predicted) * target).sum(dim=1).mean()
            for predicted, target in zip(z, reversed(targets), strict=True)
        ]
        return 4 - 2 * (cosines[0] + cosines[1])
