"""MoCo: keys of a slowly following encoder, with a queue of earlier ones (v2) or with large batches (v3).

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020; Chen et al.,
"Improved Baselines with Momentum Contrastive Learning", arXiv 2003.04297 (v2); Chen et al., "An Empirical
Study of Training Self-Supervised Vision Transformers", ICCV 2021 (v3).

MoCo shuffles samples among GPUs before the key encoder's batch norms. On one device their statistics are
those of the whole batch in any order, so there is nothing to shuffle; on several CUDA devices they are
synchronised.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from overtone.contracts import Batch, Ids
from overtone.distributed import everyones
from overtone.encoders import Encoder
from overtone.heads import ProjectionHead
from overtone.methods.pairing import check_two, ids_of, own_columns
from overtone.methods.predicting import Predicting
from overtone.methods.queue import Queue
from overtone.methods.teacher import Teacher
from overtone.objectives.logits import check_temperature
from overtone.objectives.many_positives import allowed
from overtone.objectives.nt_xent import nt_xent


class MoCo(nn.Module):
    """MoCo v2: a view's query against the key of the other view, and the keys of earlier steps in a queue.

    The paper takes its negatives from the queue alone. A later stage packs a cell into one batch, whose keys
    come again an epoch later at the earliest, so by default the other keys of the step are negatives as well.

    Args:
        encoder: Takes a batch, gives (B, D); what is kept after training.
        temperature: Of NT-Xent.
        momentum: Of the key encoder; 0.999 in the paper, over a million steps.
        queue: Keys of earlier steps that are kept; 65,536 in the paper.
        in_batch: Whether the keys of other samples of the step are negatives too; False is the paper's way.
        hidden_dim: Width of the projection head; the encoder's own by default.
        out_dim: Dimension of queries and keys.
        norm: Of the projection head, see `ProjectionHead`.

    Raises:
        RecipeError: A value is out of bounds.

    >>> from overtone.encoders import build_encoder
    >>> view = {"image": torch.rand(4, 3, 16, 16), "cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> loss, z = MoCo(build_encoder("small_cnn"), queue=8, out_dim=16).step([view, view])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([4, 16]))
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        momentum: float = 0.99,
        queue: int = 4096,
        in_batch: bool = True,
        hidden_dim: int | None = None,
        out_dim: int = 128,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        self.encoder = encoder
        self.projection_head = ProjectionHead(encoder.dim, hidden_dim, out_dim, norm=norm)
        self.teacher = Teacher(nn.Sequential(encoder, self.projection_head), momentum)
        self.queue = Queue(queue, out_dim)
        self.temperature, self.in_batch = temperature, in_batch
        self._in_cell = torch.zeros(())

    def begin_step(self, step: int, steps_per_epoch: int, steps: int) -> None:
        """The key encoder follows what the last step made of the other."""
        self.teacher.follow(nn.Sequential(self.encoder, self.projection_head))

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of two views of a batch, and the queries (B, out_dim), of the first view.

        Raises:
            RecipeError: There are more views, or fewer.
        """
        check_two(views, "moco")
        queries: Tensor = self.projection_head(self.encoder(views[0]))
        columns, ids, own = self.columns(views[1])
        loss = nt_xent(queries, columns, own, ids_of(views[0]), ids, self.temperature)
        return loss, queries

    def columns(self, view: Batch) -> tuple[Tensor, Ids, Tensor]:
        """What queries are compared with, which afterwards lies in the queue as far as it is new.

        Args:
            view: The second.

        Returns:
            The keys of the step and then those of the queue, their ids, and where each sample's own key is.
        """
        with torch.no_grad():
            keys = everyones(self.teacher.module(view))
        ids, held = Ids(*map(everyones, ids_of(view))), self.queue.held()
        may = allowed(ids_of(view), held.ids, torch.tensor(False, device=keys.device))
        self._in_cell = may.sum(dim=1).float().mean()
        self.queue.push(keys, ids)
        # No sample is in cell -1, so such a key is somebody's positive and nobody's negative.
        new = ids if self.in_batch else ids._replace(cell=torch.full_like(ids.cell, -1))
        both = Ids(*(torch.cat(pair) for pair in zip(new, held.ids, strict=True)))
        return torch.cat([keys, held.keys]), both, own_columns(view["cell"])

    def said(self) -> dict[str, float]:
        """How many keys of the queue could be a negative of an anchor, in the mean over the last step."""
        return {"queue_negatives": float(self._in_cell)}


class MoCoV3(Predicting):
    """MoCo v3: no queue; queries of both views through a predictor, against the keys of the other view.

    The loss is the sum of both directions times twice the temperature; the momentum rises to 1 along half a
    cosine.

    Args:
        encoder: Takes a batch, gives (B, D); what is kept after training.
        temperature: Of NT-Xent; the paper's for vision transformers.
        momentum: Of the key encoder at the first step.
        hidden_dim: Width of both heads; the encoder's own by default.
        out_dim: Dimension of queries and keys.
        norm: Of both heads, see `ProjectionHead`; unlike the paper's, their output is not normalised.

    Raises:
        RecipeError: A value is out of bounds.

    >>> from overtone.encoders import build_encoder
    >>> view = {"image": torch.rand(4, 3, 16, 16), "cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> loss, z = MoCoV3(build_encoder("small_cnn"), out_dim=16).step([view, view])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 16]))
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        momentum: float = 0.99,
        hidden_dim: int | None = None,
        out_dim: int = 128,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        check_temperature(temperature)
        super().__init__(encoder, momentum=momentum, hidden_dim=hidden_dim, out_dim=out_dim, norm=norm)
        self.temperature = temperature

    def contrast(self, z: list[Tensor], views: list[Batch]) -> Tensor:
        """The loss of the queries of two views; the keys are those of all processes."""
        check_two(views, "moco_v3")
        ids = ids_of(views[0])
        all_ids, own = Ids(*map(everyones, ids)), own_columns(z[0])
        with torch.no_grad():
            keys = [everyones(self.teacher.module(view)) for view in views]
        both = [
            nt_xent(queries, others, own, ids, all_ids, self.temperature)
            for queries, others in zip(z, reversed(keys), strict=True)
        ]
        return 2 * self.temperature * (both[0] + both[1])
