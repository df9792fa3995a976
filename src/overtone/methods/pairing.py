"""Which pairs of the samples of this process with those of all are one sample, and which may repel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from overtone.contracts import Batch, Ids
from overtone.distributed import everyones, rank
from overtone.objectives.many_positives import allowed


class Pairing(NamedTuple):
    """(B, m) bool each: B samples of this process, m of all."""

    own: Tensor
    negatives: Tensor


def pairing(view: Batch) -> Pairing:
    """The pairing of a batch whose samples know their cell and identity.

    >>> view = {"cell": torch.tensor([0, 0, 1]), "identity": torch.tensor([0, 1, 2])}
    >>> pairing(view).own.int().tolist(), pairing(view).negatives.int().tolist()
    ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    """
    ids = Ids(*(view[key] for key in Ids._fields))
    all_ids = Ids(*map(everyones, ids))
    device, n = ids.cell.device, len(ids.cell)
    rows = torch.arange(n, device=device) + rank() * n
    own = rows[:, None] == torch.arange(len(all_ids.cell), device=device)
    return Pairing(own, allowed(ids, all_ids, own))
