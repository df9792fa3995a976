"""DNABERT-S: hard negatives weighted up, then half-way anchors: samples mixed inside the encoder.

Zhou et al., "DNABERT-S: Pioneering Species Differentiation with Species-Aware DNA Embeddings", 2024 (arXiv
2402.08777), and its published code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from overtone import rng
from overtone.contracts import Batch, Ids
from overtone.distributed import everyones, gathered
from overtone.encoders import Encoder, SequenceTransformer
from overtone.errors import RecipeError
from overtone.methods.pairing import own_columns
from overtone.objectives.many_positives import allowed, cosines, many_positives
from overtone.strategies.strategy import strategy


def hardness(logits: Tensor, negatives: Tensor) -> Tensor:
    """(n, m) the log of w_j = exp s_j / mean of exp s over the row's negatives; their mean is 1 in each row.

    Args:
        logits: (n, m), similarities s over the temperature.
        negatives: (n, m) bool; elsewhere, and in rows without any, the value means nothing and is finite.

    >>> s = torch.tensor([[0.0, 1.0, 3.0]]).log().clamp_min(-9)
    >>> hardness(s, torch.tensor([[False, True, True]])).exp()[0, 1:]
    tensor([0.5000, 1.5000])
    """
    lowest = torch.finfo(logits.dtype).min / 4
    total = logits.masked_fill(~negatives, lowest).logsumexp(dim=1, keepdim=True)
    count = negatives.sum(dim=1, keepdim=True).clamp_min(1).to(logits.dtype)
    return torch.where(negatives, logits - (total - count.log()), 0)


def mixed_nce(logits: Tensor, positive: Tensor, partner: Tensor, share: Tensor, negatives: Tensor) -> Tensor:
    """Mean over rows of -share log P / (P + N) - (1 - share) log R / (P + N).

    P = exp s of the own column, R that of the partner's, N = sum of w_j exp s_j over the row's negatives,
    with the weights of `hardness`. As the partner is one of them, R / (P + N) stays below 1. A row that is
    its own partner does not depend on its share.

    Args:
        logits: (n, m).
        positive: (n,) int64, the own column of each row.
        partner: (n,) int64, the column of what was mixed in.
        share: (n,), of the own.
        negatives: (n, m) bool.

    Returns:
        Scalar; a row without negatives that is its own partner is 0 and counts in the mean.

    >>> eye, own = torch.eye(2), torch.arange(2)
    >>> mixed_nce(eye, own, own, torch.tensor([0.7, 0.9]), eye == 0)  # log(1 + exp(0 - 1))
    tensor(0.3133)
    """
    own = torch.zeros_like(negatives).scatter_(1, positive[:, None], True)
    alone = many_positives(logits, own, negatives, log_weights=hardness(logits, negatives))
    p, r = (logits.gather(1, column[:, None])[:, 0] for column in (positive, partner))
    return alone + ((1 - share) * (p - r)).mean()


def partners(cell: Tensor, generator: torch.Generator) -> Tensor:
    """(B,) int64: a random permutation that moves samples only within their cells.

    >>> cell = torch.tensor([0, 1, 0, 1, 2])
    >>> found = partners(cell, torch.Generator().manual_seed(0))
    >>> (cell[found] == cell).all(), found.sort().values.tolist()
    (tensor(True), [0, 1, 2, 3, 4])
    """
    shuffled = torch.randperm(len(cell), generator=generator).to(cell.device)
    places = cell.argsort(stable=True)
    return torch.empty_like(places).scatter_(0, places, shuffled[cell[shuffled].argsort(stable=True)])


@strategy(
    "dnabert_s",
    line="Hard negatives weigh more; then anchors mixed at a random layer are to name both of their parts.",
    modality="sequences",
    source="Zhou et al., DNABERT-S, 2024",
    confidence="high",
    stage="cells",
    attribute="species",
    claim="weighted SimCLR, then mixing, beats weighted SimCLR alone",
    ablation=("method.warm=1",),
)
class DNABERTS(nn.Module):
    """Weighted SimCLR for the first part of a training, manifold instance mix-up for the rest.

    Args:
        encoder: A `SequenceTransformer`, between whose layers samples are mixed.
        temperature: Of the similarities.
        warm: Share of the steps before mixing begins. At 0 it begins at once, at 1 never.
        out_dim: Dimension of z.

    Raises:
        RecipeError: The encoder is another one, or a value is out of range.

    >>> ids = {"cell": torch.zeros(4).long(), "identity": torch.arange(4)}
    >>> view = {"sequence": torch.zeros(4, 30).long(), **ids}
    >>> loss, z = DNABERTS(SequenceTransformer(), out_dim=8).step([view, view])
    >>> loss.shape, z.shape
    (torch.Size([]), torch.Size([8, 8]))
    """

    def __init__(
        self, encoder: Encoder, *, temperature: float = 0.05, warm: float = 1 / 3, out_dim: int = 128
    ) -> None:
        super().__init__()
        if not isinstance(encoder, SequenceTransformer):
            raise RecipeError(
                f"method.name: dnabert_s mixes between layers, where {type(encoder).__name__} cannot be "
                "reached; set encoder.name=sequence_transformer"
            )
        if not temperature > 0:
            raise RecipeError(f"method.temperature={temperature}: expected a number above 0, such as 0.05")
        if not 0 <= warm <= 1:
            raise RecipeError(f"method.warm={warm}: expected a share of the steps, from 0 to 1")
        self.encoder = encoder
        self.projection_head = nn.Sequential(
            nn.Linear(encoder.dim, encoder.dim, bias=False),
            nn.ReLU(),
            nn.Linear(encoder.dim, out_dim, bias=False),
        )
        self.temperature, self.warm, self.mixing = temperature, warm, False

    def begin_step(self, step: int, _steps_per_epoch: int, steps: int) -> None:
        """Counted in steps: a third of one epoch is no whole epoch, and must not be none."""
        self.mixing = step >= self.warm * steps

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        """The loss of two views of a batch, and z, (2B, out_dim), first view first.

        Raises:
            RecipeError: There are more views, or fewer.
        """
        if len(views) != 2:
            raise RecipeError(f"views: {len(views)} of each batch, but dnabert_s takes 2; see views.name")
        return (self.mixed if self.mixing else self.weighted)(*views)

    def weighted(self, first: Batch, second: Batch) -> tuple[Tensor, Tensor]:
        """Weighted SimCLR: each of both views against all others."""
        z = torch.cat([self.projection_head(self.encoder(view)) for view in (first, second)])
        ids = Ids(*(first[key].repeat(2) for key in Ids._fields))
        own = own_columns(z).roll(len(z) // 2)
        logits, negatives = self.compared(z, z, ids)
        ones = torch.ones(len(z), device=z.device)
        return mixed_nce(logits, own, own, ones, negatives), z

    def mixed(self, first: Batch, second: Batch) -> tuple[Tensor, Tensor]:
        """Mix-up: the first view of each sample, mixed with that of its partner, against second views."""
        draws, device = rng.of_step(), first["cell"].device
        ids, n = Ids(first["cell"], first["identity"]), len(first["cell"])
        partner = partners(ids.cell, draws)
        same = ids.identity[partner] == ids.identity  # a copy is no other: nothing would be mixed
        partner = torch.where(same, torch.arange(n, device=device), partner)
        share = torch.rand(n, generator=draws).to(device)
        share = torch.maximum(share, 1 - share)
        layer = int(torch.randint(len(self.encoder.layers), (), generator=draws))

        def mix(tokens: Tensor) -> Tensor:
            return tokens[partner].lerp(tokens, share[:, None, None].to(tokens.dtype))

        z = self.projection_head(self.encoder(first, layer=layer, change=mix))
        other = self.projection_head(self.encoder(second))
        logits, negatives = self.compared(z, other, ids)
        own = own_columns(z)
        return mixed_nce(logits, own, own[partner], share, negatives), torch.cat([z, other])

    def compared(self, rows: Tensor, columns: Tensor, ids: Ids) -> tuple[Tensor, Tensor]:
        """The logits of rows with the columns of all processes, and which pairs are negatives."""
        logits = cosines(rows, gathered(columns)) / self.temperature
        none = torch.zeros_like(logits, dtype=torch.bool)
        return logits, allowed(ids, Ids(*map(everyones, ids)), none)
