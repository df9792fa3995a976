"""MoCHi: MoCo whose hardest negatives are mixed into harder ones.

Kalantidis et al., "Hard Negative Mixing for Contrastive Learning", NeurIPS 2020.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from overtone.contracts import Batch
from overtone.encoders import Encoder
from overtone.errors import RecipeError
from overtone.methods.moco import MoCo
from overtone.methods.pairing import check_two, ids_of
from overtone.objectives.logits import unit
from overtone.objectives.many_positives import allowed, many_positives
from overtone.objectives.mixing import hardest, mixed, mixed_with_rows
from overtone.rng import of_step
from overtone.strategies.strategy import strategy


def with_synthetic(
    similarities: Tensor, synthetic: Tensor, positive: Tensor, negatives: Tensor, temperature: float
) -> Tensor:
    """NT-Xent of rows that have, beside columns that all share, negatives of their own.

    Args:
        similarities: (n, m), to the shared columns.
        synthetic: (n, s), to the row's own.
        positive: (n,) int64, the column of each row's positive.
        negatives: (n, m) bool, which shared columns may be negatives; a row that has none of them takes no
            synthetic ones either, which would be made of nothing.
        temperature: Softmax scale.

    Returns:
        Scalar. A row without negatives is exactly 0 and counts in the mean.

    >>> eye = torch.eye(2, dtype=torch.bool)
    >>> with_synthetic(torch.eye(2), torch.zeros(2, 1), torch.arange(2), ~eye, 1.0)  # log(1 + 2 exp(0 - 1))
    tensor(0.5514)
    """
    more = synthetic.shape[1]
    positives = torch.zeros_like(negatives).scatter(1, positive[:, None], True)
    made = negatives.any(dim=1, keepdim=True).expand(-1, more)
    logits = torch.cat([similarities, synthetic], dim=1) / temperature
    return many_positives(logits, pad(positives, (0, more)), torch.cat([negatives, made], dim=1))


@strategy(
    "mochi",
    line="MoCo with harder negatives: the hardest of the cell, mixed with each other and with the query.",
    modality="any vector",
    source="Kalantidis et al., Hard Negative Mixing for Contrastive Learning, NeurIPS 2020",
    confidence="high",
    stage="cells",
    attribute="shape",
    claim="mixed hard negatives beat the real ones alone",
    ablation=("method.pairs=0", "method.with_query=0"),
)
class MoCHi(MoCo):
    """MoCo v2 with synthetic negatives of each query, from the hardest that its cell allows.

    Args:
        encoder: Takes a batch, gives (B, D).
        hard: How many of the hardest negatives are mixed; 1,024 of 65,536 in the paper.
        pairs: Synthetic negatives a query of two hard ones each; 512 in the paper.
        with_query: Synthetic negatives a query of one hard one and the query; 256 in the paper.
        warmup_epochs: How long there are real negatives alone; 10 to 15 of 200 in the paper.
        temperature: And the others as `MoCo`.
        momentum: Likewise.
        queue: Likewise.
        in_batch: Likewise.
        hidden_dim: Likewise.
        out_dim: Likewise.
        norm: Likewise.

    Raises:
        RecipeError: A value is out of bounds.

    >>> from overtone.encoders import build_encoder
    >>> view = {"image": torch.rand(4, 3, 16, 16), "cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> loss, z = MoCHi(build_encoder("small_cnn"), queue=8, out_dim=16).step([view, view])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([4, 16]))
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        hard: int = 64,
        pairs: int = 32,
        with_query: int = 16,
        warmup_epochs: float = 1.0,
        temperature: float = 0.2,
        momentum: float = 0.99,
        queue: int = 4096,
        in_batch: bool = True,
        hidden_dim: int | None = None,
        out_dim: int = 128,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__(
            encoder,
            temperature=temperature,
            momentum=momentum,
            queue=queue,
            in_batch=in_batch,
            hidden_dim=hidden_dim,
            out_dim=out_dim,
            norm=norm,
        )
        if hard < 1:
            raise RecipeError(f"method.hard={hard}: expected at least 1 negative to mix, such as 64")
        for name, value in {"pairs": pairs, "with_query": with_query, "warmup_epochs": warmup_epochs}.items():
            if not value >= 0:
                raise RecipeError(f"method.{name}={value}: expected 0 or more")
        self.hard, self.pairs, self.with_query = hard, pairs, with_query
        self.warmup_epochs, self.mixes = warmup_epochs, True

    def begin_step(self, step: int, steps_per_epoch: int, steps: int) -> None:
        """The key encoder follows; after the warm-up there are synthetic negatives."""
        super().begin_step(step, steps_per_epoch, steps)
        self.mixes = step >= self.warmup_epochs * steps_per_epoch

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of two views of a batch, and the queries (B, out_dim), of the first view.

        Raises:
            RecipeError: There are more views, or fewer.
        """
        check_two(views, "mochi")
        queries: Tensor = self.projection_head(self.encoder(views[0]))
        keys, ids, own = self.columns(views[1])
        with torch.autocast(queries.device.type, enabled=False):
            rows, columns = unit(queries), unit(keys)
            similarities = rows @ columns.T
            positives = torch.zeros_like(similarities, dtype=torch.bool).scatter(1, own[:, None], True)
            negatives = allowed(ids_of(views[0]), ids, positives)
            made = self.synthetic(rows.detach(), columns, similarities, negatives)
            to_made = (rows[:, None] * made).sum(dim=2)
            return with_synthetic(similarities, to_made, own, negatives, self.temperature), queries

    def synthetic(self, rows: Tensor, columns: Tensor, similarities: Tensor, negatives: Tensor) -> Tensor:
        """The negatives of both types of each row, (n, pairs + with_query, d), of unit length."""
        if not self.mixes:
            return columns.new_empty(len(rows), 0, columns.shape[1])
        hard, count = hardest(similarities, negatives, self.hard)
        draw = of_step()
        pairs = mixed(columns, hard, count, self.pairs, draw)
        return torch.cat([pairs, mixed_with_rows(rows, columns, hard, count, self.with_query, draw)], dim=1)
