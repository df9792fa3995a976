"""`overtone data blind-pairs`, from the command to what `evaluate --task pairs` says of the file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from command import Run
from numpy.typing import NDArray
from PIL import Image

from overtone.datasets import image_folder
from overtone.errors import DataError
from overtone.evaluation.pairs_csv import read_pairs
from overtone.fitting import fit
from overtone.integration import load

LEVELS = (60, 100, 140, 180)


def picture(level: int, side: int) -> NDArray[np.uint8]:
    """Of the same lightness whichever half is lighter."""
    image = np.full((16, 16), level - 40, dtype=np.uint8)
    image[:, 8 * side : 8 * side + 8] += 80
    return image


PICTURES = [picture(level, side) for side in (0, 1) for level in LEVELS]


@pytest.fixture
def lightness(tmp_path: Path) -> Path:
    """Embeddings of an encoder that sees how light a picture is and nothing else."""
    angle = np.array([image.mean() for image in PICTURES]) / 60
    np.save(tmp_path / "lightness.npy", np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return tmp_path / "lightness.npy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(PICTURES):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fill_in(path: Path) -> None:
    rows = rows_of(path)
    for row in rows:
        row |= {"text_1": "light on one side", "text_2": "light on the other", "pattern": "side"}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_pictures_that_only_the_pixels_tell_apart_are_paired_and_ready_to_be_described(
    overtone: Run, folder: Path, lightness: Path, tmp_path: Path
) -> None:
    code, out, _ = overtone("data", "blind-pairs", folder, "--encoder", lightness, "--out", "pairs.csv")
    assert (code, "4 pairs of 8 pictures" in " ".join(out.split())) == (0, True)
    found = {(row["image_1"], row["image_2"]) for row in rows_of(tmp_path / "pairs.csv")}
    assert found == {(f"photos/{i}.png", f"photos/{i + 4}.png") for i in range(4)}
    assert {row["other_cosine"] for row in rows_of(tmp_path / "pairs.csv")} == {"-1.0000"}
    with pytest.raises(DataError, match=r"pairs.csv:2: text_1 is empty; write a statement that is true"):
        read_pairs("pairs.csv")
    fill_in(tmp_path / "pairs.csv")
    assert [pair.pattern for pair in read_pairs("pairs.csv")] == ["side"] * 4


def test_the_sheet_shows_both_pictures_of_a_pair_beside_each_other(
    overtone: Run, folder: Path, lightness: Path, tmp_path: Path
) -> None:
    overtone("data", "blind-pairs", folder, "--encoder", lightness, "--out", "pairs.csv", "--most", 1)
    (row,) = rows_of(tmp_path / "pairs.csv")
    page = np.asarray(Image.open(tmp_path / "pairs.png").convert("L"))
    for name in (row["image_1"], row["image_2"]):
        shown = np.asarray(Image.open(tmp_path / name)).repeat(6, 0).repeat(6, 1)
        assert any(
            np.array_equal(page[16 + 36 : 16 + 36 + 96, x : x + 96], shown) for x in range(page.shape[1] - 96)
        )


def test_pictures_that_are_no_files_are_written_to_some(
    overtone: Run, lightness: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "photos.npy", np.stack(PICTURES)[..., None])
    code, _, _ = overtone("data", "blind-pairs", "photos.npy", "--encoder", lightness, "--out", "pairs.csv")
    assert code == 0
    fill_in(tmp_path / "pairs.csv")
    for pair in read_pairs("pairs.csv"):
        for image in pair.images:
            assert isinstance(image, Path)
            shown = np.asarray(Image.open(image).convert("L"))
            assert np.array_equal(shown, PICTURES[int(image.stem)])


def test_a_run_is_asked_as_it_was_trained(overtone: Run, folder: Path, tmp_path: Path) -> None:
    fit(image_folder(folder), out=tmp_path / "run", stages=1, epochs=1, batch_size=4, progress=False)
    options = ("--alike", -1, "--different", 1, "--other", "run")
    code, _, _ = overtone("data", "blind-pairs", folder, "--encoder", "run", *options, "--out", "pairs.csv")
    assert code == 0
    encoded = load(tmp_path / "run").encode([folder / f"{i}.png" for i in range(8)])
    unit = encoded / np.linalg.norm(encoded, axis=1, keepdims=True)
    for row in rows_of(tmp_path / "pairs.csv"):
        one, other = (int(Path(row[name]).stem) for name in ("image_1", "image_2"))
        assert float(row["cosine"]) == pytest.approx(unit[one] @ unit[other], abs=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--encoder", "nowhere"), "nowhere: no run folder and no model"),
        (("--encoder", "short.npy"), "short.npy: 3 rows, but photos holds 8 pictures"),
        (
            ("--encoder", "lightness.npy", "--out", "kept.csv"),
            "kept.csv: is there already, perhaps filled in",
        ),
        (("--encoder", "lightness.npy", "--alike", "95"), "alike=95.0: expected a cosine"),
    ],
)
@pytest.mark.usefixtures("folder", "lightness")
def test_bad_input_is_named(overtone: Run, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    np.save(tmp_path / "short.npy", np.ones((3, 2)))
    (tmp_path / "kept.csv").write_text("mine")
    code, _, err = overtone("data", "blind-pairs", "photos", "--out", "pairs.csv", *options)
    assert (code in (2, 3), said in " ".join(err.split())) == (True, True), err
    assert (tmp_path / "kept.csv").read_text() == "mine"


def test_nothing_is_written_where_there_is_no_pair(
    overtone: Run, folder: Path, lightness: Path, tmp_path: Path
) -> None:
    both = ("--encoder", lightness, "--other", lightness)
    code, out, _ = overtone("data", "blind-pairs", folder, *both, "--out", "pairs.csv")
    assert (code, "nothing is written" in " ".join(out.split())) == (0, True)
    assert not list(tmp_path.glob("pairs*"))
