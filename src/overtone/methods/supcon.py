"""SupCon (Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from overtone.contracts import Batch, Ids
from overtone.distributed import everyones, gathered
from overtone.encoders import Encoder
from overtone.errors import RecipeError
from overtone.heads import ProjectionHead
from overtone.methods.pairing import own_columns
from overtone.objectives.logits import check_temperature
from overtone.objectives.many_positives import allowed, cosines, many_positives


class SupCon(nn.Module):
    """All views of all samples of a label attract each other; the others of the anchor's cell repel them.

    The paper's L_out (equation 2). Batches carry `label`, see `datasets.with_label`. A sample without one
    (-1) has its own other views for positives, as in SimCLR, which this is where no two samples share a
    label. Samples of one label attract each other across cells as well.

    Args:
        encoder: Takes a batch, gives (B, D); what is kept after training.
        temperature: Softmax scale; 0.1 in the paper.
        hidden_dim: Width of the projection head; the encoder's own by default.
        out_dim: Dimension of z.
        norm: Of the projection head, see `ProjectionHead`.

    Raises:
        RecipeError: The temperature is not above 0.

    >>> from overtone.encoders import build_encoder
    >>> view = {"image": torch.rand(4, 3, 16, 16), "cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> view["label"] = torch.tensor([0, 0, 1, -1])
    >>> loss, z = SupCon(build_encoder("small_cnn"), out_dim=16).step([view, view])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 16]))
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.1,
        hidden_dim: int | None = None,
        out_dim: int = 128,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        self.encoder = encoder
        self.projection_head = ProjectionHead(encoder.dim, hidden_dim, out_dim, norm=norm)
        self.temperature = temperature

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of two or more views of a batch, and z, (K B, out_dim), first view first.

        Raises:
            RecipeError: There is one view, or batches carry no labels.
        """
        z = [self.project(view) for view in views]
        return self.contrast(z, views), torch.cat(z)

    def project(self, view: Batch) -> Tensor:
        """z of one view, (B, out_dim)."""
        z: Tensor = self.projection_head(self.encoder(view))
        return z

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """The loss of the z of all views; the columns are those of all processes."""
        check(views)
        rows = torch.cat(z)
        ids = Ids(*(torch.cat([view[key] for view in views]) for key in Ids._fields))
        label = torch.cat([view["label"] for view in views])
        sample = own_columns(z[0]).repeat(len(views))
        own = own_columns(rows)
        of_one_label = (label[:, None] == everyones(label)) & (label[:, None] >= 0)
        alike = of_one_label | (sample[:, None] == everyones(sample))
        positives = alike.scatter(1, own[:, None], False)  # all but the view itself
        negatives = allowed(ids, Ids(*map(everyones, ids)), alike)
        logits = cosines(rows, gathered(rows)) / self.temperature
        return many_positives(logits, positives, negatives, denominator="all")


def check(views: list[Batch]) -> None:
    """Refuses a single view, and batches without labels."""
    if len(views) < 2:
        raise RecipeError("views: 1 of each batch, but supcon takes 2 or more; set views.n_views=2.")
    if "label" not in views[0]:
        raise RecipeError(
            "data: supcon wants a label with each sample; wrap the data set: "
            "data: {source: with_label, dataset: {source: ...}, attribute: NAME}."
        )
