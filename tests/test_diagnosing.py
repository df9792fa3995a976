"""An encoder whose blindness is known, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Run
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from overtone.clustering import next_partition
from overtone.contracts import Address, Batch
from overtone.datasets import ImageDataset, arrays, captioned_scenes, image_folder, tones
from overtone.datasets.captioned import Captioned
from overtone.diagnosing import CELL_SIZE, RANDOM_WEIGHTS, THIS, diagnose, diagnose_named
from overtone.encoders import Encoder, build_encoder, save_encoder
from overtone.errors import DataError, NumericalError, RecipeError
from overtone.evaluation.labelled import folds
from overtone.fitting import fit
from overtone.progress import Silent
from overtone.report.diagnosis import Diagnosis
from overtone.views import ImageTextViews

N = 400
DRAWS = np.random.default_rng(0)
RED, GREEN = DRAWS.integers(0, 4, N), DRAWS.integers(0, 4, N)


def pictures() -> NDArray[np.uint8]:
    """At which of four heights a red bar lies on the left, and a green one on the right, independently."""
    images = DRAWS.integers(0, 60, (N, 16, 16, 3)).astype(np.uint8)
    for image, red, green in zip(images, RED, GREEN, strict=True):
        image[4 * red : 4 * red + 4, :8, 0] += 180
        image[4 * green : 4 * green + 4, 8:, 1] += 180
    return images


PICTURES = pictures()


class OnlyRed(Encoder):
    """One-hot of the height of the red bar, and nothing else."""

    dim = 4

    def forward(self, batch: Batch) -> Tensor:
        heights = batch["image"][:, 0, :, :8].float().unflatten(1, (4, 4)).mean(dim=(2, 3))
        return nn.functional.one_hot(heights.argmax(dim=1), 4).float()


def same(batch: Batch, address: Address) -> list[Batch]:
    """Views that change nothing."""
    return [batch, batch]


def dataset(**labels: NDArray[np.int64]) -> ImageDataset:
    return arrays(PICTURES, labels or {"red": RED, "green": GREEN})


def few() -> ImageDataset:
    return arrays(PICTURES[:80], {"red": RED[:80]})


@pytest.fixture(scope="module")
def planted() -> Diagnosis:
    return diagnose(OnlyRed(), dataset(), views=same)


def test_what_is_planted_in_the_embeddings_is_learned_and_what_is_not_is_ignored(planted: Diagnosis) -> None:
    assert {each.name: each.verdict for each in planted.attributes} == {"red": "learned", "green": "ignored"}
    assert planted.sentences[0] == "This encoder ignores green."
    green = planted.attributes[0].readings
    assert green[THIS].linear.low < 25 < green[THIS].linear.high
    assert green["raw pixels"].linear.accuracy == pytest.approx(100, abs=2)


def test_without_labels_what_it_finds_alike_is_told_by_cells_alone() -> None:
    found = diagnose(OnlyRed(), arrays(PICTURES), views=same, statistics=False)
    assert not found.attributes
    assert found.sentences[0] == "No attribute could be asked about: what follows needs none."
    assert found.inside is not None
    # All pictures of a cell are one point to it; a pixel tells every picture from all others.
    assert found.inside.told[THIS].own == 0
    assert found.inside.told["raw pixels"].own == 100


def test_random_pictures_are_told_apart_as_often_as_chance_lets_them_differ() -> None:
    codes = np.arange(900) % 90
    few = arrays(np.zeros((900, 8, 8), np.uint8), {"code": codes})

    class Codes(Encoder):
        dim = 90

        def forward(self, batch: Batch) -> Tensor:
            return nn.functional.one_hot(batch["index"] % 90, 90).float()

    found = diagnose(Codes(), few, views=same)
    assert found.inside is not None
    one_hot = np.eye(90, dtype=np.float32)[codes]
    sizes = next_partition("concat", [one_hot], cell_size=CELL_SIZE, seed=0)[0].sizes
    expected = 100 * np.average((1 - 9 / 899) ** (sizes - 1), weights=sizes)  # no other has the same code
    assert found.inside.told[THIS].random == pytest.approx(expected, abs=4)
    assert found.inside.told[THIS].own == 0


def test_blind_pairs_differ_in_what_is_ignored(planted: Diagnosis) -> None:
    rows = [[int(shown.id) for shown in pair.pictures] for pair in planted.pairs]
    assert rows
    assert all(RED[one] == RED[other] and GREEN[one] != GREEN[other] for one, other in rows)


def test_cells_share_what_was_learned_alone(planted: Diagnosis) -> None:
    inside = planted.inside
    assert inside is not None
    assert inside.agree["red"].within == 100
    assert inside.agree["green"].within == pytest.approx(inside.agree["green"].chance, abs=3)


def test_words_of_captions_are_asked_about() -> None:
    said = zip(RED > 1, GREEN > 1, strict=True)
    texts = [f"{'crimson' if red else 'dark'} and {'lime' if green else 'dim'}" for red, green in said]
    found = diagnose(OnlyRed(), Captioned(arrays(PICTURES), texts), views=same)
    words = {each.name: each.verdict for each in found.attributes}
    assert words["caption: lime" if "caption: lime" in words else "caption: dim"] == "ignored"
    assert words["caption: crimson" if "caption: crimson" in words else "caption: dark"] == "learned"


def test_statistics_are_asked_about_where_there_is_nothing_else_or_on_request() -> None:
    draws = np.random.default_rng(1)
    light, left = draws.integers(0, 120, 200), draws.integers(0, 8, 200)
    images = np.zeros((200, 16, 16), np.uint8) + light[:, None, None].astype(np.uint8)
    for image, place in zip(images, left, strict=True):
        image[6:10, place : place + 8] += 100

    class Lightness(Encoder):
        dim = 1

        def forward(self, batch: Batch) -> Tensor:
            found: Tensor = batch["image"].float().mean(dim=(2, 3))
            return found

    alone = diagnose(Lightness(), arrays(images), views=same)
    verdicts = {each.name: each.verdict for each in alone.attributes}
    assert (verdicts["brightness"], verdicts["position across"]) == ("learned", "ignored")
    asked = arrays(images, {"brightness": light > 60})
    assert [each.name for each in diagnose(Lightness(), asked, views=same).attributes] == ["brightness"]
    both = {each.name for each in diagnose(Lightness(), asked, views=same, statistics=True).attributes}
    assert {"brightness", "statistic: brightness", "position across"} <= both


def test_a_second_encoder_is_a_reference_that_training_is_measured_against() -> None:
    class Half(OnlyRed):
        def forward(self, batch: Batch) -> Tensor:
            return super().forward(batch)[:, :2]  # tells two of four steps

    found = diagnose(Half(), dataset(red=RED), against=OnlyRed(), views=same)
    (red,) = found.attributes
    assert red.verdict == "partly"
    assert red.readings["the second encoder"].linear.accuracy == 100
    assert found.sees == "the second encoder"


def test_it_is_the_same_again_and_changes_no_encoder() -> None:
    encoder = build_encoder("small_cnn").train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    first, again = (diagnose(encoder, few()).to_json() for _ in range(2))
    assert first == again
    assert encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_a_plain_module_of_pictures_will_do_and_its_random_weights_are_shown() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = diagnose(module, few())
    assert RANDOM_WEIGHTS in found.attributes[0].readings


def test_what_cannot_be_drawn_anew_is_left_out_and_said() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.ones(3 * 16 * 16))

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) + self.position

    found = diagnose(Positions(), few())
    assert RANDOM_WEIGHTS not in found.attributes[0].readings
    assert any("Random weights are not shown" in note for note in found.notes)


def test_of_more_samples_a_keyed_draw_is_looked_at_and_said() -> None:
    found = diagnose(OnlyRed(), dataset(), views=same, most=200)
    assert (found.n_samples, found.n_total) == (200, 400)
    assert "200 of 400 samples were looked at: a keyed draw." in found.sentences


def test_what_cannot_be_read_is_counted_and_is_no_draw(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((24, 3, 16, 16)).astype(np.float32)
    values[3] = np.nan
    np.save(tmp_path / "x.npy", values)
    found = diagnose_named("random:small_cnn", tmp_path / "x.npy", Silent(), image_size=16)
    assert (found.n_samples, found.n_total) == (23, 24)
    assert found.notes[0] == "Left out of the data: 1 × values that are NaN or infinite."
    assert not any("draw" in note for note in found.notes)


def test_rare_classes_and_single_values_are_left_out_and_said() -> None:
    rare = RED.copy()
    rare[:3] = 9
    found = diagnose(OnlyRed(), dataset(red=rare, one=np.zeros(N, int)), views=same)
    assert [each.name for each in found.attributes] == ["red"]
    assert found.attributes[0].classes == 4
    assert "red: 1 classes of fewer than 5 samples were left out, 3 samples in all." in found.notes
    assert any(note.startswith("one was not asked about") for note in found.notes)


def test_a_few_samples_and_fewer_labels_will_do() -> None:
    found = diagnose(OnlyRed(), arrays(PICTURES[:20], {"red": RED[:20] % 2}), views=same)
    assert found.inside is not None
    assert found.inside.cell_size <= 10
    sparse = RED[:80] % 2
    sparse[folds(80, 0)[0][1]] = -1  # a fifth of the samples has no label
    found = diagnose(OnlyRed(), arrays(PICTURES[:80], {"red": sparse}), views=same)
    assert found.attributes[0].n_asked == 64
    assert found.attributes[0].readings[THIS].linear.accuracy == 100


def test_an_encoder_that_gives_one_point_is_called_collapsed() -> None:
    class Point(Encoder):
        dim = 8

        def forward(self, batch: Batch) -> Tensor:
            return torch.ones(len(batch["index"]), 8)

    found = diagnose(Point(), few())
    assert any("collapsed" in sentence for sentence in found.sentences)
    assert {each.verdict for each in found.attributes} == {"ignored"}


def test_series_are_read_too_without_pictures_of_anything() -> None:
    found = diagnose(build_encoder("series_cnn", channels=1), tones(60))
    assert found.attributes
    assert (found.pairs, found.cells, found.inside) == ((), (), None)
    assert any("Views were not looked at" in note for note in found.notes)
    assert "<img" not in found.to_html()


def test_bad_encoders_and_data_are_named() -> None:
    class Broken(Encoder):
        dim = 4

        def __init__(self, given: Tensor) -> None:
            super().__init__()
            self.given = given

        def forward(self, batch: Batch) -> Tensor:
            return self.given.expand(len(batch["index"]), *self.given.shape)

    with pytest.raises(NumericalError, match="not finite"):
        diagnose(Broken(torch.tensor([1.0, torch.nan])), dataset())
    with pytest.raises(RecipeError, match=r"expected \(batch, dimension\)"):
        diagnose(Broken(torch.ones(3, 3)), dataset())
    with pytest.raises(RecipeError, match="expected embeddings of shape"):
        diagnose(nn.Identity(), dataset())
    with pytest.raises(DataError, match="3 samples; expected at least 20"):
        diagnose(OnlyRed(), arrays(PICTURES[:3]))


def test_a_frame_holds_every_figure_and_a_figure_every_attribute(planted: Diagnosis) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("pandas")
    frame = planted.frame()
    assert len(frame) == 2 * len(planted.attributes[0].readings) * 2
    own = frame[(frame.reader == THIS) & (frame.probe == "linear")].set_index("attribute")
    assert own.accuracy["red"] == 100
    axes = planted.figure().axes[0]
    assert sorted(label.get_text() for label in axes.get_yticklabels()) == ["green: ignored", "red: learned"]


# ---- the command


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small files in two folders, one with a name that would like to be HTML."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(40):
        place = folder / ("low" if RED[number] > 1 else "high")
        place.mkdir(exist_ok=True)
        name = "<img src=x onerror=alert(1)>" if number == 0 else f"{number}"
        Image.fromarray(PICTURES[number]).save(place / f"{name}.png")
    return folder


def test_the_command_prints_sentences_and_a_table_and_writes_page_and_json(
    overtone: Run, photos: Path, tmp_path: Path
) -> None:
    code, out, err = overtone(
        *("diagnose", "random:small_cnn", "--data", photos, "--image-size", 16),
        *("--out", tmp_path / "d.html", "--out", tmp_path / "d.json"),
    )
    assert (code, err) == (0, "")
    said = json.loads((tmp_path / "d.json").read_text())
    assert said["sentences"][0] in out
    assert "verdict" in out
    page = (tmp_path / "d.html").read_text()
    assert said["sentences"][0] in page
    assert "<img src=x" not in page
    assert "<script" not in page


def test_given_weights_take_the_place_of_random_ones(overtone: Run, photos: Path, tmp_path: Path) -> None:
    save_encoder(build_encoder("small_cnn"), tmp_path)
    weights = tmp_path / "encoder.safetensors"
    code, _, err = overtone("diagnose", "small_cnn", "--weights", weights, "--data", photos)
    assert (code, err) == (0, "")


def test_a_run_is_asked_about_its_own_data_and_a_stage_of_it(
    overtone: Run, photos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fit(image_folder(photos), out=run, stages=1, epochs=1, batch_size=8, progress=False)
    second = ("--against", "random:small_cnn")
    code, out, err = overtone("diagnose", run, "--stage", 0, "--data", photos, *second)
    assert (code, err) == (0, "")
    assert "random:small_cnn" in out
    code, _, err = overtone("diagnose", run, "--stage", 1, "--data", photos)
    assert (code, "the run has stages 0 to 0" in err) == (2, True)


def test_a_run_of_pictures_and_texts_is_asked_about_its_pictures(tmp_path: Path) -> None:
    data, views = captioned_scenes(32, scenes=8), ImageTextViews()
    options = {"encoder": "small_clip", "method": "clip", "stages": 1, "epochs": 0}
    fit(data, out=tmp_path / "run", views=views, progress=False, **options)  # type: ignore[arg-type]
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    named = recipe.replace("source: given", "{source: captioned_scenes, n: 32, scenes: 8}")
    (tmp_path / "run" / "recipe.yaml").write_text(named.replace("name: given", "name: image_text"))
    found = diagnose_named(str(tmp_path / "run"), None, Silent())
    assert found.inside is not None
    assert found.cells


def test_a_module_path_is_imported_and_asked(
    overtone: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_mine.py").write_text(
        "from torch import nn\n"
        "class Mean(nn.Sequential):\n"
        "    image_size = 16\n"
        "    def __init__(self): super().__init__(nn.AdaptiveAvgPool2d(2), nn.Flatten())\n"
        "def made(): return Mean()\n"
        "def fails(): raise ValueError('not today')\n"
        "def flat(): return nn.Identity()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("of_mine:Mean", "of_mine:made"):
        code, _, err = overtone("diagnose", name, "--data", photos)
        assert (code, err) == (0, "")
    for name, said in {
        "of_mine:fails": "ValueError: not today",
        "of_mine:flat": "expected embeddings of shape",
        "of_mine:absent": "cannot be imported",
        "no_such_module:Class": "cannot be imported",
    }.items():
        code, _, err = overtone("diagnose", name, "--data", photos)
        assert (code, said in " ".join(err.split()), "Traceback" in err) == (2, True, False), err


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("random:small_cnn", "--data", "nowhere"), 3, "nowhere does not exist"),
        (("random:small_cnn", "--data", "three"), 3, "3 samples; expected at least 20"),
        (("random:small_cnn",), 2, "on which pictures? Give them by --data"),
        (("small_cnn", "--data", "three"), 2, "has no published weights; give --weights FILE"),
        (("smallcnn", "--data", "three"), 2, "smallcnn: no run folder and no model"),
        (("torchvision:resnet19", "--data", "three"), 2, "did you mean"),
        (("random:small_cnn", "--stage", 1, "--data", "three"), 2, "--stage 1: goes with a run folder"),
        (("random:small_cnn", "--data", "three", "--out", "d.txt"), 2, "named *.html or *.json"),
        (("random:small_cnn", "--labels", "l.csv"), 2, "--labels: goes with --data"),
        (("three", "--data", "three"), 4, "three: holds no run"),
    ],
)
def test_a_mistake_ends_in_one_message_and_its_exit_code(
    overtone: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[object, ...],
    exit_code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three").mkdir()
    for number in range(3):
        Image.fromarray(PICTURES[number]).save(tmp_path / "three" / f"{number}.png")
    code, _, err = overtone("diagnose", *arguments)
    assert (code, said in " ".join(err.split()), "Traceback" in err) == (exit_code, True, False), err
