from __future__ import annotations

from pathlib import Path

import pytest
from test_cli import Run, overtone, write_pictures

__all__ = ["overtone"]

RECIPES = Path(__file__).parents[1] / "recipes"
TINY = {
    "trifeature.yaml": (
        "data.n=64",
        "test.n=64",
        "test.start=64",
        "data.image_size=16",
        "test.image_size=16",
    ),
    "tones.yaml": ("data.n=64", "test.n=64", "test.start=64"),
    "folder.yaml": ("data.root=pictures", "data.image_size=16"),
}


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_small_twin_of_the_recipe_runs_to_its_table(
    name: str, tmp_path: Path, overtone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures", classes=True, n=66)
    short = ("train.epochs=1", "train.batch_size=16", "threads=1", "--out", "run")
    code, out, complaint = overtone("train", RECIPES / name, *TINY[name], *short)
    assert code == 0, complaint
    assert "stages 0-2" in out


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_recipe_begins_with_the_command_its_cost_and_what_to_expect(name: str) -> None:
    header = [line for line in (RECIPES / name).read_text().splitlines() if line.startswith("#")]
    assert any(f"overtone train recipes/{name}" in line for line in header)
    assert any(line.startswith("# Cost: ") and "2 cores" in line for line in header)
    assert any(line.startswith("# Expect") for line in header)
