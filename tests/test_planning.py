from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Run
from PIL import Image
from tiny import parts
from torch import Tensor, nn

from overtone import checkpoints
from overtone.contracts import Batch
from overtone.datasets import reading
from overtone.datasets.decoding import decoded
from overtone.encoders import build_encoder
from overtone.errors import RecipeError
from overtone.gradients import gradients_of
from overtone.methods import SimCLR
from overtone.optim import build_optimizer
from overtone.partition import Partition
from overtone.planning import Figure, Given, Plan, batches, plan, probing
from overtone.planning.probing import held
from overtone.progress import Silent
from overtone.recipe import parse, resolved
from overtone.run_folder import Parts
from overtone.sampling import CellBatchSampler
from overtone.stages import StageSpec
from overtone.study import Study, carry_out

SMALL: dict[str, Any] = {
    "data": {"source": "trifeature", "n": 100, "image_size": 16},
    "test": {"source": "trifeature", "n": 30, "start": 100, "image_size": 16},
    "train": {"epochs": 2, "batch_size": 16},
    "stages": 3,
    "threads": 1,
    "loggers": [],
}
RECIPES: dict[str, dict[str, Any]] = {
    "default": SMALL,
    "paper": {**SMALL, "preset": "paper", "train": {"epochs": 2, "batch_size": 32, "min_batch_size": None}},
    "every field that changes a file": {
        **SMALL,
        "stages": [
            {},
            {"cell_size": 20, "erase": 0.2, "optimizer": "sgd"},
            {"n_clusters": 3, "cells": "nested", "epochs": 1, "optimizer_warm_start_steps": 2},
            {"cells": "whole", "epochs": 0},
        ],
        "duplicates": "keep",
    },
}


def within(value: float, figure: Figure) -> bool:
    return figure.least <= value <= figure.most


def tensor_bytes(folder: Path) -> int:
    """Of all safetensors below a folder, without their headers, whose length is their first eight bytes."""
    total = 0
    for path in folder.rglob("*.safetensors"):
        content = path.read_bytes()
        total += len(content) - 8 - int.from_bytes(content[:8], "little")
    return total


def on_disk(folder: Path, name: str) -> int | None:
    place = folder / name
    if place.is_dir():
        return tensor_bytes(place)
    return place.stat().st_size if place.exists() else None


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_does_the_steps_and_leaves_the_files_of_its_plan_to_the_byte(name: str, tmp_path: Path) -> None:
    recipe = resolved(parse(RECIPES[name]))
    found = plan(recipe)
    study = Study(recipe, tmp_path)
    study.save()
    carry_out(study.jobs(), Silent(), processes=1)

    for number, stage in enumerate(found.stages):
        ledger = tmp_path / f"stage-{number}" / "ledger-0.jsonl"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        assert within(len(lines), stage.steps), number
        assert stage.steps.how == "exact" or (name == "paper" and number)

    written = {**found.beside, **{k: f for stage in found.stages for k, f in stage.written.items()}}
    for file, figure in written.items():
        if "ledger" in file:
            size = on_disk(tmp_path, file.replace("RANK", "0")) or 0
            assert 0.9 * figure.least <= size <= 1.1 * figure.most
        else:
            assert within(on_disk(tmp_path, file) or 0, figure), file
    arrays = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.npy")}
    assert arrays <= set(written), "a file that the plan forgot"


def test_what_follows_from_recipe_and_samples_alone_is_called_exact_and_the_rest_a_range() -> None:
    found = plan(parse(RECIPES["every field that changes a file"]))
    how = {file.partition("/")[2]: figure.how for file, figure in found.stages[1].written.items()}
    assert how == {
        "partition/pseudo_labels.npy": "exact",
        "partition/order.npy": "exact",
        "partition/offsets.npy": "range",  # there may be fewer cells than were asked for
        "partition/cluster_labels.npy": "exact",
        "erasing/marked.npy": "exact",
        "saliency/saliency.npy": "range",  # which the next stage asks for where it finds it of use
        "encoder": "exact",
        "embeddings/train.npy": "exact",
        "embeddings/test.npy": "exact",
        "ledger-RANK.jsonl": "estimate",
    }
    assert [stage.steps for stage in found.stages] == [Figure.exact(n) for n in (12, 12, 6 + 2, 0)]
    assert found.stages[2].samples == Figure.exact(8 * 16)


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize(("size", "least"), [(12, None), (12, 2), (12, 12), (6, 5)])
def test_whatever_the_cells_are_a_sampler_stays_within_the_planned_batches(
    size: int, least: int | None, world_size: int
) -> None:
    draw, tried = np.random.default_rng(0), 0
    for _ in range(200):
        partition = Partition(np.sort(draw.integers(0, draw.integers(1, 9), 100) ** draw.integers(1, 3)))
        spec = StageSpec(epochs=1, batch_size=size, cells_per_batch=1, min_batch_size=least)
        try:
            sampler = CellBatchSampler(
                partition, size, cells_per_batch=1, min_batch_size=least, world_size=world_size
            )
        except RecipeError:
            continue
        per_epoch, samples = batches(spec, 100, (1, partition.n_cells), world_size)
        assert within(len(sampler), per_epoch)
        assert within(sampler.coverage().samples_used, samples)
        tried += 1
    assert tried > 100


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("trainable", ["all", "last:1"])
def test_weights_gradients_and_optimiser_are_those_of_a_step_and_a_checkpoint_holds_what_is_said(
    optimizer: str, trainable: str, tmp_path: Path
) -> None:
    made, spec = parts(), StageSpec(epochs=1, batch_size=8, optimizer=optimizer, trainable=trainable)  # type: ignore[arg-type]
    found = held(made, spec)
    _, method, _ = probing._built(made, spec)
    stepping = build_optimizer(method, name=optimizer, lr=0.1, weight_decay=0.0)
    gradients_of(method, "fp32", torch.device("cpu"))(probing._views(made, 8))
    stepping.step()
    state = [value for entry in stepping.state.values() for value in entry.values()]
    assert found.weights == sum(t.nbytes for t in [*method.parameters(), *method.buffers()])
    assert found.gradients == sum(p.grad.nbytes for p in method.parameters() if p.grad is not None)
    assert found.optimizer == sum(t.nbytes for t in state if isinstance(t, Tensor))
    checkpoints.save(tmp_path, 1, method, stepping, {})
    assert tensor_bytes(tmp_path) == found.method + found.optimizer


class Wide(nn.Module):
    """Two linear layers and a dense loss: what autograd keeps of it can be counted by hand."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 50), nn.ReLU(), nn.Linear(50, 7))

    def step(self, views: list[Batch]) -> tuple[Tensor, Tensor]:
        first, second = (self.encoder(view["image"]) for view in views)
        return (first @ second.T).exp().sum(), first


def test_what_a_forward_pass_keeps_is_what_one_counts_by_hand_at_any_batch() -> None:
    made: Parts = parts(method=Wide)
    found = held(made, StageSpec(epochs=1, batch_size=8))
    # Of each view 50 numbers behind the ReLU and 7 embeddings a sample; of each pair its exp.
    assert found.activations == (0.0, 4 * 2 * (50 + 7), 4.0)
    assert found.kept(100, 400) == 4 * (100 * 2 * 57 + 100 * 400)
    assert (found.dim, found.batch) == (128, 3 * 16 * 16 + 8 + 2 * (4 * 3 * 16 * 16 + 8))


@pytest.mark.parametrize("micro", [None, 16])
def test_small_batches_tell_what_a_large_one_keeps(micro: int | None) -> None:
    made = parts(
        encoder=lambda stage: build_encoder("timm:vit_tiny_patch16_224", image_size=16, channels=3),
        method=lambda encoder: SimCLR(encoder, out_dim=16, norm="none"),
    )
    spec = StageSpec(epochs=1, batch_size=64, micro_batch_size=micro)
    rows = micro or 64
    _, method, _ = probing._built(made, spec)
    kept = probing._forward(made, method, micro is not None, rows).total
    assert held(made, spec).kept(rows, rows) == pytest.approx(kept, rel=0.01)


def test_processes_divide_the_batch_and_each_checks_what_the_first_made() -> None:
    one, four = (plan(parse({**SMALL, "stages": 2}), world) for world in (1, 4))
    assert [stage.steps for stage in one.stages] == [stage.steps for stage in four.stages]
    whole, quarter = (found.stages[0].training for found in (one, four))
    assert whole["batch and views"].most == 4 * quarter["batch and views"].most
    assert whole["weights"] == quarter["weights"]
    assert four.stages[1].read["cells, checked by each process"].most > 3 * 100 * (8 + 4 + 4)
    split = plan(parse({**SMALL, "shard": True}), 4).stages[0].training
    assert split["weights"] == Figure.estimate(-(-whole["weights"].most // 4))


def test_time_follows_from_samples_a_second_and_bytes_a_second() -> None:
    given = Given(samples_per_second=10, bytes_per_second=1000)
    stage = plan(parse({**SMALL, "stages": 1}), 2, given).stages[0]
    moved = sum(figure.most for figure in [*stage.read.values(), *stage.written.values()])
    assert {what: figure.most for what, figure in stage.seconds.items()} == pytest.approx(
        {"training": 192 / 20, "embedding": 130 / 60, "reading and writing": moved / 1000}
    )
    assert {figure.how for figure in stage.seconds.values()} == {"estimate"}
    assert plan(parse({**SMALL, "stages": 1}), 2).stages[0].seconds == {}


def test_a_short_calibration_measures_what_is_not_given() -> None:
    found = plan(parse({**SMALL, "stages": 1}), 1, Given(calibrate=True))
    assert found.stages[0].seconds["training"].most > found.stages[0].seconds["embedding"].most > 0
    assert any("measured here" in sentence for sentence in found.said)


def test_pictures_are_counted_and_only_a_few_of_them_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(90):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / f"{number}.png")
    seen = []

    def counted(*given: Any) -> Any:
        seen.append(given)
        return decoded(*given)

    monkeypatch.setattr(reading, "decoded", counted)
    recipe = {"data": {"source": "folder", "root": str(tmp_path), "image_size": 16, "limit": 80}}
    found = plan(parse({**recipe, "train": {"batch_size": 16}, "stages": 1}))
    assert found.samples == 80
    assert found.stages[0].steps == Figure.exact(5 * 20)
    assert len(seen) <= 20
    mean = np.mean([path.stat().st_size for path in tmp_path.glob("*.png")])
    assert found.stages[0].read["data, first pass"].most == pytest.approx(80 * mean, rel=0.05)


def planned_for(n: int, **changes: Any) -> Plan:
    data = {"source": "webdataset", "path": "far.tar", "image_size": 32, "cache": "none"}
    recipe = {"data": data, "stages": 2, **changes}
    return plan(parse(recipe), 8, Given(samples=n, bytes_per_sample=1e4))


def test_data_that_are_not_here_can_be_planned_for() -> None:
    found = planned_for(400_000_000, train={"batch_size": 32768, "epochs": 1})
    assert found.stages[0].steps == Figure.exact(400_000_000 // 32768)
    assert found.stages[0].written["stage-0/embeddings/train.npy"] == Figure.exact(128 + 4e8 * 128 * 4)
    assert found.stages[0].read["data, first pass"].most == 8 * 4e12  # each process judges what it can read
    two = planned_for(
        10**6, encoder={"name": "small_clip"}, views={"name": "image_text"}, method={"name": "clip"}
    )
    assert two.stages[0].steps.how == "exact"


def test_the_run_may_end_before_stages_that_it_decides_on_itself() -> None:
    found = plan(parse({**SMALL, "stages": "auto"}))
    assert [stage.steps for stage in found.stages] == [Figure.exact(12), *[Figure.within(0, 12)] * 5]


def write_recipe(folder: Path, **changes: Any) -> str:
    (folder / "recipe.yaml").write_text(json.dumps({**SMALL, **changes}))
    return str(folder / "recipe.yaml")


def test_the_command_prints_a_table_or_json(tmp_path: Path, overtone: Run) -> None:
    recipe = write_recipe(tmp_path)
    code, out, _ = overtone("plan", recipe, "stages=2", "--world-size", "4", "--samples-per-second", "100")
    assert code == 0
    assert "2 stages, 4 processes" in out
    assert "Memory of each process, at most" in out
    assert re.search(r"stage 1 +12 +192 ", out)
    assert "100 in training (given), 300 in embedding (three times that)" in out
    code, out, _ = overtone("plan", recipe, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["stages"][0]["steps"] == {"least": 12, "most": 12, "how": "exact"}
    assert found["totals"]["steps"]["most"] == 36


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--world-size", "3"), "batch_size=16 cannot be cut for world_size=3: expected a multiple"),
        (("train.batch_size=101",), "batch_size: 101"),
        (("--calibrate", "--samples-per-second", "5"), "either --calibrate or --samples-per-second"),
    ],
)
def test_what_a_run_would_refuse_the_plan_refuses(
    tmp_path: Path, overtone: Run, arguments: tuple[str, ...], message: str
) -> None:
    code, _, error = overtone("plan", write_recipe(tmp_path), *arguments)
    assert code != 0
    assert message in " ".join(error.split())
    assert "Traceback" not in error


def test_pictures_that_are_not_here_need_a_size() -> None:
    with pytest.raises(RecipeError, match=r"data.image_size: needed with --samples"):
        plan(parse({"data": {"source": "folder", "root": "far"}}), 1, Given(samples=1000))


def test_a_recipe_that_is_not_there_is_an_error(overtone: Run) -> None:
    code, _, error = overtone("plan", "nowhere.yaml")
    assert code != 0
    assert "nowhere.yaml" in error
    assert "Traceback" not in error
