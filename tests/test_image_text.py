"""What a run of pictures and texts is asked, from the command to the file it writes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from command import Run
from PIL import Image

from overtone import image_text
from overtone.datasets import captioned_scenes
from overtone.errors import DataError
from overtone.image_text import Towers, read_errata


class Lightness:
    """Reads how light a picture is, and whether the text says so."""

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.float().mean((1, 2, 3)) / 255
        return torch.stack([mean, 1 - mean], 1)

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0] if "light" in text else [0.0, 1.0] for text in texts])


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two pairs, of which the second is told wrongly."""
    for name, colour in (("dark", 10), ("light", 240)):
        Image.new("RGB", (9, 5), (colour,) * 3).save(tmp_path / f"{name}.png")
    (tmp_path / "pairs.csv").write_text(
        "image_1,image_2,text_1,text_2,pattern\n"
        "dark.png,light.png,a dark one,a light one,tone\n"
        "light.png,dark.png,a dark one,a light one,twist\n"
    )
    return tmp_path / "pairs.csv"


@pytest.fixture
def towers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run holds `Lightness`, trained on pictures of 8 x 8, and is tested on five scenes."""
    monkeypatch.setattr(
        image_text, "two_tower_encoder", lambda run, method, trust: Towers(Lightness(), (3, 8, 8), "crop")
    )
    monkeypatch.setattr(image_text, "_tested_on", lambda run, trust: captioned_scenes(5))


@pytest.mark.usefixtures("towers")
def test_pairs_are_shown_as_a_table_and_written_whole(overtone: Run, pairs: Path) -> None:
    code, out, _ = overtone("evaluate", "run", "--task", "pairs", "--data", pairs, "--out", "r.json")
    assert code == 0
    assert [word in out for word in ("tone", "twist", "50.0", "95 % interval", "chance is 25 %")] == [
        True
    ] * 5
    record = json.loads(Path("r.json").read_text())
    assert (record["task"], record["prompt"], record["official"]["mean"]) == ("pairs", "a photo of ", 50.0)
    assert record["official"]["patterns"]["tone"]["right"] == 1
    assert "corrected" not in record


@pytest.mark.usefixtures("towers")
def test_corrections_are_given_beside_the_official_score_with_what_they_changed(
    overtone: Run, pairs: Path, tmp_path: Path
) -> None:
    digest = {
        name: hashlib.sha256((tmp_path / f"{name}.png").read_bytes()).hexdigest()
        for name in ("dark", "light")
    }
    right = {digest["dark"]: "a dark one", digest["light"]: "a light one", "0" * 64: None}
    (tmp_path / "errata.json").write_text(json.dumps(right))
    given = ("--errata", "errata.json", "--out", "r.json", "--prompt", "")
    code, out, _ = overtone("evaluate", "run", "--task", "pairs", "--data", pairs, *given)
    assert (code, "2 statements changed, 0 pairs left out; 1 of 3 corrections" in out) == (0, True)
    record = json.loads(Path("r.json").read_text())
    assert (record["prompt"], record["official"]["mean"], record["corrected"]["mean"]) == ("", 50.0, 100.0)
    assert record["corrected"]["changed"] == 2


@pytest.mark.usefixtures("towers")
def test_retrieval_is_asked_of_the_data_of_the_run_or_of_others_with_texts(
    overtone: Run, pairs: Path
) -> None:
    code, out, _ = overtone("evaluate", "run", "--task", "retrieval", "--out", "r.json")
    assert (code, "recall@10" in out, "5 pictures and 5 different texts" in out) == (0, True, True)
    assert json.loads(Path("r.json").read_text())["image_to_text"].keys() == {"1", "5", "10"}
    code, _, complaint = overtone("evaluate", "run", "--task", "retrieval", "--data", pairs.parent)
    assert (code, "2 samples without a `text`" in complaint) == (3, True)


@pytest.mark.usefixtures("towers")
def test_labelled_pictures_are_given_the_class_whose_name_is_nearest(overtone: Run, tmp_path: Path) -> None:
    for name, colours in {"light": (250, 200, 30), "dark": (20,)}.items():
        (tmp_path / "tones" / name).mkdir(parents=True)
        for colour in colours:
            Image.new("RGB", (8, 8), (colour,) * 3).save(tmp_path / "tones" / name / f"{colour}.png")
    given = ("--data", "tones", "--prompt", "it is {}", "--out", "r.json")
    code, out, complaint = overtone("evaluate", "run", "--task", "zero-shot", *given)
    assert (code, "75.0" in out, "'it is {}'" in out) == (0, True, True), complaint
    record = json.loads(Path("r.json").read_text())
    assert record["attributes"] == {"class": {"accuracy": 75.0, "chance": 50.0, "n": 4}}


@pytest.mark.usefixtures("towers")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--task", "vqa"], 2, "--task vqa: unknown; expected one of mmvp, pairs, retrieval, zero-shot."),
        (["--task", "mmvp"], 2, "--task mmvp: which pairs? Give them by --data."),
        (["--task", "mmvp", "--data", "nowhere"], 3, "nowhere/Questions.csv: cannot be read"),
        (["--task", "pairs", "--data", "nowhere.csv"], 3, "nowhere.csv: cannot be read"),
        (["--task", "pairs", "--data", "pairs.csv", "--out", "r.txt"], 2, "--out r.txt: expected"),
        (["--task", "pairs", "--data", "pairs.csv", "--labels", "l.csv"], 2, "does not go with --task pairs"),
        (["--task", "pairs", "--data", "pairs.csv", "--errata", "no.json"], 3, "no.json: cannot be read"),
        (["--task", "retrieval", "--prompt", "a "], 2, "--prompt a : does not go with --task retrieval"),
        (["--task", "zero-shot", "--errata", "no.json"], 2, "does not go with --task zero-shot"),
        (["--task", "zero-shot", "--prompt", "a "], 2, "templates: 'a ' has no {}"),
        (["--task", "zero-shot", "--data", "bare"], 3, "zero-shot: the data have no labels"),
        (["--out", "r.json"], 2, "--out r.json: goes with --task"),
        (["--errata", "e.json"], 2, "--errata e.json: goes with --task"),
    ],
)
def test_a_mistake_ends_in_one_message_and_its_exit_code(
    overtone: Run, pairs: Path, arguments: list[str], code: int, message: str
) -> None:
    (pairs.parent / "bare").mkdir()
    shutil.copy(pairs.parent / "dark.png", pairs.parent / "bare")
    ended, _, complaint = overtone("evaluate", "run", *arguments)
    assert (ended, message in complaint) == (code, True), complaint
    assert "Traceback" not in complaint


def test_a_run_whose_encoder_reads_no_texts_is_told_what_it_lacks(overtone: Run, pairs: Path) -> None:
    Path("r.yaml").write_text(
        "data: {source: captioned_scenes, n: 32, image_size: 32}\ntrain: {epochs: 0, batch_size: 16}\n"
        "stages: 1\nthreads: 1\n"
    )
    assert overtone("train", "r.yaml", "--out", "run")[0] == 0
    code, _, complaint = overtone("evaluate", "run", "--task", "pairs", "--data", pairs)
    assert (code, "(concatenated) reads `image` alone, it has no encode_text" in complaint) == (2, True), (
        complaint
    )
    code, _, complaint = overtone("evaluate", "nowhere", "--task", "pairs", "--data", pairs)
    assert (code, "nowhere: holds no run" in complaint) == (4, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "no JSON in UTF-8"),
        ("[]", "expected an object"),
        ('{"99": "x"}', "'99': 'x'; expected the SHA-256"),
        ('{"' + "a" * 64 + '": 3}', "expected the SHA-256"),
        ('{"' + "a" * 64 + '": " "}', "right statement or null"),
    ],
)
def test_corrections_of_another_kind_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "errata.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_errata(tmp_path / "errata.json")
