from __future__ import annotations

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import Problem, problem, problems, together
from torch import Tensor
from torch.nn.functional import normalize

from overtone.contracts import Objective
from overtone.objectives import IFM, HardNegatives, NTXent, logits


@settings(max_examples=30, deadline=None, derandomize=True)
@given(problems(), st.sampled_from([0.0, 1.0, 3.0]))
def test_the_others_are_summed_over_the_allowed_negatives_and_no_more(
    batch: Problem, sharpness: float
) -> None:
    rows, columns, positive, row_ids, column_ids = batch
    own, others = logits.own_and_others(*batch, 0.5, sharpness)
    dense = normalize(rows) @ normalize(columns).T * sharpness / 0.5
    torch.testing.assert_close(own, dense[torch.arange(len(rows)), positive])
    allowed = oracles.allowed_negatives(positive, row_ids, column_ids)
    torch.testing.assert_close(others.exp(), (dense.exp() * allowed).sum(dim=1))


@pytest.mark.parametrize("objective", [NTXent(), IFM(), HardNegatives()])
def test_nothing_of_the_size_of_all_pairs_is_kept_for_backward(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logits, "_SIDE", 32)
    kept: list[int] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    z = torch.randn(512, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        objective(z, z, torch.arange(512), together(512), together(512))
    assert sum(kept) < 512 * 512 / 4


@pytest.mark.parametrize("objective", [IFM(0.3), HardNegatives(0.3)])
def test_tiles_change_neither_value_nor_gradient(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[Tensor, Tensor]:
        batch = problem()
        loss = objective(*batch)
        return loss.detach(), torch.autograd.grad(loss, batch[0])[0]

    whole = found()
    monkeypatch.setattr(logits, "_SIDE", 3)
    torch.testing.assert_close(found(), whole, rtol=0, atol=1e-14)
