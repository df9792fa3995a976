from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from overtone.evaluation import alignment, collapse_alarm, effective_rank, uniformity


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_effective_rank_counts_directions_of_equal_weight() -> None:
    assert effective_rank(torch.eye(7)) == pytest.approx(7)
    one_hot = torch.eye(3).repeat(50, 1) @ torch.linalg.qr(normal(20, 3)).Q.T
    assert effective_rank(one_hot) == pytest.approx(3, abs=1e-3)
    assert effective_rank(torch.ones(30, 4)) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.zeros(30, 4)) == 1


def test_the_effective_rank_is_the_entropy_of_the_singular_values() -> None:
    shares = [4 / 7, 2 / 7, 1 / 7]
    entropy = -sum(p * math.log(p) for p in shares)
    assert effective_rank(torch.diag(torch.tensor([4.0, 2.0, 1.0]))) == pytest.approx(math.exp(entropy))
    assert effective_rank(torch.diag(torch.tensor([4.0, 2.0, 1.0])).numpy()) == pytest.approx(
        math.exp(entropy)
    )


def test_alignment_and_uniformity_are_their_definitions_by_loops() -> None:
    first, second = normal(12, 5, seed=0), normal(12, 5, seed=1)
    a, b = functional.normalize(first.double()), functional.normalize(second.double())
    distance = [float(((x - y) ** 2).sum()) for x, y in zip(a, b, strict=True)]
    potential = [math.exp(-2 * float(((x - y) ** 2).sum())) for x, y in itertools.combinations(a, 2)]
    assert alignment(first, second) == pytest.approx(sum(distance) / 12, rel=1e-5)
    assert uniformity(first) == pytest.approx(math.log(sum(potential) / len(potential)), rel=1e-5)


def test_one_point_raises_the_alarm_whatever_its_noise() -> None:
    point = normal(64) * 3
    alarm = collapse_alarm(point + 0.1 * normal(256, 64, seed=1))
    assert alarm is not None
    assert "mean cosine of all pairs is 0.99" in alarm


def test_two_opposite_points_raise_the_alarm_by_their_rank() -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(64)[:, None]
    alarm = collapse_alarm(signs * normal(1, 32))
    assert alarm is not None
    assert "effective rank of the batch is 1.0" in alarm


def test_ten_clusters_are_no_collapse() -> None:
    centres = normal(10, 64)
    assert collapse_alarm(centres.repeat(20, 1) + 0.01 * normal(200, 64, seed=1)) is None
    assert collapse_alarm(normal(256, 128)) is None


def test_a_shared_direction_alone_is_no_collapse() -> None:
    assert collapse_alarm(normal(1, 64) * 2 + normal(256, 64, seed=1)) is None


def test_a_batch_too_small_to_tell_raises_no_alarm() -> None:
    assert collapse_alarm(torch.ones(7, 64)) is None
    assert collapse_alarm(torch.ones(64, 2)) is None


def test_projections_that_are_not_finite_are_said_to_be_so() -> None:
    z = normal(64, 32)
    z[3, 4] = float("nan")
    assert "not finite" in str(collapse_alarm(z))


def test_the_alarm_leaves_no_trace_in_the_graph() -> None:
    z = normal(64, 32).requires_grad_()
    collapse_alarm(z)
    assert z.grad is None
