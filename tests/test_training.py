from __future__ import annotations

import math
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from overtone import artifacts, checkpoints, interrupts
from overtone.contracts import Address, Batch
from overtone.datasets import trifeature
from overtone.encoders import ImageEncoder, small_cnn
from overtone.errors import NumericalError, RunError
from overtone.methods import SimCLR
from overtone.optim import build_optimizer
from overtone.partition import Partition
from overtone.rng import numpy_generator, seeded
from overtone.sampling import CellBatchSampler
from overtone.training import Material, Pace, train
from overtone.views import ImageViews

DATA = trifeature(100, image_size=16)
CELLS = np.arange(100) // 10
IDENTITIES = np.arange(100) // 2
STEPS, PER_EPOCH = 9, 3
PACE = Pace(epochs=3, warmup_epochs=0.5, log_every=1, checkpoint_seconds=0.0)


def _method() -> SimCLR:
    with seeded(0, "training test"):
        backbone = nn.Sequential(small_cnn(), nn.Dropout(0.2))
        return SimCLR(ImageEncoder(backbone, mean=[0.5] * 3, std=[0.25] * 3), out_dim=8)


def _trained(
    folder: Path,
    *,
    method: SimCLR | None = None,
    name: str = "adamw",
    views: Callable[[Batch, Address], list[Batch]] | None = None,
    log: Callable[[dict[str, Any], Tensor, torch.optim.Optimizer], None] = lambda *_: None,
    on_epoch: Callable[[int], None] = lambda _: None,
    inputs: dict[str, str] | None = None,
    **pace: Any,
) -> SimCLR:
    method = method or _method()
    optimizer = build_optimizer(method, name=name, lr=0.01, weight_decay=0.01)
    train(
        method,
        optimizer,
        Material(
            DATA, CellBatchSampler(Partition(CELLS), 32, seed=5, stage=3), views or ImageViews(), IDENTITIES
        ),
        Pace(**{**PACE.__dict__, **pace}),
        device=torch.device("cpu"),
        folder=folder,
        inputs=inputs or {},
        log=lambda record, z: log(record, z, optimizer),
        on_epoch=on_epoch,
    )
    return method


def _require_same(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize(("name", "precision"), [("adamw", "fp32"), ("sgd", "fp32"), ("adamw", "bf16")])
def test_interrupted_at_any_step_and_continued_it_ends_in_the_same_weights(
    tmp_path: Path, name: str, precision: str
) -> None:
    whole = _trained(tmp_path / "whole", name=name, precision=precision)
    for stop in numpy_generator(0, name, precision).choice(np.arange(1, STEPS - 1), 2, replace=False):

        def stopping(record: dict[str, Any], *_: object, stop: int = int(stop)) -> None:
            if record["step"] == stop:
                signal.raise_signal(signal.SIGTERM)

        place = tmp_path / str(stop)
        # Seldom enough that no checkpoint is due: the signal itself has to make one.
        kinds: dict[str, Any] = {"name": name, "precision": precision, "checkpoint_seconds": 1e9}
        with pytest.raises(interrupts.Stopped), interrupts.catching():
            _trained(place, log=stopping, **kinds)
        assert [p.name for p in (place / "checkpoints").iterdir()] == [f"step-{stop + 1:08d}"]
        _require_same(_trained(place, **kinds), whole)


def test_as_many_workers_as_there_are_give_the_same_weights(tmp_path: Path) -> None:
    _require_same(_trained(tmp_path / "none"), _trained(tmp_path / "one", num_workers=1))


def test_the_rate_of_every_step_follows_the_closed_form(tmp_path: Path) -> None:
    seen: list[tuple[int, float, set[float]]] = []

    def note(record: dict[str, Any], _: Tensor, optimizer: torch.optim.Optimizer) -> None:
        seen.append((record["step"], record["lr"], {group["lr"] for group in optimizer.param_groups}))

    _trained(tmp_path, log=note)
    warm = 2  # half an epoch of three steps
    for step in range(STEPS):
        fall = math.cos(math.pi / 2 * (step - warm) / (STEPS - warm)) ** 2
        lr = 0.01 * ((step + 1) / warm if step < warm else fall)
        done, logged, used = seen[step]
        assert done == step + 1
        assert [logged, *used] == pytest.approx([lr, lr])
    assert len(seen) == STEPS


def test_every_batch_comes_with_cells_and_identities_and_every_step_has_its_address(tmp_path: Path) -> None:
    seen: list[Address] = []

    def views(batch: Batch, address: Address) -> list[Batch]:
        seen.append(address)
        index = batch["index"].numpy()
        assert batch["cell"].tolist() == CELLS[index].tolist()
        assert batch["identity"].tolist() == IDENTITIES[index].tolist()
        return ImageViews()(batch, address)

    _trained(tmp_path, views=views)
    assert seen == [Address(seed=5, stage=3, step=step) for step in range(STEPS)]


def test_records_count_every_sample_once(tmp_path: Path) -> None:
    samples: list[int] = []
    _trained(
        tmp_path,
        log=lambda record, *_: samples.append(record["samples"]),
        log_every=2,
        checkpoint_seconds=1e9,
    )
    assert samples == [64, 32, 32, 64, 64, 32]  # batches of 32 up to steps 2, 3, 4, 6, 8, 9


def test_records_come_at_the_interval_and_at_each_end_of_an_epoch(tmp_path: Path) -> None:
    steps: list[int] = []
    epochs: list[int] = []
    _trained(
        tmp_path,
        log=lambda record, *_: steps.append(record["step"]),
        on_epoch=epochs.append,
        log_every=4,
        checkpoint_seconds=1e9,
    )
    assert steps == [3, 4, 6, 8, 9]
    assert epochs == [1, 2, 3]


def _sick(sickness: Callable[[Tensor], Tensor], first: int) -> SimCLR:
    """A method in which, from a step on, something is not finite."""
    method, steps = _method(), count()
    healthy = method.step

    def step(views: list[Batch]) -> tuple[Tensor, Tensor]:
        loss, z = healthy(views)
        return (sickness(loss) if next(steps) >= first else loss), z

    method.step = step  # type: ignore[method-assign]
    return method


def _infinite_gradient(loss: Tensor) -> Tensor:
    return loss + (loss * 0).sqrt()


@pytest.mark.parametrize(
    ("sickness", "complaint"),
    [
        (lambda loss: loss * math.nan, "stage 3, step 4: the loss is nan. The batch held samples "),
        (lambda loss: loss + math.inf, "stage 3, step 4: the loss is inf"),
        (_infinite_gradient, "stage 3, step 4: encoder.backbone"),
    ],
)
def test_what_is_not_finite_ends_the_training_at_its_step_and_the_checkpoint_before_stays(
    tmp_path: Path, sickness: Callable[[Tensor], Tensor], complaint: str
) -> None:
    with pytest.raises(NumericalError, match=complaint):
        _trained(tmp_path, method=_sick(sickness, first=4))
    again = _method()
    optimizer = build_optimizer(again, name="adamw", lr=1, weight_decay=0)
    assert checkpoints.restore(tmp_path / "checkpoints", again, optimizer, {}) == 4
    assert all(torch.isfinite(value).all() for value in again.state_dict().values())


def test_weights_that_end_not_finite_are_refused_though_no_checkpoint_was_due(tmp_path: Path) -> None:
    method = _sick(_infinite_gradient, first=STEPS - 1)
    with pytest.raises(NumericalError, match=f"step {STEPS - 1}"):
        _trained(tmp_path, method=method, checkpoint_seconds=1e9)


def test_a_checkpoint_made_from_something_else_is_refused(tmp_path: Path) -> None:
    _trained(tmp_path, inputs={"lr": "0.1"})
    with pytest.raises(RunError, match=r"another lr: 0\.1, now 0\.2"):
        _trained(tmp_path, inputs={"lr": "0.2"})
    for place in (tmp_path / "checkpoints").iterdir():
        assert artifacts.verify(place)["inputs"] == {"lr": "0.1"}


def test_the_global_streams_are_left_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    _trained(tmp_path)
    assert torch.equal(torch.rand(3), expected)
