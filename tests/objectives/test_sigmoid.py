from __future__ import annotations

import math

import pytest
import torch

from overtone.contracts import Ids
from overtone.objectives import sigmoid as module
from overtone.objectives.sigmoid import sigmoid


def test_it_is_a_loop_over_the_pairs_in_tiles_of_any_height(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(7, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    ids = Ids(torch.tensor([0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 1, 0, 3, 4, 5, 6]))
    positive = torch.tensor([0, 1, 2, 3, 4, 5, 6])
    total = 0.0
    for i in range(7):
        for j in range(7):
            cosine = float(torch.cosine_similarity(rows[i], columns[j], dim=0))
            logit = cosine / 0.3 - 2
            if i == j:
                total += math.log(1 + math.exp(-logit))
            elif ids.cell[i] == ids.cell[j] and ids.identity[i] != ids.identity[j]:
                total += math.log(1 + math.exp(logit))
    for tile in (1, 14, 2**22):
        monkeypatch.setattr(module, "_TILE", tile)
        assert float(sigmoid(rows, columns, positive, ids, ids, 0.3, -2.0)) == pytest.approx(total / 7)


def test_gradients_reach_rows_columns_temperature_and_bias_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TILE", 10)
    draw = torch.Generator().manual_seed(0)
    ids = Ids(torch.arange(5) // 3, torch.arange(5))

    def loss(
        rows: torch.Tensor, columns: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        return sigmoid(rows, columns, torch.arange(5), ids, ids, scale, bias)

    values = [torch.randn(5, 3, generator=draw, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    values += [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.4, -1.0)]
    assert torch.autograd.gradcheck(loss, values)
