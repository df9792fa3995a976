"""The projection head: what training sees of an encoder, and what is thrown away after it."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import nn

from overtone.errors import RecipeError


class ProjectionHead(nn.Sequential):
    """Maps embeddings (B, in_dim) to z (B, out_dim), not normalised: the objective does that.

    A perceptron with ReLU between its layers (Chen et al., "A Simple Framework for Contrastive Learning
    of Visual Representations", arXiv 2002.05709, section 2.1: two layers; v2, arXiv 2006.10029: three).

    Args:
        in_dim: Width of the embeddings.
        hidden_dim: Width of the hidden layers; None is `in_dim`.
        out_dim: Width of z.
        n_layers: Linear layers; 1 is a linear head.
        norm: "batch" normalises each hidden layer over the batch; "none" keeps samples independent.

    Attributes:
        out_dim: As given.
        spec: The arguments from which `ProjectionHead(**spec)` makes the same layers again.

    Raises:
        RecipeError: A width or the number of layers is below 1, or the norm is unknown.

    >>> [type(layer).__name__ for layer in ProjectionHead(512, out_dim=64)]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int | None = None,
        out_dim: int = 128,
        n_layers: int = 2,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        hidden_dim = in_dim if hidden_dim is None else hidden_dim
        sizes = {"in_dim": in_dim, "hidden_dim": hidden_dim, "out_dim": out_dim, "n_layers": n_layers}
        for name, value in sizes.items():
            if value < 1:
                raise RecipeError(f"projection_head.{name}={value}: expected at least 1")
        if norm not in ("batch", "none"):
            raise RecipeError(f'projection_head.norm={norm!r}: expected "batch" or "none"')
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([in_dim] + [hidden_dim] * (n_layers - 1)):
            # Batch norm subtracts the mean, so a bias before it would do nothing.
            layers.append(nn.Linear(width_in, width_out, bias=norm == "none"))
            layers += [nn.BatchNorm1d(width_out)] if norm == "batch" else []
            layers.append(nn.ReLU(inplace=True))
        layers.append(nn.Linear(hidden_dim if n_layers > 1 else in_dim, out_dim))
        super().__init__(*layers)
        self.out_dim, self.spec = out_dim, {**sizes, "norm": norm}
