"""CACR: attraction and repulsion, each weighted within its own group by how far away its members are.

Zheng et al., "Contrastive Attraction and Contrastive Repulsion for Representation Learning", TMLR 2023 (arXiv
2105.03746), with the published small-scale code's five views and gradients through the weights.
"""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from overtone.contracts import Batch, Ids
from overtone.distributed import everyones, gathered
from overtone.encoders import Encoder
from overtone.errors import RecipeError
from overtone.heads import ProjectionHead
from overtone.methods.pairing import ids_of
from overtone.objectives.many_positives import allowed
from overtone.strategies.strategy import strategy


def attraction(views: Tensor, sharpness: float = 1.0) -> Tensor:
    """Mean over queries of the squared distances to their other views, the far ones weighted up.

    For query view x of a sample, c_m = |z_x - z_m|^2 over its other views m, and the weights are a softmax
    over m of sharpness * c_m. With two views there is one, of weight 1.

    Args:
        views: (K, B, d), K >= 2.
        sharpness: t+ >= 0; 0 weights all alike.

    >>> attraction(torch.tensor([[[0.0]], [[1.0]], [[3.0]]]), sharpness=0.0)  # of 1, 9, 1, 4, 9, 4
    tensor(4.6667)
    """
    distances = (views[:, None] - views[None]).square().sum(-1)  # (K, K, B)
    own = torch.eye(len(views), dtype=torch.bool, device=views.device)[..., None]
    weights = (sharpness * distances).masked_fill(own, -torch.inf).softmax(dim=1)
    return (weights * distances).sum(dim=1).mean()


def repulsion(rows: Tensor, columns: Tensor, row_ids: Ids, column_ids: Ids, sharpness: float = 1.0) -> Tensor:
    """Mean over rows of the squared distances to their negatives, the near ones weighted up.

    The weights of a row are a softmax over its allowed negatives j of -sharpness * |z_i - z_j|^2.

    Args:
        rows: (n, d).
        columns: (m, d).
        row_ids: Cells and identities; a pair is a negative if and only if the cells agree and the identities
            differ.
        column_ids: Likewise.
        sharpness: t- >= 0; 0 weights all alike.

    Returns:
        Scalar; a row without negatives is 0 and counts in the mean.

    >>> ids = Ids(torch.tensor([0, 0, 1]), torch.arange(3))
    >>> z = torch.tensor([[0.0], [2.0], [9.0]])
    >>> repulsion(z, z, ids, ids)  # of 4, 4 and, alone in its cell, 0
    tensor(2.6667)
    """
    none = torch.zeros(len(rows), len(columns), dtype=torch.bool, device=rows.device)
    negatives = allowed(row_ids, column_ids, none)
    distances = (rows[:, None] - columns[None]).square().sum(-1)
    logits = (-sharpness * distances).masked_fill(~negatives, torch.finfo(rows.dtype).min)
    weights = logits.softmax(dim=1) * negatives
    return (weights * distances).sum(dim=1).mean()


@strategy(
    "cacr",
    line="Far positives attract more, near negatives repel more: softmax weights within each group.",
    modality="any vector",
    source="Zheng et al., Contrastive Attraction and Contrastive Repulsion, TMLR 2023",
    confidence="high",
    stage="cells",
    attribute="shape",
    claim="weights within each group beat equal weights",
    ablation=("method.attract=0", "method.repel=0"),
)
class CACR(nn.Module):
    """Attraction of all views of a sample, repulsion of the samples of its cell.

    Args:
        encoder: Takes a batch, gives (B, D).
        attract: t+, how much more far positives attract.
        repel: t-, how much more near negatives repel (0.9 for CIFAR-10, 2 for CIFAR-100 in the source).
        alpha: Weight of the attraction.
        beta: Weight of the repulsion.
        out_dim: Dimension of z.
        norm: Of the projection head, see `ProjectionHead`.

    Raises:
        RecipeError: A value is negative.

    >>> from overtone.encoders import build_encoder
    >>> view = {"image": torch.rand(4, 3, 16, 16), "cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> loss, z = CACR(build_encoder("small_cnn"), out_dim=8).step([view, view, view])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([12, 8]))
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        attract: float = 1.0,
        repel: float = 0.9,
        alpha: float = 1.0,
        beta: float = 1.0,
        out_dim: int = 128,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        for name, value in {"attract": attract, "repel": repel, "alpha": alpha, "beta": beta}.items():
            if value < 0:
                raise RecipeError(f"method.{name}={value}: expected 0 or more")
        self.encoder = encoder
        self.projection_head = ProjectionHead(encoder.dim, None, out_dim, norm=norm)
        self.attract, self.repel, self.alpha, self.beta = attract, repel, alpha, beta

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of two or more views of a batch, and z, (K B, out_dim), of unit length."""
        z = [self.project(view) for view in views]
        return self.contrast(z, views), torch.cat(z)

    def project(self, view: Batch) -> Tensor:
        """z of one view, (B, out_dim), of unit length."""
        return normalize(self.projection_head(self.encoder(view)).float(), dim=1)

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """The loss of the z of all views; the columns are those of all processes."""
        if len(views) < 2:
            raise RecipeError(
                f"views: {len(views)} of each batch, but cacr takes 2 or more; set views.n_views=5"
            )
        ids = ids_of(views[0])
        all_ids = Ids(*map(everyones, ids))
        pushes = [
            repulsion(z[x], gathered(z[y]), ids, all_ids, self.repel)
            for x, y in combinations(range(len(z)), 2)
        ]
        return self.alpha * attraction(torch.stack(z), self.attract) - self.beta * torch.stack(pushes).mean()
