"""Keys of earlier steps as negatives, each with what decides whether it may be one (MoCo's queue)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from overtone.contracts import Ids
from overtone.errors import RecipeError


class Keys(NamedTuple):
    """What a queue holds: (n, d) unit keys and the ids of their samples; n is the size once it is full."""

    keys: Tensor
    ids: Ids


class Queue(nn.Module):
    """First in, first out. A stage makes a new method and thereby an empty queue, so cells never mix.

    The identity beside each key keeps an anchor's own older keys from being its negatives: samples of one
    identity never are. He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", 2020.

    Args:
        size: Keys that it holds.
        dim: Their width.

    Raises:
        RecipeError: The size is below 1.

    >>> queue = Queue(3, dim=1)
    >>> ids = Ids(torch.tensor([5, 6]), torch.tensor([0, 1]))
    >>> queue.push(torch.ones(2, 1), ids), queue.push(-torch.ones(2, 1), ids)
    (None, None)
    >>> found = queue.held()
    >>> found.keys.flatten().tolist(), found.ids.cell.tolist()
    ([-1.0, 1.0, -1.0], [6, 6, 5])
    """

    keys: Tensor
    cell: Tensor
    identity: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise RecipeError(f"method.queue={size}: expected the number of keys to keep, such as 4096")
        self.size = size
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("cell", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("identity", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor, ids: Ids) -> None:
        """Adds keys (n, d), which are normalised, in the place of the oldest."""
        n = len(keys)
        at = (int(self.pushed) + torch.arange(n, device=keys.device)[-self.size :]) % self.size
        self.keys[at] = normalize(keys.to(self.keys.dtype), dim=1)[-self.size :]
        self.cell[at], self.identity[at] = ids.cell[-self.size :], ids.identity[-self.size :]
        self.pushed += n

    def held(self) -> Keys:
        """What has been pushed so far and is still there; clones, so that a later push changes no graph."""
        n = min(int(self.pushed), self.size)
        return Keys(self.keys[:n].clone(), Ids(self.cell[:n].clone(), self.identity[:n].clone()))
