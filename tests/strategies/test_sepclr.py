from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close

from overtone.contracts import Ids
from overtone.datasets import digits, digits_on_patches, trifeature
from overtone.encoders import build_encoder
from overtone.errors import DataError, RecipeError
from overtone.objectives.many_positives import allowed
from overtone.rng import generator
from overtone.strategies.sepclr import SepCLR, alignment, joint_entropy, uniformity

CELLS = [0, 0, 1, 0, 1, 2]
IDENTITIES = [0, 1, 2, 1, 4, 5]


def _z(name: str, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(0, "sepclr", name))


def _ids(cells: list[int], identities: list[int] | None = None) -> Ids:
    return Ids(torch.tensor(cells), torch.tensor(identities or list(range(len(cells)))))


def _pairs(ids: Ids) -> Tensor:
    n = len(ids.cell)
    return allowed(ids, ids, torch.zeros(n, n, dtype=torch.bool))


def _method(**values: Any) -> SepCLR:
    encoder = build_encoder("halves")
    return SepCLR(encoder, out_dim=3, **values)


def _may(i: int, j: int, cells: list[int], identities: list[int]) -> bool:
    return cells[i] == cells[j] and identities[i] != identities[j]


def _loop(z: list[Tensor], s: list[Tensor], target: list[bool], cells: list[int], same: list[int]) -> float:
    """The whole loss with its published weights, pair by pair, t = 1/2."""
    n = len(target)

    def square(a: Tensor, b: Tensor) -> float:
        return float((a - b).square().sum())

    t = [torch.stack([one[i] if target[i] else 0 * one[i] for i in range(n)]) for one in s]

    def spread(x: Tensor) -> float:
        kernels = [
            math.exp(-square(x[i], x[j])) for i in range(n) for j in range(i) if _may(i, j, cells, same)
        ]
        return math.log(sum(kernels) / len(kernels))

    def joint(a: Tensor, b: Tensor) -> float:
        total = 0.0
        for i in range(n):
            columns = [j for j in range(n) if j == i or _may(i, j, cells, same)]
            kernels = [math.exp(-square(b[i], b[j])) * math.exp(-square(a[i], a[j])) for j in columns]
            total += math.log(sum(kernels) / len(kernels))
        return total / n

    marked = [i for i in range(n) if target[i]]
    others = [i for i in range(n) if not target[i]]
    common = sum(square(z[0][i], z[1][i]) for i in range(n)) / n + spread(z[0]) + spread(z[1])
    salient = sum(square(s[0][i], s[1][i]) for i in marked) / len(marked) + spread(t[0]) + spread(t[1])
    nothing = sum(square(one[i], 0 * one[i]) for one in s for i in others) / len(others) / 2
    return common + 1000 * salient + 1000 * nothing + 10 * (joint(z[0], t[0]) + joint(z[1], t[1])) / 2


@pytest.mark.parametrize(("cells", "same"), [([0] * 6, list(range(6))), (CELLS, IDENTITIES)])
def test_the_loss_is_the_loop_over_the_pairs_of_each_cell(cells: list[int], same: list[int]) -> None:
    common = [normalize(_z(f"c{view}", 6, 3), dim=1) for view in range(2)]
    salient, target = [_z(f"s{view}", 6, 3) for view in range(2)], [True, False, True, True, False, True]
    found = _method().separated(common, salient, torch.tensor(target), _ids(cells, same))
    expected = torch.tensor(_loop(common, salient, target, cells, same), dtype=torch.float64)
    assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_in_one_cell_uniformity_is_that_of_all_pairs() -> None:
    z = _z("plain", 7, 3)
    plain = torch.pdist(z).square().neg().exp().mean().log()
    assert_close(uniformity(z, _pairs(_ids([4] * 7))), plain, rtol=1e-12, atol=1e-12)


def test_the_joint_entropy_lies_between_that_of_one_point_and_that_of_points_far_apart() -> None:
    pairs, common = _pairs(_ids([0] * 5)), _z("far", 5, 2)
    far = torch.arange(5.0, dtype=torch.float64)[:, None] * 100
    assert_close(joint_entropy(far, 0 * far, pairs).item(), -math.log(5))
    assert joint_entropy(0 * far, 0 * far, pairs).item() == 0
    alone = torch.cdist(common, common).square().neg().exp().mean(1).log().mean()
    assert_close(joint_entropy(common, torch.zeros_like(common), pairs), alone, rtol=1e-12, atol=1e-12)


def test_the_salient_half_of_background_is_only_pulled_to_zero() -> None:
    target, ids = torch.tensor([True, False, True, False]), _ids([0] * 4)
    common = [normalize(_z(f"c{view}", 4, 3), dim=1) for view in range(2)]
    salient = [_z(f"s{view}", 4, 3).requires_grad_() for view in range(2)]
    _method().separated(common, salient, target, ids).backward()  # type: ignore[no-untyped-call]
    for each in salient:
        assert each.grad is not None
        assert_close(each.grad[~target], 1000 * each[~target] / 2)  # of the mean over views of |s|^2
        assert each.grad[target].any()


def test_turning_the_common_space_changes_nothing() -> None:
    ids, target = _ids([0] * 5), torch.tensor([True] * 3 + [False] * 2)
    common = [normalize(_z(f"c{view}", 5, 3), dim=1) for view in range(2)]
    salient = [_z(f"s{view}", 5, 3) for view in range(2)]
    turn = torch.linalg.qr(_z("turn", 3, 3)).Q
    method = _method()
    turned = method.separated([each @ turn for each in common], salient, target, ids)
    assert_close(turned, method.separated(common, salient, target, ids), rtol=1e-11, atol=1e-11)


def test_alone_in_their_cells_points_align_and_all_stays_finite() -> None:
    ids, target = _ids([0, 1, 2]), torch.tensor([False] * 3)
    z = [_z(f"z{view}", 3, 3).requires_grad_() for view in range(4)]
    loss = _method().separated(z[:2], z[2:], target, ids)
    loss.backward()  # type: ignore[no-untyped-call]
    nothing = (alignment(z[2], 0 * z[2], ~target) + alignment(z[3], 0 * z[3], ~target)) / 2
    assert_close(loss, alignment(z[0], z[1], ~target) + 1000 * nothing)
    assert all(each.grad is not None and bool(each.grad.isfinite().all()) for each in z)


def test_targets_carry_a_digit_and_background_is_left_as_it_was() -> None:
    both, below, above = digits_on_patches(30), trifeature(30), digits(30)
    for i in range(30):
        expected = below[i]["image"]
        if both.target[i]:
            expected = torch.maximum(expected, above[i]["image"])
            assert both.labels["digit"][i] == above.labels["digit"][i]
        assert torch.equal(both[i]["image"], expected)
    later = digits_on_patches(5, start=25)
    assert all(torch.equal(later[i]["image"], both[25 + i]["image"]) for i in range(5))
    assert later.collate([later[i] for i in range(5)])["target"].tolist() == both.target[25:].tolist()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"method\.entropy=-1"):
        _method(entropy=-1)
    odd = build_encoder("small_cnn")
    odd.dim = 127
    with pytest.raises(RecipeError, match="halves"):
        SepCLR(odd)
    view = {"image": torch.rand(2, 3, 16, 16), "cell": torch.zeros(2), "identity": torch.arange(2)}
    with pytest.raises(DataError, match="target"):
        _method().step([view, view])
