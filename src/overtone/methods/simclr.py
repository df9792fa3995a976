"""SimCLR (Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from overtone.contracts import Batch, Ids, Objective
from overtone.distributed import everyones, gathered
from overtone.encoders import Encoder
from overtone.errors import RecipeError
from overtone.heads import ProjectionHead
from overtone.methods.pairing import check_two, own_columns
from overtone.objectives import NTXent


class SimCLR(nn.Module):
    """The two views of a sample attract each other; all other samples of its cell repel them.

    Args:
        encoder: Takes a batch, gives (B, D); what is kept after training.
        temperature: Of `NTXent`, the objective by default; 0.2 if not given.
        objective: Any other, which brings its own temperature.
        hidden_dim: Width of the projection head; the encoder's own by default.
        out_dim: Dimension of z.
        norm: Of the projection head: "batch", or "none", which keeps samples independent of each other.

    Raises:
        RecipeError: Both a temperature and an objective are given.

    >>> import torch
    >>> from overtone.encoders import build_encoder
    >>> method = SimCLR(build_encoder("small_cnn"), out_dim=16)
    >>> view = {"image": torch.rand(4, 3, 16, 16), "cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> loss, z = method.step([view, view])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 16]))
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float | None = None,
        objective: Objective | None = None,
        hidden_dim: int | None = None,
        out_dim: int = 128,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        if objective is not None and temperature is not None:
            raise RecipeError(
                f"temperature={temperature}: stands beside an objective, which has its own; give it there."
            )
        self.encoder = encoder
        self.projection_head = ProjectionHead(encoder.dim, hidden_dim, out_dim, norm=norm)
        self.objective = objective or NTXent(0.2 if temperature is None else temperature)

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of two views of a batch, and z (2B, out_dim), first view first.

        Raises:
            RecipeError: There are more views, or fewer.
        """
        z = [self.project(view) for view in views]
        return self.contrast(z, views), torch.cat(z)

    def project(self, view: Batch) -> Tensor:
        """z of one view, (B, out_dim)."""
        z: Tensor = self.projection_head(self.encoder(view))
        return z

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """The loss of the z of two views; the columns are those of all processes."""
        check_two(views, "simclr")
        rows, (first, second) = torch.cat(z), views
        ids = Ids(*(torch.cat([first[key], second[key]]) for key in Ids._fields))
        own = own_columns(rows).roll(len(rows) // 2)
        loss: Tensor = self.objective(
            rows,
            gathered(rows),
            own,
            ids,
            Ids(*map(everyones, ids)),
        )
        return loss
