"""A second network that follows the first: the exponential moving average of its weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from overtone.errors import RecipeError


class Teacher(nn.Module):
    """A copy of a module that no gradient reaches; `follow` moves it towards the original.

    Its weights lie in the state of the method that holds it, so they are saved and restored with it. It stays
    in the mode of the method: in training its batch norms normalise over the batch, as MoCo's do.

    Args:
        module: The original.
        momentum: m of w <- m w + (1 - m) original, in [0, 1].

    Raises:
        RecipeError: The momentum is out of range.

    >>> student = nn.Linear(1, 1, bias=False)
    >>> teacher = Teacher(student, momentum=0.75)
    >>> with torch.no_grad():
    ...     begin = student.weight.fill_(0.0), teacher.module.weight.fill_(1.0)
    >>> teacher.follow(student)
    >>> teacher.module.weight.item()
    0.75
    """

    def __init__(self, module: nn.Module, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise RecipeError(f"method.momentum={momentum}: expected a number from 0 to 1, such as 0.99")
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def follow(self, module: nn.Module, momentum: float | None = None) -> None:
        """One step of the average over the parameters; buffers are the teacher's own.

        Args:
            module: The original.
            momentum: Another m, for this step alone (BYOL raises it over a training).
        """
        m = self.momentum if momentum is None else momentum
        for own, other in zip(self.module.parameters(), module.parameters(), strict=True):
            own.lerp_(other, 1 - m)


def rising(momentum: float, step: int, steps: int) -> float:
    """The momentum of a step, along half a cosine from its first value to 1 at the last step.

    Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, section 3.3.

    >>> rising(0.9, 0, 10), rising(0.9, 5, 10), rising(0.9, 10, 10)
    (0.9, 0.95, 1.0)
    """
    return 1 - (1 - momentum) * (math.cos(math.pi * step / steps) + 1) / 2
