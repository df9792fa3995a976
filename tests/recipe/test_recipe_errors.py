from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from overtone.errors import RecipeError
from overtone.objectives import IFM
from overtone.recipe import build_parts, open_data, parse, read, resolved, to_yaml
from overtone.recipe.components import with_absolute_paths
from overtone.recipe.origin import override

DATA = "data: {source: trifeature, n: 96, image_size: 16}\n"
BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    path = tmp_path / "r.yaml"
    path.write_bytes(text.encode())
    with pytest.raises(RecipeError) as caught:
        read(path, overrides)
    return str(caught.value).replace(str(path), "r.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DATA + "sede: 1\n", "r.yaml:2 sede: unknown field; did you mean `seed`?"),
        (DATA + "epochs: 1\n", "r.yaml:2 epochs: unknown field; did you mean `train.epochs`?"),
        (
            DATA + "train:\n  bach_size: 3\n",
            "r.yaml:3 train.bach_size: unknown field; did you mean `batch_size`?",
        ),
        (
            DATA + "train:\n  batch_size: big\n",
            "r.yaml:3 train.batch_size: 'big': input should be a valid integer",
        ),
        (DATA + "train: {batch_size: 1}\n", "r.yaml:2 train.batch_size: 1, expected at least 2"),
        (
            DATA + "train:\n  init: base\n  drift: {kep: 0.9}\n",
            "r.yaml:4 train.drift.kep: unknown field; did you mean `keep`?",
        ),
        (
            DATA + "train: {optimizer: sgd, optimizer_warm_start_steps: 9}\n",
            "r.yaml:2 train.optimizer_warm_start_steps: 9, expected 0 or more, and 0 unless optimizer: adamw",
        ),
        (
            DATA + "stages:\n- {}\n- {cellsize: 9}\n",
            "r.yaml:4 stages[1].cellsize: unknown field; did you mean `cell_s",
        ),
        (DATA + "stages:\n- {}\n- {lr: .nan}\n", "r.yaml:4 stages[1].lr: nan, expected a positive number"),
        (DATA + "stages:\n- {}\n- {cell_size: 0}\n", "r.yaml:4 stages[1].cell_size: 0, expected at least 2"),
        (
            DATA + "stages:\n- {}\n- {cell_size: 9, n_clusters: 9}\n",
            "r.yaml:4 stages[1].n_clusters: 9, expected either n_clusters or",
        ),
        (DATA + "stages: [{}, 3]\n", "r.yaml:2 stages[1]: 3: input should be a valid dictionary"),
        (DATA + "stages: []\n", "r.yaml:2 stages: []: expected at least 1 stage"),
        (DATA + "stages: many\n", "r.yaml:2 stages: 'many': expected a number, auto, or a list"),
        (DATA + "stop: never\n", "r.yaml:2 stop: 'never': input should be 'auto'"),
        (DATA + "views: {name: imge}\n", "r.yaml:2 views.name: 'imge' is unknown; did you mean `image`?"),
        (
            DATA + "views: {name: image, crop_scale: 3}\n",
            "r.yaml:2 views.crop_scale: 3: expected tuple[float, float].",
        ),
        (
            "data:\n  source: composite\n  left:\n    source: trifeature\n    imagesize: 3\n",
            "r.yaml:5 data.left.imagesize: unknown field; did you mean `image_size`?",
        ),
        (
            "data: {source: composite, left: 3, right: 4}\n",
            "r.yaml:1 data.left: 3: expected a data set: `source:`",
        ),
        ("\ufeff" + DATA + "sede: 1\n", "r.yaml:2 sede"),
        (DATA + DATA, "r.yaml:2 data: stands twice, first in line 1"),
        (
            "data: !!python/object/apply:os.system [exit]\n",
            "r.yaml: not plain YAML: could not determine a constr",
        ),
        ("data:\n\tsource: x\n", "r.yaml: not plain YAML"),
        ("- 1\n", "r.yaml: holds list, expected fields"),
        ("", "r.yaml: holds NoneType, expected fields"),
        (BOMB, "r.yaml: over 10,000 fields"),
        ("a: &a [*a]\n", "r.yaml: over 10,000 fields"),
        ("[" * 5000, "r.yaml: not plain YAML"),
        ("? [1, 2]\n: 3\n", "r.yaml:1: a field's name must be a plain word"),
        (
            DATA + "views: {name: 'os:system', command: exit}\n",
            "'os:system' is no class and no Python function",
        ),
        (
            DATA + "views: {name: 'no_package:It'}\n",
            "r.yaml:2 views.name: 'no_package:It' cannot be imported",
        ),
        (DATA + "views: {name: ':It'}\n", "cannot be imported: ValueError"),
        (
            DATA + "method: {name: simclr, encoder: x}\n",
            "r.yaml:2 method.encoder: is set by the run; leave it out",
        ),
        (
            DATA + "method:\n  name: simclr\n  objective: {name: ifn}\n",
            "r.yaml:4 method.objective.name: 'ifn' is unknown; did you mean `ifm`?",
        ),
        (
            DATA + "method:\n  name: simclr\n  objective: {name: hard_negatives, tauplus: 0}\n",
            "r.yaml:4 method.objective.tauplus: unknown field; did you mean `tau_plus`?",
        ),
        (
            DATA + "method: {name: simclr, objective: ifm}\n",
            "r.yaml:2 method.objective: 'ifm': expected an objective: `name:` and its values.",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_with_file_line_and_field(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "",
            "stages[0].batch_size: 256, expected 2 to 96 (the samples)",
        ),
        (
            "train: {batch_size: 8}\nstages: [{}, {n_clusters: 97}]\n",
            "stages[1].n_clusters: 97, expected 2 to 96",
        ),
        (
            "train: {batch_size: 8}\nmethod: {name: simclr, temperature: -1}\n",
            "temperature=-1: expected a finite number",
        ),
        (
            "train: {batch_size: 8}\nmethod: {name: simclr, temperature: 0.1, objective: {name: ifm}}\n",
            "temperature=0.1: stands beside an objective, which has its own",
        ),
        ("train: {batch_size: 8}\ndevice: gpu\n", "device: 'gpu' cannot be used here"),
        ("train: {batch_size: 8}\nviews: {name: series}\n", "views.name: series, but the data hold `image`"),
        (
            "train: {batch_size: 8}\nviews: {name: 'collections:Counter'}\n",
            "made a Counter without `__call__`",
        ),
        (
            "train: {batch_size: 8}\nviews: {name: 'ast:parse', source: '('}\n",
            "views: ast:parse failed with SyntaxError",
        ),
    ],
)
def test_what_does_not_fit_the_data_or_the_machine_is_refused_by_name(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(DATA + text)
    recipe = read(path)
    dataset, test = open_data(recipe)
    with pytest.raises(RecipeError) as caught:
        build_parts(recipe, dataset, test).method(build_parts(recipe, dataset, test).encoder(0))
    assert expected in str(caught.value)


def test_the_objective_of_a_recipe_is_built_with_its_values(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(DATA + "train: {batch_size: 8}\nmethod: {name: simclr, out_dim: 8}\n")
    recipe = read(path, ["method.objective.name=ifm", "method.objective.epsilon=0.3"])
    parts = build_parts(resolved(recipe), *open_data(recipe))
    objective = parts.method(parts.encoder(0)).objective
    assert isinstance(objective, IFM)
    assert (objective.temperature, objective.epsilon) == (0.2, 0.3)


def test_an_override_that_is_wrong_is_named_by_its_key(tmp_path: Path) -> None:
    assert "'train.epochs': expected key=value" in refusal(tmp_path, DATA, "train.epochs")
    assert "there is nothing at `5`" in refusal(tmp_path, DATA + "stages: [{}]\n", "stages.5.epochs=1")
    assert "train.epochs: 'big'" in refusal(tmp_path, DATA, "train.epochs=big")
    assert "did you mean `train.epochs`" in refusal(tmp_path, DATA, "epochs=3")


def test_an_override_reaches_into_lists_and_makes_what_is_not_there() -> None:
    values: dict[str, Any] = {"stages": [{}, {"epochs": 1}]}
    override(values, "stages.1.epochs=5")
    override(values, "train.lr=1e-3")
    assert values == {"stages": [{}, {"epochs": 5}], "train": {"lr": "1e-3"}}


@pytest.mark.parametrize("preset", ["overtone", "paper", "published"])
def test_a_resolved_recipe_survives_its_own_file_with_explicit_nulls(preset: str) -> None:
    recipe = parse(
        {"preset": preset, **yaml.safe_load(DATA), "stages": [{}, {"cell_size": None, "n_clusters": 4}, {}]}
    )
    full = resolved(recipe)
    again = parse(yaml.safe_load(to_yaml(full)))
    assert again == full == resolved(again)
    assert isinstance(again.stages, list)
    assert again.stages[1]["cell_size"] is None
    assert again.train == {}


def test_paths_are_made_absolute_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pictures", "crop"):
        (tmp_path / name).mkdir()
    component = {"source": "path", "path": "pictures", "fit": "crop", "inner": {"root": "pictures"}}
    shards = {"path": ["pictures/{000..009}.tar", "*.tar", "nowhere/*.tar", "pictures/none.tar"]}
    absolute = [f"{tmp_path}/pictures/{{000..009}}.tar", f"{tmp_path}/*.tar", *shards["path"][2:]]
    assert with_absolute_paths(shards) == {"path": absolute}
    expected = {
        **component,
        "path": str(tmp_path / "pictures"),
        "inner": {"root": str(tmp_path / "pictures")},
    }
    assert with_absolute_paths(component) == expected
