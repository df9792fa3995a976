"""An encoder as it was before any training: what it is worth to have this architecture and no more."""

from __future__ import annotations

from copy import deepcopy

from torch import nn

from overtone import rng
from overtone.encoders.building import build_encoder
from overtone.encoders.encoder import Encoder


def with_random_weights(module: nn.Module, seed: int = 0) -> nn.Module | None:
    """A copy of a module whose every part is initialised anew, statistics of batch norm included.

    Args:
        module: Any; it is not changed.
        seed: Address of the draws, with "random weights".

    Returns:
        None where parameters belong to a part that says no way to initialise them: it has no
        `reset_parameters`, and it is in no encoder that `build_encoder` made.

    >>> import torch
    >>> line = nn.Linear(2, 2)
    >>> drawn = with_random_weights(line)
    >>> drawn is not None and not torch.equal(drawn.weight, line.weight)
    True
    """
    drawn = deepcopy(module)
    done: set[nn.Module] = set()
    with rng.seeded(seed, "random weights"):
        for part in drawn.modules():  # outer ones first
            if isinstance(part, Encoder) and part.spec is not None:
                part.load_state_dict(build_encoder(**part.spec).state_dict())
                done.update(part.modules())
            if part in done:
                continue
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if callable(reset):
                reset()
            elif next(part.parameters(recurse=False), None) is not None:
                return None
    return drawn
