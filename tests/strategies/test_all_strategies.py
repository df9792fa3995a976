from __future__ import annotations

from pathlib import Path

import pytest
from command import Run

from overtone.recipe import read
from overtone.strategies import STRATEGIES

PAGES = Path(__file__).parents[2] / "docs" / "strategies"
NAMES = sorted(STRATEGIES)


@pytest.mark.parametrize("name", NAMES)
def test_its_recipe_is_valid_with_and_without_what_its_claim_rests_on(name: str) -> None:
    strategy = STRATEGIES[name]
    recipe = read(strategy.recipe)
    assert recipe.method["name"] == name
    assert recipe.most_stages() == 2
    assert read(strategy.recipe, strategy.ablation) != recipe


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_page_with_formula_picture_and_source(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert all(word in page for word in ("## Formula", "## When to use it", "## Source", f"{name}.svg"))
    assert (PAGES / "images" / f"{name}.svg").stat().st_size < 100_000


@pytest.mark.parametrize("name", NAMES)
def test_cut_short_it_trains_two_stages_to_its_table(
    name: str, tmp_path: Path, overtone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    short = ("data.n=96", "test.n=64", "train.epochs=1", "train.batch_size=32", "threads=1", "--out", "run")
    code, out, complaint = overtone("train", "--strategy", name, *short)
    assert code == 0, complaint
    assert "stages 0-1" in out
    assert STRATEGIES[name].attribute in out


def test_all_are_listed_and_another_name_is_refused_with_a_guess(overtone: Run) -> None:
    code, out, _ = overtone("strategies")
    assert code == 0
    assert all(name in out and STRATEGIES[name].line[:30] in out for name in NAMES)
    code, _, complaint = overtone("train", "--strategy", "carc")
    assert code != 0
    assert "did you mean cacr?" in complaint
