"""Folders of images: ids, classes, CSV labels, and everything that can be wrong with them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from overtone.datasets import image_folder
from overtone.errors import DataError

NAMES = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/deep/2.png")


def fill(root: Path, names: tuple[str, ...] = NAMES) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    return root


def test_ids_are_sorted_relative_paths_and_subfolders_are_classes(tmp_path: Path) -> None:
    dataset = image_folder(fill(tmp_path))
    assert dataset.ids == list(NAMES)
    assert dataset.label_names["class"] == ["cat", "dog"]
    assert dataset.labels["class"].tolist() == [0, 0, 1, 1]
    assert [int(dataset[i]["image"][0, 0, 0]) for i in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "names", [("1.png", "2.png"), ("cat/1.png", "cat/2.png"), ("1.png", "cat/2.png", "dog/3.png")]
)
def test_without_class_folders_there_is_no_class(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert image_folder(fill(tmp_path, names)).labels == {}


def test_extensions_count_in_any_case_and_hidden_files_do_not(tmp_path: Path) -> None:
    fill(tmp_path, ("1.png",))
    (tmp_path / "1.png").rename(tmp_path / "a.PNG")
    for name in (".hidden.png", "readme.txt", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    assert image_folder(tmp_path).ids == ["a.PNG"]


def test_missing_file_and_empty_are_errors_that_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no images.*\*\.png"):
        image_folder(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="is a file"):
        image_folder(tmp_path / "file")


def test_damaged_and_disguised_files_are_left_out_with_the_reason(tmp_path: Path) -> None:
    fill(tmp_path)
    whole = (tmp_path / "cat/1.png").read_bytes()
    broken = {
        "zero.jpg": b"",
        "page.jpg": b"<!doctype html><title>404</title>",
        "eps.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "cut.png": whole[:-30],
    }
    for name, content in broken.items():
        (tmp_path / "dog" / name).write_bytes(content)
    dataset = image_folder(tmp_path, max_bad_fraction=0.5)
    assert dataset.ids == list(NAMES)
    assert {name for name, _ in dataset.quarantined} == {f"dog/{name}" for name in broken}
    with pytest.raises(DataError, match="4 of 8 images"):
        image_folder(tmp_path)


def test_a_file_without_permission_is_left_out_and_named(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "cat/1.png").chmod(0)
    if os.access(tmp_path / "cat/1.png", os.R_OK):
        pytest.skip("this user may read everything")
    assert image_folder(tmp_path).quarantined[0][0] == "cat/1.png"


@pytest.mark.parametrize(
    "name", ["line\nbreak.png", "\x1b[31mred.png", "<script>.png", "🎵.png", "é" * 120 + ".png"]
)
def test_any_file_name_works(tmp_path: Path, name: str) -> None:
    dataset = image_folder(fill(tmp_path, (name, "plain.png")))
    assert name in dataset.ids
    assert len(dataset.fingerprint) == 32


def test_a_name_that_is_not_utf8_works(tmp_path: Path) -> None:
    fill(tmp_path, ("plain.png",))
    shutil.copy(tmp_path / "plain.png", tmp_path / os.fsdecode(b"\xff.png"))
    dataset = image_folder(tmp_path)
    assert (len(dataset), len(dataset.fingerprint)) == (2, 32)


def test_control_characters_never_reach_the_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path)
    (tmp_path / "cat" / "\x1b[31m.png").write_bytes(b"")
    image_folder(tmp_path)
    assert "\x1b" not in caplog.text.replace(str(tmp_path), "")


def test_links_inside_are_followed_and_links_that_leave_are_refused(tmp_path: Path) -> None:
    root = fill(tmp_path / "root")
    (root / "cat/link.png").symlink_to(root / "dog/1.png")
    assert "cat/link.png" in image_folder(root).ids
    fill(tmp_path / "outside")
    (root / "cat/out.png").symlink_to(tmp_path / "outside/cat/1.png")
    with pytest.raises(DataError, match=r"out\.png.*link"):
        image_folder(root)
    (root / "cat/out.png").unlink()
    (root / "out").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="link"):
        image_folder(root)


def test_the_fingerprint_stays_when_the_folder_moves(tmp_path: Path) -> None:
    before = image_folder(fill(tmp_path / "here")).fingerprint
    (tmp_path / "here").rename(tmp_path / "there")
    assert image_folder(tmp_path / "there").fingerprint == before


def test_the_fingerprint_changes_when_a_file_is_added_removed_or_edited(tmp_path: Path) -> None:
    seen = {image_folder(fill(tmp_path)).fingerprint}
    fill(tmp_path, ("cat/3.png",))
    seen.add(image_folder(tmp_path).fingerprint)
    (tmp_path / "dog/1.png").unlink()
    seen.add(image_folder(tmp_path).fingerprint)
    Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "cat/2.png")
    seen.add(image_folder(tmp_path).fingerprint)
    assert len(seen) == 4


def test_an_edited_file_of_equal_size_is_not_served_from_the_cache(tmp_path: Path) -> None:
    root, cache = fill(tmp_path / "root", ("a.bmp", "b.bmp")), tmp_path / "cache"
    image_folder(root, cache="disk", cache_dir=cache)
    Image.new("RGB", (4, 4), (200, 0, 0)).save(root / "b.bmp")
    os.utime(root / "b.bmp", ns=(1, 1))
    assert int(image_folder(root, cache="disk", cache_dir=cache)[1]["image"][0, 0, 0]) == 200


def test_metadata_csv_adds_attributes_and_blanks_are_absent(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "metadata.csv").write_text(
        "file_name,colour,count\ncat/1.png,red,3\ndog/1.png,,1\ndog/deep/2.png,blue,\n"
    )
    dataset = image_folder(tmp_path)
    assert dataset.labels["colour"].tolist() == [1, -1, -1, 0]
    assert dataset.label_names["colour"] == ("blue", "red")
    assert dataset.labels["count"].tolist() == [3, -1, 1, -1]
    assert dataset.labels["class"].tolist() == [0, 0, 1, 1]


def test_labels_stay_with_their_picture_when_another_is_left_out(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "cat/1.png").write_bytes(b"")
    table = tmp_path / "labels.csv"
    table.write_text('\ufefffile_name,text\ncat/2.png,"two\nlines"\ncat/1.png,gone\n', encoding="utf-8")
    dataset = image_folder(tmp_path, labels=table)
    assert dataset.ids[0] == "cat/2.png"
    assert dataset.label_names["text"][dataset.labels["text"][0]] == "two\nlines"
    assert dataset.labels["text"][1:].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("name,colour\na,b\n", r"labels\.csv:1: .*no column 'file_name'.*name, colour"),
        ("file_name,a,a\ncat/1.png,1,2\n", r":1: .*twice"),
        ("file_name,a\ncat/1.png,1\ncat/2.png\n", r":3: 1 cells, the header has 2"),
        ('file_name,a\ncat/1.png,"x\ny"\ncat/9.png,1\n', r":4: 'cat/9\.png' is none"),
        ("file_name,a\ncat/1.png,1\ncat/1.png,2\n", r":3: .*second time"),
        ('file_name,a\ncat/1.png,"1\n', "cannot be read as CSV"),
    ],
)
def test_a_wrong_csv_is_an_error_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    fill(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=message):
        image_folder(tmp_path, labels=table)


def test_a_missing_labels_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv"):
        image_folder(fill(tmp_path), labels=tmp_path / "none.csv")


def test_pictures_match_what_pillow_reads(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 5, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (image_folder(tmp_path)[0]["image"].numpy() == pixels.transpose(2, 0, 1)).all()
