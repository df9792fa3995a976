"""A graph network for batches that bring their adjacency along."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.encoders.encoder import Encoder


class GraphEncoder(Encoder):
    """What the first node of each graph knows after a few rounds of asking its neighbours.

    Takes `batch["graph"]`, (B, M, C) zero-padded, and `batch["adjacency"]`, (B, M, M). A round is
    h_i <- dropout(tanh(norm(A h_i + B mean over neighbours j of h_j))); padding is nobody's neighbour.

    Args:
        channels: C, features of a node.
        width: Of the embeddings.
        depth: Rounds, so how many edges away a node can be and still count.
        dropout: Share of the values that training sets to zero after each round.

    >>> import torch
    >>> encoder = GraphEncoder(channels=3, width=16)
    >>> encoder({"graph": torch.zeros(2, 5, 3), "adjacency": torch.zeros(2, 5, 5)}).shape
    torch.Size([2, 16])
    """

    def __init__(self, channels: int, width: int = 128, depth: int = 4, dropout: float = 0.3) -> None:
        super().__init__()
        pairs = list(pairwise([channels] + [width] * depth))
        self.own = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
        self.neighbours = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.LayerNorm(b) for _, b in pairs)
        self.dropout = nn.Dropout(dropout)
        self.dim = width
        self.spec = {
            "name": "gcn",
            "channels": channels,
            "width": width,
            "depth": depth,
            "dropout": dropout,
        }

    def forward(self, batch: Batch) -> Tensor:
        """(B, width) embeddings of the first nodes."""
        nodes = batch["graph"].to(self.norms[0].weight.dtype)
        adjacency = batch["adjacency"].to(nodes.dtype)
        mean = adjacency / adjacency.sum(2, keepdim=True).clamp_min(1)
        for own, neighbours, norm in zip(self.own, self.neighbours, self.norms, strict=True):
            nodes = self.dropout(norm(own(nodes) + neighbours(mean @ nodes)).tanh())
        first: Tensor = nodes[:, 0]
        return first
