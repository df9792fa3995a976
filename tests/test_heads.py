from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from overtone.errors import RecipeError
from overtone.heads import ProjectionHead


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_a_head_is_linear_layers_with_norm_and_relu_between(n_layers: int, norm: str) -> None:
    head = ProjectionHead(6, hidden_dim=5, out_dim=3, n_layers=n_layers, norm=norm)  # type: ignore[arg-type]
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    widths = [6] + [5] * (n_layers - 1) + [3]
    assert [(layer.in_features, layer.out_features) for layer in linear] == list(pairwise(widths))
    between = [nn.Linear, nn.BatchNorm1d, nn.ReLU] if norm == "batch" else [nn.Linear, nn.ReLU]
    assert [type(layer) for layer in head] == between * (n_layers - 1) + [nn.Linear]


def test_z_is_the_perceptron_of_the_embeddings_and_not_normalised() -> None:
    torch.manual_seed(0)
    head, embeddings = ProjectionHead(6, out_dim=3, norm="none"), torch.randn(4, 6)
    first, last = head[0], head[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    hidden = (embeddings @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(head(embeddings), hidden @ last.weight.T + last.bias)
    assert not torch.allclose(head(embeddings).norm(dim=1), torch.ones(4))


def test_without_norm_samples_are_independent() -> None:
    head, embeddings = ProjectionHead(6, norm="none"), torch.randn(4, 6)
    torch.testing.assert_close(head(embeddings)[:2], head(embeddings[:2]))


@pytest.mark.parametrize(
    ("name", "value"), [("in_dim", 0), ("hidden_dim", 0), ("out_dim", -1), ("n_layers", 0), ("norm", "layer")]
)
def test_a_bad_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(RecipeError, match=rf"projection_head\.{name}="):
        ProjectionHead(**{"in_dim": 4, name: value})  # type: ignore[arg-type]
