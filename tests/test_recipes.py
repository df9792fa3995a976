from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from command import Run
from layouts import png, write_parquet
from test_cli import write_pictures

from overtone.recipe import read

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
    "captioned_scenes.yaml": ("data.n=64", "test.n=64", "test.start=64", "train.batch_size=16"),
    "folder.yaml": ("data.root=pictures", "data.image_size=16"),
    "twemoji.yaml": ("data.path=emoji.parquet",),
}


@pytest.mark.parametrize("name", sorted(TINY))
def test_a_small_twin_of_the_recipe_runs_to_its_table(
    name: str, tmp_path: Path, overtone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures", classes=True, n=66)
    emoji: dict[str, list[object]] = {"image": [png(i) for i in range(66)]}
    emoji |= {"caption": [f"red {i}" for i in range(66)], "category": [f"{i % 2}" for i in range(66)]}
    write_parquet(tmp_path / "emoji.parquet", emoji)
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


def test_the_recipes_of_the_paper_are_valid_and_train_what_it_trained() -> None:
    for name in ("clip_vit_l14_cc12m.yaml", "clip_rn50_cc12m.yaml"):
        given, *later = read(RECIPES / name).stage_specs()
        assert given.epochs == 0
        for spec in later:
            assert (spec.batch_size, spec.epochs, spec.n_clusters) == (8000, 20, 10)
            assert (spec.cells, spec.cells_per_batch, spec.init) == ("intersect", 1, "base")
            assert round(spec.warmup_epochs * (10_970_000 // 8000)) == pytest.approx(600, abs=5)


def test_the_last_six_groups_of_the_image_tower_are_those_that_open_clip_unlocks() -> None:
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
    patterns = read(RECIPES / "clip_vit_l14_cc12m.yaml").stage_specs()[1].trainable
    sizes = {"layers": 24, "width": 8, "head_width": 4, "patch_size": 4, "image_size": 8}
    visual = open_clip.model.CLIP(8, sizes, {"width": 8, "heads": 1, "layers": 1}).visual
    visual.lock(unlocked_groups=6)
    expected = {f"image_tower.backbone.{n}" for n, p in visual.named_parameters() if p.requires_grad}
    names = [f"image_tower.backbone.{n}" for n, _ in visual.named_parameters()]
    assert {n for n in names if any(fnmatchcase(n, pattern) for pattern in patterns)} == expected
