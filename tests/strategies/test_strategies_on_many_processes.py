"""Every strategy on two processes, against the same step on one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from processes import finished, start
from tiny import Flat
from torch import Tensor, nn

from overtone.contracts import Address, Batch
from overtone.datasets import netlists
from overtone.encoders import ImageTableEncoder, PatchTowers, SeriesTransformer, build_encoder
from overtone.gradients import gradients_of
from overtone.rng import generator
from overtone.strategies import (
    CACR,
    DNABERTS,
    INS,
    STRATEGIES,
    TIP,
    CircuitGCL,
    ConVIRT,
    MoCHi,
    RadZero,
    SepCLR,
    TimeDRL,
)
from overtone.views import ImageTableViews

SAMPLES, SENTENCES = 8, 2


def _after_warm_up() -> nn.Module:
    method = INS(Flat(), warm_up=1, queue=16, samples=SAMPLES, out_dim=4)
    method.begin_step(1, 1, 2)
    return method


# Where a step draws at random each process draws for itself, so what is drawn is left out here: one hardest
# negative can only be mixed with itself, and tables are not matched with false pictures.
METHODS: dict[str, Callable[[], nn.Module]] = {
    "cacr": lambda: CACR(Flat(), out_dim=4),
    "circuitgcl": lambda: CircuitGCL(build_encoder("gcn", channels=8, width=6, dropout=0.0)),
    "convirt": lambda: ConVIRT(build_encoder("small_clip", width=8), out_dim=4),  # type: ignore[arg-type]
    "dnabert_s": lambda: DNABERTS(build_encoder("sequence_transformer", dropout=0.0), out_dim=4),
    "ins": _after_warm_up,
    "mochi": lambda: MoCHi(Flat(), hard=1, pairs=2, with_query=0, queue=4, out_dim=4),
    "radzero": lambda: RadZero(PatchTowers(width=8)),
    "sepclr": lambda: SepCLR(Flat(), out_dim=3),
    "timedrl": lambda: TimeDRL(SeriesTransformer(1, dim=8, layers=1, heads=2, dropout=0.0), dropout=0.0),
    "tip": lambda: TIP(ImageTableEncoder(levels=[3, 2], quantities=1, width=8), match=0, out_dim=4),
}


def views(name: str, part: slice) -> list[Batch]:
    """Those of a strategy, of some of eight samples in two cells, of which two are one identity."""
    draw, index = generator(0, "many", name), torch.arange(SAMPLES)
    ids = {"index": index, "cell": index % 4 // 3, "identity": torch.where(index == 6, 0, index)}
    labels = {"target": index % 2, "bag_positive": (index % 3 > 0).long()}
    shape = (SAMPLES, 40, 1) if name == "timedrl" else (SAMPLES, 5)
    series = [torch.randn(shape, generator=draw) for _ in range(2)]
    images = torch.rand(SAMPLES, 3, 16, 16, generator=draw)
    if name in ("convirt", "radzero"):
        each = 1 if name == "convirt" else SENTENCES
        said = torch.arange(SAMPLES * each).view(SAMPLES, each) % 13
        text = [f"{n} dots and {n * 7} lines" for n in said[part].flatten().tolist()]
        own = _cut(ids, part)
        return [own | {"image": images[part]}, own | {"text": text, "sentence": said[part]}]
    if name == "circuitgcl":
        dataset = netlists(SAMPLES)
        return [_cut(dataset.collate([dataset[i] for i in range(SAMPLES)]) | ids, part)]
    if name == "dnabert_s":
        drawn = [torch.randint(4, (SAMPLES, 30), generator=draw) for _ in range(2)]
        return [_cut(ids | {"sequence": each}, part) for each in drawn]
    if name == "tip":
        table = {"table": torch.randint(2, (SAMPLES, 3), generator=draw).float()}
        whole = ids | table | {"image": images, "known": torch.rand(SAMPLES, 3, generator=draw) < 0.7}
        return [_cut(view, part) for view in ImageTableViews()(whole, Address(0, 0, 0))]
    length = 17 + 3 * index
    return [_cut(ids | labels | {"series": each, "length": length}, part) for each in series]


def _cut(batch: Batch, part: slice) -> Batch:
    return {key: value[part] for key, value in batch.items()}


def learned(part: slice) -> dict[str, dict[str, Tensor]]:
    """Strategy -> the loss of a second step and its gradients, so that queues are filled."""
    found = {}
    for name, make in METHODS.items():
        torch.manual_seed(0)
        method = make().eval()  # batch norms as they begin: their statistics are those of a process
        for _ in range(2):
            method.zero_grad()
            loss, _ = gradients_of(method, "fp32", torch.device("cpu"))(views(name, part))
        found[name] = {"loss": loss} | {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    return found


WORK = """
import sys, torch
import strategies.test_strategies_on_many_processes as here
from overtone import distributed

with distributed.joined():
    each = here.SAMPLES // distributed.world_size()
    found = here.learned(slice(distributed.rank() * each, (distributed.rank() + 1) * each))
    for values in found.values():
        values["loss"] = torch.tensor(distributed.mean(float(values["loss"])))
    torch.save(found, f"{sys.argv[1]}/{distributed.rank()}.pt")
"""


def test_all_are_here() -> None:
    assert METHODS.keys() == STRATEGIES.keys()


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each of two processes learned."""
    folder = tmp_path_factory.mktemp("apart")
    for code, output in finished(start(2, WORK, folder)):
        assert code == 0, output
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def together() -> dict[str, dict[str, Tensor]]:
    return learned(slice(None))


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_loss_and_gradients_are_those_of_one_process(
    name: str, apart: list[dict[str, dict[str, Tensor]]], together: dict[str, dict[str, Tensor]]
) -> None:
    expected = together[name]
    assert any(value.abs().max() > 1e-4 for key, value in expected.items() if key != "loss")
    for found in apart:
        assert found[name].keys() == expected.keys()
        for key, value in found[name].items():
            torch.testing.assert_close(value.to(expected[key]), expected[key], rtol=1e-4, atol=1e-6, msg=key)
