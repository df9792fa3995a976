from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from command import Run
from numpy.typing import NDArray
from torch.nn import functional as F

from overtone import artifacts, integrating, multistage
from overtone.embedding import embed
from overtone.errors import RecipeError, RunError
from overtone.fitting import fit
from overtone.image_text import two_tower_encoder
from overtone.integrating import (
    encoder_of,
    integrate,
    integrated,
    is_integrated,
    linear_after,
    load_integrated,
    student_of,
)
from overtone.integration import JointEncoder, concatenated, load
from overtone.progress import Silent
from overtone.recipe import build_parts, open_data, parse, resolved
from overtone.results import evaluate_study
from overtone.run_folder import Parts, embeddings_of
from overtone.study import Study, carry_out
from overtone.training import Pace

RECIPE: dict[str, Any] = {
    "data": {"source": "trifeature", "n": 200, "image_size": 16},
    "stages": 2,
    "train": {"epochs": 1, "batch_size": 32},
    "threads": 1,
    "loggers": [],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two stages."""
    study = Study(resolved(parse(RECIPE)), tmp_path_factory.mktemp("finished") / "run")
    study.save()
    carry_out(study.jobs(), Silent(), 1)
    return study.folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def _parts(run: Path) -> Parts:
    recipe = Study.load(run).recipe
    return build_parts(recipe, *open_data(recipe))


def _whole(run: Path) -> NDArray[np.float32]:
    return concatenated([embeddings_of(run, stage) for stage in range(2)])


def _embedded(encoder: JointEncoder, run: Path) -> NDArray[np.float32]:
    return embed(encoder, _parts(run).dataset)


def _unexplained(given: NDArray[np.float32], run: Path) -> float:
    """Mean squared distance to the whitened concatenation, which has variance 1 in each direction."""
    rows = _whole(run).astype(np.float64)
    rows -= rows.mean(0)
    u, _, _ = np.linalg.svd(rows, full_matrices=False)
    white = u[:, : given.shape[1]] * np.sqrt(len(rows) - 1)
    signs = np.sign((white * given).sum(0))
    return float(((white * signs - given) ** 2).mean())


def test_weights_scale_the_stages_side_by_side(run: Path) -> None:
    made = integrate(run, "weighted", weights=[2, 0.5])
    expected = _whole(run) * np.repeat([2, 0.5], 128)
    np.testing.assert_allclose(_embedded(made, run), expected, atol=1e-5)


def test_of_two_towers_the_weights_hold_for_pictures_and_texts_alike(tmp_path: Path) -> None:
    two_towers = {
        "data": {"source": "captioned_scenes", "n": 40, "image_size": 32},
        "encoder": {"name": "small_clip", "width": 8},
        "views": {"name": "image_text"},
        "method": {"name": "clip"},
        "stages": [{}, {"cell_size": 10}],
        "train": {"epochs": 1, "batch_size": 20},
    }
    study = Study(resolved(parse({**RECIPE, **two_towers})), tmp_path / "run")
    study.save()
    carry_out(study.jobs(), Silent(), 1)
    made = integrate(study.folder, "weighted", weights=[3, 4])
    images, texts = torch.rand(4, 3, 32, 32), ["a red dot", "two", "a", "b c"]

    def cosines(towers: Any) -> torch.Tensor:
        pair = towers.encode_image(images), towers.encode_text(texts)
        return F.normalize(pair[0]) @ F.normalize(pair[1]).T

    with torch.no_grad():
        first, second = map(cosines, made.stages)
        torch.testing.assert_close(cosines(made), (9 * first + 16 * second) / 25)
        asked = two_tower_encoder(study.folder, "weighted").encoder
        torch.testing.assert_close(cosines(asked), cosines(made))


def test_whitened_embeddings_of_the_data_are_uncorrelated_with_unit_variance(run: Path) -> None:
    made = integrate(run, "whitened", dim=12)
    np.testing.assert_allclose(np.cov(_embedded(made, run).T), np.eye(12), atol=1e-2)


def test_chunks_change_nothing_but_rounding(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _embedded(integrate(run, "projected", dim=5), run)
    monkeypatch.setattr(integrating, "_ROWS", 33)
    np.testing.assert_allclose(_embedded(integrate(run, "projected", dim=5), run), whole, atol=1e-5)
    assert whole.shape == (200, 5)


def test_a_student_comes_nearer_to_its_teacher_than_it_began_and_is_one_encoder(run: Path) -> None:
    parts, joint = _parts(run), load(run)
    untrained = student_of(parts, run, joint, epochs=0)
    multistage.run(untrained, run / "untrained")
    made = integrate(run, "distilled", epochs=20)
    assert len(made.stages) == 1
    given, before = _embedded(made, run), _embedded(load(run / "untrained"), run)
    assert _unexplained(given, run) < 0.95 < _unexplained(before, run)


def test_integrated_encoders_are_loaded_from_their_folder_alone(run: Path, tmp_path: Path) -> None:
    for method, values in {"projected": {"dim": 7}, "distilled": {"epochs": 1}}.items():
        made = integrate(run, method, **values)  # type: ignore[arg-type]
        expected = _embedded(made, run)
        copied = Path(shutil.copytree(integrated(run, method) / "encoder", tmp_path / method))
        np.testing.assert_array_equal(_embedded(load(copied), run), expected)


def test_a_student_is_the_same_each_time_and_is_not_trained_again(run: Path, finished: Path) -> None:
    integrate(run, "distilled", epochs=1)
    first = tiny.artifacts_of(integrated(run, "distilled"))
    changed = integrated(run, "distilled") / "stage-0" / "metrics.jsonl"
    lines = changed.read_text()
    integrate(run, "distilled", epochs=1)
    assert changed.read_text() == lines
    shutil.rmtree(integrated(run, "distilled"))
    integrate(run, "distilled", epochs=1)
    assert tiny.artifacts_of(integrated(run, "distilled")) == first


def test_a_student_whose_training_broke_off_ends_as_one_whose_training_did_not(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(Silent):
        def advance(self, task: str, done: int, total: int, note: str = "") -> None:
            if done == 4:
                raise KeyboardInterrupt

    integrate(run, "distilled", epochs=2)
    whole = tiny.artifacts_of(integrated(run, "distilled"))
    shutil.rmtree(integrated(run, "distilled"))
    often = {"checkpoint_seconds": 0.0, "log_every": 1}
    monkeypatch.setattr(multistage, "Pace", lambda *given, **named: Pace(*given, **{**named, **often}))
    with pytest.raises(KeyboardInterrupt):
        integrate(run, "distilled", epochs=2, display=Breaks())
    assert [p.name for p in (integrated(run, "distilled") / "stage-0" / "checkpoints").iterdir()]
    integrate(run, "distilled", epochs=2)
    assert tiny.artifacts_of(integrated(run, "distilled")) == whole


def test_embeddings_that_a_student_left_are_those_it_gives(run: Path) -> None:
    made = integrate(run, "distilled", epochs=1)
    np.testing.assert_allclose(
        embeddings_of(integrated(run, "distilled"), 0), _embedded(made, run), atol=1e-5
    )


def test_the_table_of_the_run_shows_each_encoder_and_what_it_keeps(run: Path) -> None:
    integrate(run, "whitened", dim=9)
    integrate(run, "distilled", epochs=1)
    results = evaluate_study(Study.load(run))
    assert results is not None
    for _, figures in results.linear:
        assert {"stage 0", "stages 0-1", "whitened", "distilled"} <= figures.keys()
    assert any(said.startswith("distilled keeps of what stages 0-1 gain") for said in results.sentences)


def test_half_precision_whitens_as_well_as_full(run: Path) -> None:
    made, data = integrate(run, "whitened", dim=20), _parts(run).dataset
    halves = embed(made, data, precision="bf16")
    similar = (halves * _embedded(made, run)).mean(0)  # of two variables of unit variance
    assert similar[:5].min() > 0.9
    assert made.join([torch.zeros(1, 128), torch.zeros(1, 128)]).dtype == torch.float32


def test_an_encoder_made_of_other_stages_is_refused(run: Path) -> None:
    integrate(run, "whitened", dim=9)
    assert is_integrated(run, "whitened")
    with artifacts.writing(run / "encoder", {"of": "others"}) as folder:
        load_from = run / "integrated" / "whitened" / "encoder"
        shutil.copytree(load_from, folder, dirs_exist_ok=True)
    with pytest.raises(RunError, match="made from another all stages"):
        is_integrated(run, "whitened")


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("averaged", {}, "method: 'averaged' is unknown; expected one of concatenated"),
        ("weighted", {}, "weights: none given"),
        ("weighted", {"weights": [1.0]}, r"weights: \[1.0\]; expected 2 positive numbers"),
        ("weighted", {"weights": [1.0, 0.0]}, "expected 2 positive numbers"),
        ("projected", {"dim": 999}, "dim: 999; expected 1 to"),
        ("distilled", {"dim": 9}, "dim: 9, but the method distilled takes none"),
    ],
)
def test_what_a_method_cannot_do_is_refused(
    finished: Path, method: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        integrate(finished, method, **values)


def test_an_unfinished_run_is_refused_with_the_way_to_finish_it(run: Path) -> None:
    (run / "encoder" / "joint.json").unlink()
    with pytest.raises(RunError, match="overtone resume"):
        integrate(run, "whitened")


def test_a_student_trained_otherwise_is_not_taken_for_another(run: Path) -> None:
    integrate(run, "distilled", epochs=1)
    with pytest.raises(RunError, match="was made from another epochs: 1, now 2"):
        integrate(run, "distilled", epochs=2)


def test_a_linear_map_leaves_the_stages_as_they_are(finished: Path) -> None:
    joint = load(finished)
    made = linear_after(finished, joint, "projected", dim=3)
    state = made.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in joint.state_dict().items())


def test_a_run_from_objects_is_told_what_can_be_made_of_it(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    fit(pictures, out=tmp_path, stages=2, epochs=1, batch_size=16, progress=False)
    with pytest.raises(RunError, match="data of this run were given from Python"):
        integrate(tmp_path, "distilled")
    assert integrate(tmp_path, "projected", dim=8).encode(pictures).shape == (64, 8)


def test_the_command_makes_an_encoder_of_a_run_from_objects_and_says_why_there_is_no_table(
    tmp_path: Path, overtone: Run
) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    fit(pictures, out=tmp_path, stages=2, epochs=1, batch_size=16, progress=False)
    code, out, complaint = overtone("integrate", str(tmp_path), "--method", "whitened", "--dim", "8")
    assert code == 0, complaint
    assert "given from Python" in out
    assert load_integrated(tmp_path, "whitened").encode(pictures).shape == (64, 8)


def test_a_run_in_a_folder_called_integrated_gives_its_stages(finished: Path, tmp_path: Path) -> None:
    home = tmp_path / "integrated" / "run"
    shutil.copytree(finished, home)
    assert not isinstance(encoder_of(home, 0, None), JointEncoder)
