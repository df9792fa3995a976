"""What MoCo v3 and BYOL share: a predictor, and a copy of the encoder that follows ever more slowly."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.encoders import Encoder
from overtone.heads import ProjectionHead
from overtone.methods.teacher import Teacher, rising


class Predicting(nn.Module):
    """Each view predicts something of what the copy says of the other; `contrast`, of a subclass, says what.

    Args:
        encoder: Takes a batch, gives (B, D); what is kept after training.
        momentum: Of the copy at the first step, from where it rises to 1 along half a cosine.
        hidden_dim: Width of both heads; the encoder's own by default.
        out_dim: Dimension of what is predicted.
        norm: Of both heads, see `ProjectionHead`.

    Raises:
        RecipeError: The momentum is out of range.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        momentum: float = 0.99,
        hidden_dim: int | None = None,
        out_dim: int = 128,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        hidden_dim = encoder.dim if hidden_dim is None else hidden_dim
        self.encoder = encoder
        self.projection_head = ProjectionHead(encoder.dim, hidden_dim, out_dim, norm=norm)
        self.teacher = Teacher(nn.Sequential(encoder, self.projection_head), momentum)
        self.predictor = ProjectionHead(out_dim, hidden_dim, out_dim, norm=norm)

    def begin_step(self, step: int, steps_per_epoch: int, steps: int) -> None:
        """The copy follows, ever more slowly."""
        momentum = rising(self.teacher.momentum, step, steps)
        self.teacher.follow(nn.Sequential(self.encoder, self.projection_head), momentum)

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of two views of a batch, and their predictions (2B, out_dim), first view first.

        Raises:
            RecipeError: There are more views, or fewer.
        """
        z = [self.project(view) for view in views]
        return self.contrast(z, views), torch.cat(z)

    def project(self, view: Batch) -> Tensor:
        """What one view predicts, (B, out_dim)."""
        predicted: Tensor = self.predictor(self.projection_head(self.encoder(view)))
        return predicted

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """The loss of the predictions of two views."""
        raise NotImplementedError
