from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from overtone.errors import RecipeError
from overtone.methods.teacher import Teacher, rising
from overtone.rng import seeded


def _student() -> nn.Sequential:
    with seeded(0, "teacher"):
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def _weight(module: nn.Module) -> Tensor:
    """The first."""
    return next(module.parameters())


def _moved(student: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(by)


def test_it_begins_equal_and_is_the_weighted_sum_of_all_weights_that_it_followed() -> None:
    student = _student()
    teacher, begin = Teacher(student, 0.9), _weight(student).detach().clone()
    for _ in range(3):
        _moved(student, 1.0)
        teacher.follow(student)
    # begin + 1, + 2, + 3 with weights 0.1 0.9^2, 0.1 0.9, 0.1
    expected = begin + 0.1 * (1 * 0.81 + 2 * 0.9 + 3)
    torch.testing.assert_close(_weight(teacher), expected, rtol=0, atol=1e-12)


def test_momentum_one_stays_and_momentum_zero_copies() -> None:
    student = _student()
    teacher, begin = Teacher(student, 1.0), _weight(student).detach().clone()
    _moved(student, 1.0)
    teacher.follow(student)
    assert torch.equal(_weight(teacher), begin)
    teacher.follow(student, momentum=0.0)
    assert torch.equal(_weight(teacher), _weight(student))


def test_no_gradient_reaches_it_and_no_graph_grows_on_it() -> None:
    student = _student()
    teacher = Teacher(student, 0.5)
    x = torch.arange(12.0).double().reshape(4, 3)
    loss: Tensor = (student(x) - teacher.module(x)).square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    teacher.follow(student)
    assert all(p.grad is None and not p.requires_grad and p.is_leaf for p in teacher.parameters())
    assert all(p.grad is not None and p.requires_grad for p in student.parameters())


def test_a_restored_teacher_goes_on_as_the_one_that_was_saved() -> None:
    def state(*modules: nn.Module) -> list[Tensor]:
        return [value for module in modules for value in module.state_dict().values()]

    student, again = _student(), _student()
    teacher = Teacher(student, 0.9)
    _moved(student, 1.0)
    teacher.follow(student)
    copy = Teacher(again, 0.9)
    copy.load_state_dict({name: value.clone() for name, value in teacher.state_dict().items()})
    again.load_state_dict({name: value.clone() for name, value in student.state_dict().items()})
    for one, original in ((teacher, student), (copy, again)):
        one.module(torch.arange(12.0).double().reshape(4, 3))  # batch norms keep statistics
        _moved(original, 1.0)
        one.follow(original)
    assert all(torch.equal(a, b) for a, b in zip(state(teacher), state(copy), strict=True))


def test_momentum_rises_along_half_a_cosine_to_one() -> None:
    found = [rising(0.9, step, 4) for step in range(5)]
    assert found == pytest.approx([1 - 0.1 * (math.cos(math.pi * k / 4) + 1) / 2 for k in range(5)])


@pytest.mark.parametrize("momentum", [-0.1, 1.5, math.nan])
def test_a_momentum_out_of_range_is_refused(momentum: float) -> None:
    with pytest.raises(RecipeError, match=f"method.momentum={momentum}: expected a number from 0 to 1"):
        Teacher(nn.Linear(1, 1), momentum)
