from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from processes import finished, start
from tiny import Flat
from torch import Tensor, nn

from overtone import distributed
from overtone.contracts import Batch, Ids
from overtone.encoders import TwoTowerEncoder, WordBag
from overtone.errors import ProcessError
from overtone.gradients import gradients_of
from overtone.integration import Distillation
from overtone.methods import BYOL, CLIP, MoCo, MoCoV3, SigLIP, SimCLR, SupCon
from overtone.objectives import DCL, IFM, AdaptiveTemperature, HardNegatives, NTXent, nt_xent

SAMPLES, CPU = 12, torch.device("cpu")


class Learned(nn.Module):
    """NT-Xent at a temperature that is trained, as CLIP's is."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, rows: Tensor, columns: Tensor, positive: Tensor, row: Ids, column: Ids) -> Tensor:
        return nt_xent(rows, columns, positive, row, column, 1 / self.logit_scale.exp())


class Pixels(nn.Module):
    """A linear image tower."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)

    def forward(self, batch: Batch) -> Tensor:
        found: Tensor = self.layer(batch["image"])
        return found


OBJECTIVES: dict[str, Callable[[], object]] = {
    "nt_xent": lambda: NTXent(0.3),
    "dcl": lambda: DCL(0.3),
    "ifm": lambda: IFM(0.3, 0.1),
    "hard_negatives": lambda: HardNegatives(0.3, beta=2.0, tau_plus=0.1),
    "adaptive_temperature": lambda: AdaptiveTemperature(heads=2, out_dim=4),
    "learned": Learned,
}


def methods() -> Iterator[tuple[str, nn.Module]]:
    for name, objective in OBJECTIVES.items():
        torch.manual_seed(0)
        yield name, SimCLR(Flat(), objective=objective(), out_dim=4, norm="none").double()  # type: ignore[arg-type]
    torch.manual_seed(0)
    student = nn.Module()
    student.stages, student.projection = nn.ModuleList([Flat()]), nn.Linear(6, 3)
    student.forward = lambda batch: student.projection(student.stages[0](batch))  # type: ignore[operator, index]
    torch.manual_seed(0)
    yield "clip", CLIP(TwoTowerEncoder(Pixels(), WordBag(64, 4), width=4).double())
    torch.manual_seed(0)
    yield "siglip", SigLIP(TwoTowerEncoder(Pixels(), WordBag(64, 4), width=4)).double()
    torch.manual_seed(0)
    moco = MoCo(Flat(), queue=5, out_dim=4, norm="none").double()
    moco.queue.push(torch.randn(4, 4), Ids(torch.arange(4) % 2, torch.arange(4)))
    yield "moco", moco
    torch.manual_seed(0)
    yield "moco_v3", MoCoV3(Flat(), out_dim=4, norm="none").double()
    torch.manual_seed(0)
    yield "byol", BYOL(Flat(), out_dim=4, norm="none").double()
    torch.manual_seed(0)
    yield "supcon", SupCon(Flat(), out_dim=4, norm="none").double()
    torch.manual_seed(0)
    yield "distillation", Distillation(student, lambda batch: batch["series"][:, :3]).double()  # type: ignore[arg-type]


def views(part: slice = slice(None)) -> list[Batch]:
    draw = torch.Generator().manual_seed(1)
    index = torch.arange(SAMPLES)
    ids = {"index": index, "cell": index % 3 // 2, "identity": torch.where(index == 7, 0, index)}
    ids["label"] = index % 5 - 1
    whole: list[Batch] = [
        {**ids, "series": torch.randn(SAMPLES, 5, generator=draw).double()} for _ in range(2)
    ]
    whole[0]["image"] = torch.randn(SAMPLES, 5, generator=draw).double()
    whole[1]["text"] = [f"a picture of {i} dots" for i in range(SAMPLES)]
    return [{name: value[part] for name, value in view.items()} for view in whole]


def learned(part: slice, micro_batch_size: int | None = None) -> dict[str, dict[str, Tensor]]:
    found = {}
    for name, method in methods():
        if micro_batch_size is not None and not hasattr(method, "project"):
            continue
        loss, _ = gradients_of(method, "fp32", CPU, micro_batch_size)(views(part))
        found[name] = {"loss": loss} | {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    return found


WORK = """
import sys, torch
import test_distributed as here
from overtone import distributed

with distributed.joined():
    each = here.SAMPLES // distributed.world_size()
    part = slice(distributed.rank() * each, (distributed.rank() + 1) * each)
    found = {"at once": here.learned(part), "in parts": here.learned(part, 3)}
    for way in found.values():
        for name in way:
            way[name]["loss"] = torch.tensor(distributed.mean(float(way[name]["loss"])), dtype=torch.float64)
    torch.save(found, f"{sys.argv[1]}/{distributed.rank()}.pt")
"""


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_loss_and_gradients_of_every_objective_are_those_of_one_process(
    tmp_path: Path, world_size: int
) -> None:
    for code, output in finished(start(world_size, WORK, tmp_path)):
        assert code == 0, output
    alone = learned(slice(None))
    for rank in range(world_size):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for way, objectives in found.items():
            for name, values in objectives.items():
                assert values.keys() == alone[name].keys()
                for key, value in values.items():
                    torch.testing.assert_close(
                        value, alone[name][key], rtol=1e-10, atol=1e-12, msg=f"{way} {name} {key}"
                    )


def test_the_batch_of_the_test_has_negatives_in_other_processes() -> None:
    cell = views()[0]["cell"]
    assert set(cell[:4].tolist()) == set(cell[4:8].tolist()) == {0, 1}


FAILS = """
import sys
from overtone import distributed
from overtone.errors import DataError

try:
    with distributed.joined(), distributed.together():
        if distributed.rank() == 1:
            raise DataError("a picture is gone")
except Exception as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_an_error_on_one_process_is_an_error_on_all() -> None:
    first, second = finished(start(2, FAILS))
    assert (first[0], second[0]) == (3, 3)
    assert "process 1: a picture is gone" in first[1]
    assert second[1].strip().endswith("a picture is gone")


GOES = """
import os, signal, sys
from overtone import distributed
from overtone.errors import DataError

os.environ["OVERTONE_TIMEOUT"], distributed._GRACE = "2", 1.0
try:
    with distributed.joined():
        distributed.largest([0.0])
        if distributed.rank() == 1 and sys.argv[1] == "ends":
            raise DataError("a picture is gone")
        if distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        with distributed.together():  # in which the others wait for as long as it takes
            pass
except Exception as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.slow
def test_a_process_that_ends_by_itself_is_named_to_the_others_with_its_reason() -> None:
    first, second = finished(start(2, GOES, "ends"))
    assert (first[0], second[0]) == (7, 3)
    assert "process 1 of 2 ended: a picture is gone (" in first[1]


@pytest.mark.slow
def test_nobody_waits_for_a_frozen_process_even_where_they_wait_for_as_long_as_it_takes() -> None:
    first, second = start(2, GOES, "freezes")
    (code, said), *_ = finished([first])
    second.kill()
    assert code == 7
    assert "process 1 of 2 has given no sign of life for 3 s" in said


def test_only_the_errors_of_connections_are_taken_for_lost_processes() -> None:
    gloo = RuntimeError("[../gloo/tcp/pair.cc:1] Connection closed by peer [127.0.0.1]. Check the logs.\n")
    complaint = r"\(Connection closed by peer \[127\.0\.0\.1\]\)\. The last checkpoint is kept"
    with pytest.raises(ProcessError, match=complaint), distributed.lost_processes():
        raise gloo
    with pytest.raises(RuntimeError, match="restore"), distributed.lost_processes():
        raise RuntimeError("cannot restore: the connection to the store timed out")


IN_TURN = """
import sys, time
from pathlib import Path
from overtone import distributed

def make():
    place = Path(sys.argv[1]) / "made"
    if place.exists():
        return "found"
    time.sleep(0.3)
    place.touch()
    return "made"

with distributed.joined():
    print(distributed.in_turn(make))
"""


def test_what_the_first_process_makes_the_others_find_made(tmp_path: Path) -> None:
    first, second = finished(start(2, IN_TURN, tmp_path))
    assert first[1].strip().endswith("made")
    assert second[1].strip().endswith("found")


@pytest.mark.parametrize("n", [0, 1, 511, 512, 513, 2000, 5000])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_shares_cover_every_row_once_and_begin_at_multiples(
    monkeypatch: pytest.MonkeyPatch, n: int, world_size: int
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: world_size)
    rows: list[int] = []
    for number in range(world_size):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        own = distributed.own_share(n, 512)
        assert not len(own) or own.start % 512 == 0
        rows += own
    assert rows == list(range(n))
