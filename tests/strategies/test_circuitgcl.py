from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from overtone.datasets import netlists
from overtone.datasets.netlists import GATES
from overtone.encoders import build_encoder, trainable
from overtone.errors import RecipeError
from overtone.rng import generator
from overtone.strategies.circuitgcl import CircuitGCL, scattering


def _z(*shape: int) -> Tensor:
    return normalize(torch.randn(*shape, dtype=torch.float64, generator=generator(0, "circuitgcl")), dim=-1)


def _batch(n: int = 6) -> dict[str, Any]:
    dataset = netlists(n)
    return dataset.collate([dataset[i] for i in range(n)]) | {"cell": torch.zeros(n, dtype=torch.int64)}


def _method(**values: float) -> CircuitGCL:
    torch.manual_seed(0)
    return CircuitGCL(build_encoder("gcn", channels=8, width=6, dropout=0.0), **values)


def test_scattering_is_the_loop_over_rows_and_the_means_of_their_cells() -> None:
    z, cells = _z(7, 3), torch.tensor([0, 1, 0, 2, 1, 0, 1])
    total = []
    for i in range(7):
        mean = torch.stack([z[j] for j in range(7) if cells[j] == cells[i]]).mean(0)
        total.append(-(z[i] - mean).square().sum())
    assert_close(scattering(z, z, cells, cells), torch.stack(total).mean(), rtol=1e-12, atol=1e-12)


def test_in_one_cell_it_is_the_squared_length_of_the_mean_less_one() -> None:
    z, cells = _z(9, 4), torch.zeros(9, dtype=torch.int64)
    assert_close(scattering(z, z, cells, cells), z.mean(0).square().sum() - 1, rtol=1e-12, atol=1e-12)


def test_it_is_lowest_where_the_mean_is_zero_and_0_where_all_are_one() -> None:
    z, cells = _z(4, 3), torch.zeros(8, dtype=torch.int64)
    assert_close(scattering(both := torch.cat([z, -z]), both, cells, cells).item(), -1.0)
    assert_close(scattering(one := z[:1].expand(8, 3), one, cells, cells).item(), 0.0)


def test_alone_in_their_cells_nothing_scatters_and_all_stays_finite() -> None:
    z, cells = _z(4, 3).requires_grad_(), torch.arange(4)
    loss = scattering(z, z, cells, cells)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert z.grad is not None
    assert not z.grad.any()


def test_the_prediction_moves_the_encoder_and_the_scattering_the_target() -> None:
    whole, alone = _method(), _method(scatter=0.0)
    for method in (whole, alone):
        method.step([_batch()])[0].backward()  # type: ignore[no-untyped-call]
    for one, other in zip(whole.encoder.parameters(), alone.encoder.parameters(), strict=True):
        assert_close(one.grad, other.grad)
    assert not any(p.requires_grad for p in alone.target.parameters())
    batch, moved = _batch(), list(whole.target.parameters())
    target = normalize(whole.target.module(batch), dim=1)
    expected = torch.autograd.grad(scattering(target, target, batch["cell"], batch["cell"]), moved)
    for parameter, gradient in zip(moved, expected, strict=True):
        assert_close(parameter.grad, gradient)


def test_without_scattering_the_loss_is_minus_the_cosine_of_prediction_and_target() -> None:
    method, batch = _method(scatter=0.0), _batch()
    loss, z = method.step([batch])
    cosines = normalize(method.predictor(z), dim=1) * normalize(method.target.module(batch), dim=1)
    assert_close(loss, -cosines.sum(1).mean())


def test_the_scattering_trains_nothing_that_a_stage_has_frozen() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("gcn", channels=8, width=6)
    trainable(encoder, ["own.*"])
    method = CircuitGCL(encoder)
    assert {n for n, p in method.target.module.named_parameters() if p.requires_grad} == {
        n for n, p in encoder.named_parameters() if p.requires_grad
    }
    assert method.target.module.frozen == encoder.frozen != ()


def test_the_target_follows_once_an_epoch() -> None:
    method = _method(momentum=0.75)
    own, other = method.encoder.get_parameter("own.0.bias"), method.target.get_parameter("module.own.0.bias")
    with torch.no_grad():
        own.fill_(1.0), other.fill_(0.0)
    seen = []
    for step in range(7):
        method.begin_step(step, 3, 7)
        seen.append(other[0].item())
    assert seen == [0.0] * 3 + [0.25] * 3 + [0.4375]


def test_a_gate_is_as_it_is_drawn_and_padding_changes_no_embedding() -> None:
    dataset = netlists(40)
    encoder = build_encoder("gcn", channels=8).eval()
    for i in range(40):
        graph, edges = dataset[i]["graph"], dataset[i]["edges"]
        gate = list(GATES)[dataset.labels["gate"][i]]
        ends = sum(one.split()[2:].count("out") for one in GATES[gate].split(", "))
        pins = torch.cat([edges[edges[:, 1] == 0, 0], edges[edges[:, 0] == 0, 1]])
        assert int(graph[pins, 3].sum()) == ends
    small = min(range(40), key=lambda i: len(dataset[i]["graph"]))
    alone = encoder(dataset.collate([dataset[small]]))
    assert_close(encoder(dataset.collate([dataset[i] for i in range(40)]))[small], alone[0])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"method\.scatter=-1"):
        _method(scatter=-1)
    with pytest.raises(RecipeError, match="n=0"):
        netlists(0)
