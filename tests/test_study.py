from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overtone import artifacts
from overtone.errors import OvertoneError, RunError
from overtone.progress import Silent
from overtone.recipe import Recipe, parse, resolved
from overtone.run_folder import keep_end
from overtone.study import Job, Study, baselines, carry_out, differences, run_job


def recipe(**values: Any) -> Recipe:
    fields = {
        "data": {"source": "trifeature", "n": 40, "image_size": 16},
        "train": {"batch_size": 8, "lr": 0.01},
        "stages": [{"epochs": 2}, {"epochs": 3}, {"epochs": 4}],
        "threads": 1,
    }
    return resolved(parse({**fields, **values}))


def epochs(one: Recipe) -> list[int]:
    return [stage.epochs for stage in one.stage_specs()]


def test_baselines_see_as_many_pictures_as_what_they_are_compared_with() -> None:
    main, alone = recipe(), baselines(recipe())
    assert list(alone) == ["random", "plain-1", "plain-2", "long"]
    assert epochs(alone["random"]) == [0]
    ensemble = [epochs(main)[0], *epochs(alone["plain-1"]), *epochs(alone["plain-2"])]
    assert sum(ensemble) == sum(epochs(alone["long"])) == sum(epochs(main)) == 9


def test_baselines_have_one_cell_the_same_optimiser_and_seeds_of_their_own() -> None:
    main, alone = recipe(), baselines(recipe())
    for one in alone.values():
        (stage,) = one.stage_specs()
        assert (stage.n_clusters, stage.cell_size, stage.init) == (None, None, "scratch")
        assert (stage.lr, stage.batch_size) == (0.01, 8)
    assert len({main.seed, alone["plain-1"].seed, alone["plain-2"].seed}) == 3


def test_of_a_run_that_decides_when_to_stop_the_baselines_wait_and_then_equal_it(tmp_path: Path) -> None:
    study = Study(recipe(stages="auto"), tmp_path, baselines=True)
    assert study.recipe.stop == "auto"
    assert [job.folder for job in study.jobs()] == [tmp_path]
    keep_end(tmp_path, 2, "enough.")
    beside = {job.folder.name: sum(epochs(job.recipe)) for job in study.jobs()[1:]}
    assert beside == {"long": 40, "plain-1": 20, "random": 0}


def test_random_weights_are_random_even_where_the_run_starts_from_trained_ones() -> None:
    main = recipe(encoder={"name": "torchvision:resnet18", "pretrained": True})
    assert not baselines(main)["random"].encoder["pretrained"]


def test_a_study_of_one_seed_is_its_folder_and_of_several_a_folder_each(tmp_path: Path) -> None:
    one, two = Study(recipe(), tmp_path), Study(recipe(), tmp_path, seeds=2, baselines=True)
    assert [job.folder for job in one.jobs()] == [tmp_path]
    homes = {job.folder.relative_to(tmp_path).as_posix() for job in two.jobs()}
    assert homes >= {"seed-0", "seed-1", "seed-1/baselines/random", "seed-1/baselines/long"}
    assert len(homes) == 2 * 5
    lengths = [sum(epochs(job.recipe)) for job in two.jobs()]
    assert lengths == sorted(lengths, reverse=True)


def test_a_study_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    study = Study(recipe(), tmp_path / "run", seeds=2, baselines=True)
    study.save()
    assert Study.load(tmp_path / "run") == study


def test_another_recipe_on_a_begun_run_is_refused_field_by_field(tmp_path: Path) -> None:
    Study(recipe(), tmp_path).save()
    Study(recipe(seed=1), tmp_path).save()  # nothing is trained yet
    (tmp_path / "stage-0" / "checkpoints").mkdir(parents=True)
    Study(recipe(seed=1, threads=2), tmp_path).save()
    with pytest.raises(
        RunError, match=r"seed is 1, now 0; stages\.2\.lr is 0\.01, now 0\.5\. Choose another"
    ):
        Study(recipe(stages=[{"epochs": 2}, {"epochs": 3}, {"epochs": 4, "lr": 0.5}]), tmp_path).save()


def test_recipes_that_differ_in_many_fields_are_told_in_few_words() -> None:
    assert differences(recipe(), recipe()) == ""
    assert differences(recipe(), recipe(stages=1)).endswith(" more")


def test_the_error_of_a_worker_comes_with_its_name_its_message_and_its_exit_code(tmp_path: Path) -> None:
    bad = recipe(data={"source": "path", "path": str(tmp_path / "nowhere")})
    jobs = [Job("seed 0", bad, tmp_path / "a"), Job("seed 1", bad, tmp_path / "b")]
    with pytest.raises(OvertoneError, match=r"seed [01]: .*nowhere does not exist") as caught:
        carry_out(jobs, Silent(), processes=2)
    assert caught.value.exit_code == 3


def test_a_run_adds_up_the_seconds_it_has_cost(tmp_path: Path) -> None:
    job = Job("", recipe(stages=[{"epochs": 1, "batch_size": 8}]), tmp_path)
    run_job(job, Silent())
    once = artifacts.read_json(tmp_path / "seconds.json")
    assert once > 0
    run_job(job, Silent())
    assert artifacts.read_json(tmp_path / "seconds.json") >= once


def test_one_seed_and_several_do_not_mix_in_a_folder(tmp_path: Path) -> None:
    recipe = resolved(parse({"data": {"source": "trifeature", "n": 64}, "loggers": []}))
    Study(recipe, tmp_path).save()
    (tmp_path / "stage-0" / "encoder").mkdir(parents=True)
    with pytest.raises(RunError, match=r"1 seed\(s\), now 3"):
        Study(recipe, tmp_path, seeds=3).save()
