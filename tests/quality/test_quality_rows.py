"""The scripts of the benchmark on a few drawn pictures, so that they cannot rot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import run
import table
from ablation import VARIANTS
from planted import write_stand_ins
from rows import RIVALS, ROWS, TINY

from overtone.contracts import Address
from overtone.recipe import build_parts, open_data


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished row."""
    folder = tmp_path_factory.mktemp("quality")
    run.main(smoke("laid-on", folder))
    return folder


def smoke(row: str, folder: Path) -> list[str]:
    short = "--smoke --data nowhere --seeds 2 --jobs 1 --without rivals"
    return [row, *short.split(), "--out", str(folder / row)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in for the data sets."""
    folder = tmp_path_factory.mktemp("data")
    write_stand_ins(folder, TINY)
    return folder


@pytest.mark.parametrize("row", ROWS)
def test_the_data_and_views_of_every_row_fit_its_recipes_and_labels_its_aims(row: str, data: Path) -> None:
    options = run.asked([row, "--smoke", "--data", str(data)])
    others = dict(run.beside(options, 0))
    assert {f"{name}-2" for name in RIVALS} <= set(others)
    for later in VARIANTS.values():
        assert len(run.recipe(options, {**ROWS[row].recipe, "stages": [{}, *later]}, 0).stage_specs()) == 3
    assert ("oracle-2" in others) == (ROWS[row].oracle is not None)
    recipe = run.recipe(options, ROWS[row].recipe, 0)
    for one in (recipe, others.get("oracle-0", recipe)):
        dataset, test = open_data(one, cache_dir=data / "cache")
        assert test is not None
        parts = build_parts(one, dataset, test)
        views = parts.views(dataset.collate([dataset[i] for i in range(4)]), Address(0, 0, 0))
        assert [view["image"].shape for view in views] == 2 * [(4, *dataset[0]["image"].shape)]
    labels = open_data(recipe, cache_dir=data / "cache")[0].labels
    assert {aim.attribute for aim in ROWS[row].aims} <= {*labels}


def test_a_row_tells_every_column_of_every_seed_with_its_cost(out: Path) -> None:
    found = json.loads((out / "laid-on" / "results.json").read_text())
    assert set(found["scores"]) == {"class", "digit"}
    for column in ("random weights", "stages 0-2", "3 plain", "1 plain, as long", "paper 0-2", "3 oracle"):
        assert len(found["scores"]["class"][column]) == 2
    images = {name: cost["images"] for name, cost in found["costs"].items()}
    assert images["random"] == [0, 0]
    assert images["result"] == images["long"] == [3 * 224, 3 * 224]  # 7 batches of 32 an epoch
    assert images["plain-1"] == images["oracle-2"] == [224, 224]
    assert all(second > 0 for cost in found["costs"].values() for second in cost["seconds"])


def test_a_finished_row_is_not_trained_again_and_ends_in_the_same_figures(out: Path) -> None:
    weights = sorted(out.rglob("*.safetensors"))
    before = [(place.read_bytes(), place.stat().st_mtime_ns) for place in weights]
    scores = json.loads((out / "laid-on" / "results.json").read_text())["scores"]
    run.main(smoke("laid-on", out))
    assert [(place.read_bytes(), place.stat().st_mtime_ns) for place in weights] == before
    assert json.loads((out / "laid-on" / "results.json").read_text())["scores"] == scores


def test_all_finished_rows_come_together_in_one_table_and_one_file(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.main(["--out", str(out)])
    text = (out / "table.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    header, _, *lines = text.splitlines()
    assert all(line.count("|") == header.count("|") for line in lines[:2])
    assert "- class: " in text
    assert set(json.loads((out / "table.json").read_text())) == {"laid-on"}


@pytest.mark.parametrize("arguments", ["laid-on --seeds 1", "laid-on --best", "unknown"])
def test_what_cannot_be_asked_ends_in_a_message(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.asked(arguments.split())
    assert ended.value.code == 2
    assert (
        "expected 2 or more" in (said := capsys.readouterr().err) or "no setting" in said or "choice" in said
    )
