from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from overtone.datasets import arrays
from overtone.progress import Silent
from overtone.recipe import parse, resolved
from overtone.results import columns, evaluate_study, probe_sets, write_parquet
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


def test_table_verdict_figures_and_picture_are_written(study: Study) -> None:
    results = evaluate_study(study)
    assert results is not None
    table = (study.folder / "table.md").read_text()
    assert table.count("|  | shape | colour | texture |") == 2
    assert all(f"- {sentence}" in table for sentence in results.sentences)
    figures = json.loads((study.folder / "results.json").read_text())["linear"]
    (one,) = (f for f in figures if (f["attribute"], f["column"]) == ("colour", "stages 0-1"))
    assert [one["mean"]] == dict(results.linear)["colour"]["stages 0-1"]
    with Image.open(study.folder / "cells.png") as picture:
        assert min(picture.size) > 32


def test_without_baselines_or_later_stages_there_are_fewer_columns() -> None:
    assert list(columns(Path(), 1, False)) == ["stage 0"]
    assert list(columns(Path(), 1, True)) == ["random weights", "stage 0"]
    assert list(columns(Path(), 2, False)) == ["stage 0", "stage 1", "stages 0-1"]


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
