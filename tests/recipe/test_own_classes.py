"""A recipe may name a class of the user's as its encoder, of any number of channels and any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from overtone import multistage
from overtone.encoders import build_encoder
from overtone.errors import RecipeError, RunError
from overtone.integration import load
from overtone.recipe import build_parts, open_data, own_module, parse, resolved

OWN = """
from torch import nn

class Grey(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Flatten(), nn.Linear(1 * 12 * 20, width))
"""


def test_an_own_class_trains_and_its_run_loads_with_a_new_module_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_grey_network.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    np.save(tmp_path / "grey.npy", np.random.default_rng(0).integers(0, 256, (48, 12, 20), np.uint8))
    values = {
        "data": {"source": "arrays", "images": str(tmp_path / "grey.npy")},
        "encoder": {"name": "own_grey_network:Grey", "width": 7},
        "train": {"epochs": 1, "batch_size": 16},
        "stages": 1,
        "loggers": [],
    }
    recipe = resolved(parse(values))
    multistage.run(build_parts(recipe, *open_data(recipe)), tmp_path / "run")
    joint = load(tmp_path / "run", encoder=own_module(recipe))
    assert joint.encode(np.zeros((3, 12, 20, 1), np.uint8)).shape == (3, 7)
    with pytest.raises(RunError, match="pass the module"):
        load(tmp_path / "run")


def test_an_own_class_whose_module_is_broken_ends_in_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_broken_network.py").write_text("class Broken(:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        RecipeError, match=r"encoder\.name: 'own_broken_network:Broken' cannot be imported: SyntaxError"
    ):
        build_encoder("own_broken_network:Broken", trust=True)
