from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from overtone import checkpoints
from overtone.errors import RunError
from overtone.optim import build_optimizer
from overtone.rng import generator, seeded

INPUTS = {"data": "1234"}


class Tied(nn.Module):
    """A convolution, batch norm, and two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.down, self.up = nn.Linear(8, 8), nn.Linear(8, 8)
        self.up.weight = self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.up(self.down(self.encoder(x).mean((2, 3))).relu())
        return z


def _made(name: str, layout: torch.memory_format) -> tuple[nn.Module, torch.optim.Optimizer]:
    with seeded(0, "checkpoint test"):
        method = Tied().to(memory_format=layout)
    return method, build_optimizer(method, name=name, lr=0.1, weight_decay=0.1)


def _step(method: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    optimizer.zero_grad()
    method(torch.randn(4, 3, 6, 6, generator=generator(0, number))).square().sum().backward()
    optimizer.step()


def _sgd(steps: int, folder: Path) -> nn.Module:
    """Trains so many steps and keeps a checkpoint after each."""
    method, optimizer = _made("sgd", torch.contiguous_format)
    for number in range(steps):
        _step(method, optimizer, number)
        checkpoints.save(folder, number + 1, method, optimizer, INPUTS)
    return method


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_training_goes_on_from_a_checkpoint_as_if_nothing_had_happened(
    tmp_path: Path, name: str, layout: torch.memory_format
) -> None:
    method, optimizer = _made(name, layout)
    for number in range(3):
        _step(method, optimizer, number)
    checkpoints.save(tmp_path, 3, method, optimizer, INPUTS)
    again, its_optimizer = _made(name, layout)
    assert checkpoints.restore(tmp_path, again, its_optimizer, INPUTS) == 3
    for number in range(3, 6):
        _step(method, optimizer, number)
        _step(again, its_optimizer, number)
    assert again.get_parameter("up.weight") is again.get_parameter("down.weight")
    for key, value in method.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    for mine, other in zip(optimizer.state.values(), its_optimizer.state.values(), strict=True):
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[key], other[key]) for key in mine)


def test_the_rates_of_the_optimiser_stay_those_it_was_made_with(tmp_path: Path) -> None:
    method, optimizer = _made("sgd", torch.contiguous_format)
    _step(method, optimizer, 0)
    for group in optimizer.param_groups:
        group["lr"] = 0.001  # as the schedule does
    checkpoints.save(tmp_path, 1, method, optimizer, INPUTS)
    again, its_optimizer = _made("sgd", torch.contiguous_format)
    checkpoints.restore(tmp_path, again, its_optimizer, INPUTS)
    assert {group["lr"] for group in its_optimizer.param_groups} == {0.1}


def test_without_a_checkpoint_training_begins_at_step_0(tmp_path: Path) -> None:
    method, optimizer = _made("sgd", torch.contiguous_format)
    assert checkpoints.restore(tmp_path / "none", method, optimizer, INPUTS) == 0


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    _sgd(4, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": _flip,
    "cut to half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "missing": os.unlink,
}
FILES = ["method.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_one_is_named_in_a_warning_and_the_one_before_is_taken(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for file in FILES:
        _sgd(3, tmp_path / file)
        DAMAGES[damage](tmp_path / file / "step-00000003" / file)
        method, optimizer = _made("sgd", torch.contiguous_format)
        with caplog.at_level(logging.WARNING):
            assert checkpoints.restore(tmp_path / file, method, optimizer, INPUTS) == 2
        assert "step-00000003" in caplog.text
        caplog.clear()
        for key, value in _sgd(2, tmp_path / "whole").state_dict().items():
            assert torch.equal(value, method.state_dict()[key])


def test_a_damaged_one_passed_over_and_what_a_killed_process_left_go_with_the_next(tmp_path: Path) -> None:
    _sgd(3, tmp_path)
    os.truncate(tmp_path / "step-00000003" / "method.safetensors", 1)
    for left in (".step-00000003.writing", ".step-00000001.old"):
        (tmp_path / left).mkdir()
    method, optimizer = _made("sgd", torch.contiguous_format)
    done = checkpoints.restore(tmp_path, method, optimizer, INPUTS)
    checkpoints.save(tmp_path, done, method, optimizer, INPUTS, keep=2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]


def test_where_all_are_damaged_training_never_starts_over_unasked(tmp_path: Path) -> None:
    _sgd(2, tmp_path)
    for file in tmp_path.glob("*/method.safetensors"):
        _flip(file)
    method, optimizer = _made("sgd", torch.contiguous_format)
    with pytest.raises(RunError, match="none of its 2 checkpoints is whole"):
        checkpoints.restore(tmp_path, method, optimizer, INPUTS)


def test_a_checkpoint_made_from_something_else_is_refused_not_skipped(tmp_path: Path) -> None:
    _sgd(2, tmp_path)
    method, optimizer = _made("sgd", torch.contiguous_format)
    with pytest.raises(RunError, match="another data: 1234, now 5678"):
        checkpoints.restore(tmp_path, method, optimizer, {"data": "5678"})


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    _sgd(1, tmp_path)
    other = nn.Linear(2, 2)
    with pytest.raises(RunError, match="another encoder or method"):
        checkpoints.restore(tmp_path, other, torch.optim.SGD(other.parameters()), INPUTS)
