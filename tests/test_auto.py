from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import pairs_of, png, write_files, write_parquet, write_tar

from overtone import auto
from overtone.auto import recipe_for
from overtone.calibrating import Way
from overtone.errors import DataError, RecipeError
from overtone.recipe import Recipe


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """128 pictures of 50 x 70 pixels, and a machine that trains 100 samples a second."""
    monkeypatch.setattr(auto, "_fastest", lambda recipe, channels: (Way("fp32"), 100.0))
    np.save(tmp_path / "p.npy", np.zeros((128, 50, 70, 3), np.uint8))
    return tmp_path / "p.npy"


def chosen(
    data: Path, *overrides: str, minutes: float | None = None, baselines: bool = False
) -> tuple[Recipe, str]:
    lines: list[str] = []
    recipe = recipe_for(data, overrides, minutes, seeds=1, baselines=baselines, line=lines.append)
    return recipe, "\n".join(lines)


def test_pictures_are_not_enlarged_and_a_batch_is_an_eighth_of_a_small_set(pictures: Path) -> None:
    recipe, said = chosen(pictures)
    assert recipe.data["image_size"] == 48
    assert recipe.stage_specs()[0].batch_size == 16
    assert "128 images, read at 48 pixels" in said


def test_the_time_given_is_shared_by_the_stages_and_by_what_they_are_compared_with(pictures: Path) -> None:
    an_epoch = 128 / 100 / auto.SHARE
    assert chosen(pictures, minutes=2)[0].stage_specs()[2].epochs == int(120 / an_epoch / 3)
    assert chosen(pictures, minutes=2, baselines=True)[0].stage_specs()[2].epochs == int(120 / an_epoch / 8)
    assert chosen(pictures, "stages=1", minutes=2)[0].stage_specs()[0].epochs == int(120 / an_epoch)


def test_overrides_come_before_what_is_chosen_and_the_time_told_is_theirs(pictures: Path) -> None:
    recipe, said = chosen(pictures, "train.epochs=10", "stages=2", "data.image_size=32", minutes=5)
    assert [stage.epochs for stage in recipe.stage_specs()] == [10, 10]
    assert recipe.data["image_size"] == 32
    assert f"2 stages of 10 epochs at about 100 samples/s: about {20 * 128 / 85:.0f} s." in said


def test_overrides_say_where_pictures_and_texts_lie_before_the_data_are_opened(
    pictures: Path, tmp_path: Path
) -> None:
    files: list[object] = [png(n, (40, 40)) for n in range(64)]
    table = write_parquet(tmp_path / "a.parquet", {"img": files, "other": files})
    assert "64 images, read at 32 pixels" in chosen(table, "data.image=img")[1]
    members = pairs_of(64)
    said = {name.replace(".txt", ".json"): b'{"caption": "a"}' for name in members if name.endswith(".txt")}
    drawn = {name: content for name, content in members.items() if name.endswith(".png")}
    tar = write_tar(tmp_path / "a.tar", drawn | said)
    recipe, _ = chosen(tar, "data.text=json:caption")
    assert recipe.data["text"] == "json:caption"


@pytest.mark.parametrize("yes", ["true", "True", "yes"])
def test_links_are_followed_by_every_spelling_of_yes(pictures: Path, tmp_path: Path, yes: str) -> None:
    write_files(tmp_path / "elsewhere", {f"{n}.png": png(n) for n in range(64)})
    folder = write_files(tmp_path / "folder", {"own.png": png(0)})
    (folder / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert "65 images" in chosen(folder, f"data.follow_links={yes}")[1]


@pytest.mark.parametrize("wrong", ["data=5", "data.bogus=1", "data.image=5", "data", "data.image={"])
def test_a_wrong_override_of_the_data_ends_in_a_message(pictures: Path, wrong: str) -> None:
    with pytest.raises(RecipeError, match=r"data|bogus|image"):
        chosen(pictures, wrong)


def test_too_few_pictures_and_wrong_overrides_are_refused(pictures: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.zeros((63, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"63 images; expected at least 64"):
        chosen(tmp_path / "few.npy")
    with pytest.raises(RecipeError, match=r"sede: unknown field; did you mean `seed`"):
        chosen(pictures, "sede=1")


def test_the_speed_is_measured_on_the_recipe_at_hand(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((64, 40, 40, 3), np.uint8))
    recipe, said = chosen(tmp_path / "p.npy", "precision=fp32", "train.batch_size=4", minutes=0.1)
    assert recipe.precision == "fp32"
    assert "samples/s" in said
