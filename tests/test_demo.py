from __future__ import annotations

import copy
from pathlib import Path

import numpy as np

from overtone.demo import RECIPE, SIZE
from overtone.progress import Silent
from overtone.recipe import open_data, parse, resolved
from overtone.results import evaluate_study
from overtone.study import Study, carry_out


def small() -> dict[str, object]:
    """The demo's recipe on few pictures."""
    recipe = copy.deepcopy(RECIPE)
    for name in ("data", "test"):
        recipe[name]["left"]["n"] = 64
        recipe[name]["right"]["n"] = 200
    return {**recipe, "train": {"epochs": 1, "batch_size": 32}, "threads": 1}


def test_only_the_shape_is_augmented_and_the_digit_beside_it_is_the_same_in_both_sets() -> None:
    dataset, test = open_data(parse(small()))
    assert test is not None
    assert set(dataset.labels) == {"shape", "colour", "texture", "digit"}
    assert RECIPE["views"]["region"] == [0, 0, SIZE, SIZE]
    digits = [{one[i]["image"][:, :, SIZE:].numpy().tobytes() for i in range(64)} for one in (dataset, test)]
    assert len(digits[0] & digits[1]) > 10
    assert not np.array_equal(dataset[0]["image"], test[0]["image"])


def test_a_small_twin_of_the_demo_runs_with_its_baselines_to_the_table(tmp_path: Path) -> None:
    study = Study(resolved(parse(small())), tmp_path, baselines=True)
    study.save()
    carry_out(study.jobs(), Silent(), processes=1)
    results = evaluate_study(study)
    assert results is not None
    assert "3 plain" in dict(results.linear)["texture"]
