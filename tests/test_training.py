from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, cast

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


@pytest.mark.parametrize(
    ("name", "precision", "warm"),
    [("adamw", "fp32", 0), ("sgd", "fp32", 0), ("adamw", "bf16", 0), ("adamw", "fp32", 4)],
)
def test_interrupted_at_any_step_and_continued_it_ends_in_the_same_weights(
    tmp_path: Path, name: str, precision: str, warm: int
) -> None:
    kinds: dict[str, Any] = {"name": name, "precision": precision, "warm_start_steps": warm}
    whole = _trained(tmp_path / "whole", **kinds)
    stops = numpy_generator(0, name, precision).choice(np.arange(1, STEPS - 1), 2, replace=False)
    for stop in (*stops, *range(1 - warm, 1)) if warm else stops:

        def stopping(record: dict[str, Any], *_: object, stop: int = int(stop)) -> None:
            if record["step"] == stop:
                signal.raise_signal(signal.SIGTERM)

        place = tmp_path / str(stop)
        # Seldom enough that no checkpoint is due: the signal itself has to make one.
        kinds["checkpoint_seconds"] = 1e9
        with pytest.raises(interrupts.Stopped), interrupts.catching():
            _trained(place, log=stopping, **kinds)
        assert [p.name for p in (place / "checkpoints").iterdir()] == [f"step-{warm + stop + 1:08d}"]
        _require_same(_trained(place, **kinds), whole)


def _by_hand(plain: SimCLR, steps: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Both moments of every parameter after some steps at the same weights, as Adam's paper has them."""
    sampler = CellBatchSampler(Partition(CELLS), 32, seed=5, stage=3)
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in plain.named_parameters()}
    for number in range(
        STEPS + steps - 1, STEPS - 1, -1
    ):  # in epochs that a training of three never comes to
        index = sampler.batch(*divmod(number, PER_EPOCH))
        batch = DATA.collate([DATA[int(i)] for i in index])
        batch |= {"cell": torch.from_numpy(CELLS[index]), "identity": torch.from_numpy(IDENTITIES[index])}
        plain.zero_grad()
        plain.step(ImageViews()(batch, Address(5, 3, number)))[0].backward()  # type: ignore[no-untyped-call]
        for name, parameter in plain.named_parameters():
            assert parameter.grad is not None
            first, second = moments[name]
            moments[name] = 0.9 * first + 0.1 * parameter.grad, 0.999 * second + 0.001 * parameter.grad**2
    return moments


def test_a_warm_start_gathers_the_moments_of_a_plain_loop_and_moves_no_weight(tmp_path: Path) -> None:
    def method() -> SimCLR:
        with seeded(0, "warm start"):
            return SimCLR(ImageEncoder(small_cnn(), mean=[0.5] * 3, std=[0.25] * 3), out_dim=8)

    seen: list[int] = []

    def note(record: dict[str, Any], _: Tensor, optimizer: torch.optim.Optimizer) -> None:
        seen.append(record["step"])
        if record["step"]:
            return
        _require_same(warmed, method())  # the statistics of its batch norms among them
        expected = _by_hand(method().train(), steps=5)
        names = {parameter: name for name, parameter in warmed.named_parameters()}
        assert len(optimizer.state) == len(names)
        for parameter, state in optimizer.state.items():
            first, second = expected[names[cast(nn.Parameter, parameter)]]
            assert state["step"] == 5  # so that the correction of the bias counts them
            torch.testing.assert_close(state["exp_avg"], first)
            torch.testing.assert_close(state["exp_avg_sq"], second)
            assert state["exp_avg"].any()

    warmed = method()
    _trained(tmp_path, method=warmed, log=note, warm_start_steps=5)
    assert seen == list(range(-4, STEPS + 1))


def test_after_a_warm_start_come_the_same_batches_and_another_first_move(tmp_path: Path) -> None:
    def lines(name: str) -> dict[int, tuple[str, str]]:
        text = (tmp_path / name / "ledger-0.jsonl").read_text()
        return {one["step"]: (one["samples"], one["loss"]) for one in map(json.loads, text.splitlines())}

    samples: list[int] = []
    cold = _trained(tmp_path / "cold")
    warm = _trained(
        tmp_path / "warm", warm_start_steps=5, log=lambda record, *_: samples.append(record["samples"])
    )
    with_, without = lines("warm"), lines("cold")
    assert list(with_) == list(range(-5, STEPS))
    assert [with_[step][0] for step in range(STEPS)] == [without[step][0] for step in range(STEPS)]
    assert with_[0] == without[0]  # at the same weights
    assert with_[1] != without[1]
    assert samples == [32] * (5 + STEPS)
    assert any(not torch.equal(*pair) for pair in zip(cold.parameters(), warm.parameters(), strict=True))


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


def test_what_is_not_finite_is_named_also_where_a_name_is_no_utf_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DATA, "ids", [f"caf\udce9-{row}.png" for row in range(len(DATA))])
    with pytest.raises(NumericalError, match="the loss is nan"):
        _trained(tmp_path, method=_sick(lambda loss: loss * math.nan, first=0))
    assert "caf\\\\udce9-" in (tmp_path / "failed-step-0.json").read_text(encoding="utf-8")


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
