"""What the views of a batch know of each other: whose they are, which are one sample, which may repel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from overtone.contracts import Batch, Ids
from overtone.distributed import everyones, rank
from overtone.errors import RecipeError
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
    ids = ids_of(view)
    all_ids = Ids(*map(everyones, ids))
    own = own_columns(ids.cell)[:, None] == torch.arange(len(all_ids.cell), device=ids.cell.device)
    return Pairing(own, allowed(ids, all_ids, own))


def ids_of(view: Batch) -> Ids:
    """Cells and identities of the samples of a view, (B,) each."""
    return Ids(*(view[key] for key in Ids._fields))


def own_columns(rows: Tensor) -> Tensor:
    """Where the rows of this process stand among those of all processes, (n,) int64."""
    return torch.arange(len(rows), device=rows.device) + rank() * len(rows)


def check_pairs(z: list[Tensor], name: str) -> None:
    """Raises a RecipeError unless each picture has one text."""
    if len(z[0]) != len(z[1]):
        raise RecipeError(f"views: {name} takes one sentence of each text; set views.sentences=1")


def check_two(views: list[Batch], name: str) -> None:
    """Raises a RecipeError unless there are two views."""
    if len(views) != 2:
        raise RecipeError(f"views: {len(views)} of each batch, but {name} takes 2; set views.n_views=2.")
