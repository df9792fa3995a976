from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from processes import finished, start

from overtone.datasets import arrays, trifeature
from overtone.progress import Silent
from overtone.recipe import parse, resolved
from overtone.report.table import Comparison
from overtone.results import (
    ALL,
    AS_MANY,
    LONGER,
    columns,
    columns_of_seeds,
    comparison_of,
    evaluate_study,
    probe_sets,
    why_ended,
    write_parquet,
)
from overtone.run_folder import keep_end
from overtone.study import Study, carry_out


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A finished study of two stages with baselines."""
    folder = tmp_path_factory.mktemp("study")
    pictures = {"source": "trifeature", "n": 64, "image_size": 16}
    values = {
        "data": pictures,
        "test": {**pictures, "start": 64},
        "train": {"epochs": 1, "batch_size": 16},
        "stages": 2,
        "threads": 1,
    }
    made = Study(resolved(parse(values)), folder, baselines=True)
    made.save()
    carry_out(made.jobs(), Silent(), processes=1)
    return made


def test_the_table_holds_every_stage_all_together_and_what_they_are_compared_with(study: Study) -> None:
    results = evaluate_study(study)
    assert results is not None
    rows = dict(results.linear)
    assert list(rows["shape"]) == [
        "chance",
        "random weights",
        "stage 0",
        "stage 1",
        "stages 0-1",
        "2 plain",
        "1 plain, as long",
    ]
    assert all(0 <= value <= 100 for figures in rows.values() for (value,) in figures.values())
    assert results.sentences[-2] == "Probes were asked about 64 samples: the test set."


EVALUATE = """
import sys
from pathlib import Path
from overtone import distributed, results
from overtone.study import Study

read = results.read_columns
def noted(columns, *rest):
    print("read", *columns, flush=True)
    return read(columns, *rest)
results.read_columns = noted

with distributed.joined():
    found = results.evaluate_study(Study.load(Path(sys.argv[1])))
    print("found", found is not None)
"""


def test_processes_share_the_columns_out_and_find_what_one_finds(study: Study) -> None:
    evaluate_study(study)
    written = ("results.json", "table.md")
    alone = [(study.folder / name).read_bytes() for name in written]
    for name in written:
        (study.folder / name).unlink()
    (code, first), (other_code, second) = finished(start(2, EVALUATE, study.folder))
    assert (code, other_code) == (0, 0), first + second
    assert [(study.folder / name).read_bytes() for name in written] == alone
    assert (first.count("read"), second.count("read")) == (3, 3)
    assert "found True" in first
    assert "found False" in second


def test_table_verdict_figures_and_picture_are_written(study: Study) -> None:
    results = evaluate_study(study)
    assert results is not None
    table = (study.folder / "table.md").read_text()
    assert table.count("|  | shape | colour | texture |") == 2
    assert all(f"- {sentence}" in table for sentence in results.sentences)
    written = json.loads((study.folder / "results.json").read_text())
    assert written["identities"] == {"samples": 64, "copies": 0, "groups": 0, "largest": 1, "texts": 0}
    assert written["stages"][1]["coverage"]["cells_per_batch"] >= 1
    assert written["stages"][1]["erasing"]["hides"] == []
    assert written["stages"][1]["cells"]["cell_size"] > 1
    (one,) = (f for f in written["linear"] if (f["attribute"], f["column"]) == ("colour", "stages 0-1"))
    assert [one["mean"]] == dict(results.linear)["colour"]["stages 0-1"]
    with Image.open(study.folder / "cells.png") as picture:
        assert min(picture.size) > 32


def test_without_baselines_or_later_stages_there_are_fewer_columns() -> None:
    assert list(columns(Path(), 1, False)) == ["stage 0"]
    assert list(columns(Path(), 1, True)) == ["random weights", "stage 0"]
    assert list(columns(Path(), 2, False)) == ["stage 0", "stage 1", "stages 0-1"]


def test_seeds_that_stopped_at_different_stages_share_the_columns_that_all_have(tmp_path: Path) -> None:
    fields = {"data": {"source": "trifeature", "n": 40, "image_size": 16}, "stages": "auto"}
    study = Study(resolved(parse(fields)), tmp_path, seeds=3, baselines=True)
    for seed, n in enumerate((3, 1, 2)):
        (tmp_path / f"seed-{seed}").mkdir()
        keep_end(tmp_path / f"seed-{seed}", n, "enough.")
    three, one, two = columns_of_seeds(study)
    assert list(three) == list(one) == list(two)
    assert list(one) == ["random weights", "stage 0", ALL, AS_MANY, LONGER]
    assert [len(own[ALL]) for own in (three, one, two)] == [3, 1, 2]
    assert [len(own[AS_MANY]) for own in (three, one, two)] == [3, 1, 2]
    assert one[LONGER] == one["stage 0"]
    assert comparison_of(study) == Comparison(ALL, AS_MANY, LONGER)
    assert why_ended(study) == ["Seed 0: enough.", "Seed 1: enough.", "Seed 2: enough."]


def test_the_numbering_of_a_test_set_is_that_of_the_training_set() -> None:
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    train = arrays(pixels, labels={"kind": ["cat", "dog", "cat", "dog"]})
    test = arrays(pixels, labels={"kind": ["bird", "dog", "cat", "dog"]})
    assert probe_sets(train, test).test_labels["kind"].tolist() == [-1, 1, 0, 1]


def test_embeddings_become_a_table_with_their_ids(tmp_path: Path) -> None:
    embeddings = np.arange(6, dtype=np.float32).reshape(3, 2)
    write_parquet(tmp_path / "e.parquet", ["a", "b", "c"], embeddings)
    table = pq.read_table(tmp_path / "e.parquet")
    assert table.to_pylist()[1] == {"id": "b", "embedding": [2.0, 3.0]}
    assert [place.name for place in tmp_path.iterdir()] == ["e.parquet"]


def test_the_rate_of_copies_is_said_below_the_table_where_there_are_any(tmp_path: Path) -> None:
    data = {"source": "trifeature", "n": 60, "image_size": 16}
    pictures = np.stack([trifeature(60, image_size=16)[i % 57]["image"].numpy() for i in range(60)])
    np.savez(tmp_path / "copied.npz", pictures=pictures, half=np.arange(60) % 2)
    copied = {"source": "arrays", "images": str(tmp_path / "copied.npz"), "channels_last": False}
    stage = {"stages": 1, "train": {"epochs": 0, "batch_size": 16}, "threads": 1}
    said = []
    for name, source in (("without", data), ("with", copied)):
        study = Study(resolved(parse({"data": source, **stage})), tmp_path / name)
        study.save()
        carry_out(study.jobs(), Silent(), processes=1)
        results = evaluate_study(study)
        assert results is not None
        said.append([sentence for sentence in results.sentences if "copies" in sentence])
    sentence = (
        "Never negatives of each other: 5.00% of 60 samples are copies or near-copies of an earlier one"
    )
    assert said == [[], [f"{sentence} (3 groups, the largest of 2)."]]
