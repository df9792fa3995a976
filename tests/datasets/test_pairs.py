"""Pictures with a text file beside each: joined by name, never by order."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from layouts import pairs_of, png, write_files

from overtone.datasets import pairs
from overtone.errors import DataError, RecipeError


def test_one_missing_text_and_one_missing_picture_shift_no_other_pair(tmp_path: Path) -> None:
    members = {**pairs_of(20, "00000/"), **pairs_of(20, "00001/deep/")}
    del members["00000/0003.txt"], members["00001/deep/0000.png"]
    dataset = pairs(write_files(tmp_path, members), max_bad_fraction=0.1)
    assert len(dataset) == 38
    for row, name in enumerate(dataset.ids):
        assert dataset.texts[row] == f"red {int(name[-4:])}" == f"red {int(dataset[row]['image'][0, 0, 0])}"
    assert dataset.quarantined == [("00000/0003", "no text"), ("00001/deep/0000", "no picture")]


def test_extensions_count_in_any_case_and_names_in_their_own(tmp_path: Path) -> None:
    members = {"A.PNG": png(1), "A.Txt": b"large", "a.png": png(2), "a.txt": b"small", "b.c.Png": png(3)}
    dataset = pairs(write_files(tmp_path, {**members, "b.c.TXT": b"dotted"}))
    assert dict(zip(dataset.ids, dataset.texts, strict=True)) == {"A": "large", "a": "small", "b.c": "dotted"}


def test_every_reason_is_counted_in_one_line_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = pairs_of(12)
    members |= {"0001.txt": b" \n", "0002.txt": b"\xff", "0003.txt": b"a\0b", "0004.txt": b"x" * 1_000_000}
    members |= {"0005.png": b"%!PS-Adobe-3.0 EPSF-3.0\n", "0006.png": b"", "more.txt": b"no picture"}
    members |= {"0007.jpg": png(7), "0008.png": png(8)[:40]}
    with caplog.at_level(logging.INFO, "overtone"):
        dataset = pairs(write_files(tmp_path, members), max_bad_fraction=0.6)
    assert len(dataset) == 6
    assert dict(dataset.quarantined).keys() == {
        "0001", "0002", "0003", "0005", "0006", "0008", "0007.png", "more",
    }  # fmt: skip
    assert dataset.truncated == ["0004"]
    line = next(message for message in caplog.messages if "6 pairs; left out" in message)
    for said in (
        "3 x an unreadable picture", "1 x an empty text", "1 x a text that is not UTF-8", "1 x no picture",
        "1 x a text with NUL in it", "0007.png: a second file of its name", "1 texts cut to 16,384",
    ):  # fmt: skip
        assert said in line
    with pytest.raises(DataError, match="7 of 13 images cannot be read, more than max_bad_fraction"):
        pairs(tmp_path)


def test_texts_come_from_a_field_of_json_where_that_is_asked_for(tmp_path: Path) -> None:
    members = {"1.png": png(1), "1.json": json.dumps({"caption": "ein Hörnchen"}).encode(), "1.txt": b"other"}
    members |= {"2.png": png(2), "2.json": b"{}", "00000_stats.json": b'{"caption": "none"}'}
    dataset = pairs(write_files(tmp_path, members), text="json:caption")
    assert (dataset.ids, list(dataset.texts)) == (["1"], ["ein Hörnchen"])
    assert dataset.quarantined == [("2", "no text")]
    with pytest.raises(RecipeError, match="give 'txt', or 'json:'"):
        pairs(tmp_path, text="caption")


def test_a_folder_without_pairs_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        pairs(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no pairs; looked .* \.txt file of one name"):
        pairs(write_files(tmp_path, {"1.png": png(1), "2.txt": b"two"}))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    write_files(tmp_path, {**pairs_of(3), "3.png": png(3), "4.txt": b"four"})
    os.mkfifo(tmp_path / "3.txt")
    os.mkfifo(tmp_path / "4.png")
    assert len(pairs(tmp_path, max_bad_fraction=0.5)) == 3


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"secret.txt": b"secret", "root/1.png": png(1)})
    (tmp_path / "root/1.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError, match="a link that leaves it"):
        pairs(tmp_path / "root")


def test_the_cache_notices_that_a_text_was_emptied(tmp_path: Path) -> None:
    options = {"cache": "disk", "cache_dir": tmp_path / "cache", "max_bad_fraction": 0.5}
    root = write_files(tmp_path / "root", pairs_of(3))
    assert len(pairs(root, **options)) == 3  # type: ignore[arg-type]
    (root / "0001.txt").write_bytes(b"")
    assert pairs(root, **options).ids == ["0000", "0002"]  # type: ignore[arg-type]
    (root / "0001.txt").write_bytes(b"another")
    assert list(pairs(root, **options).texts) == ["red 0", "another", "red 2"]  # type: ignore[arg-type]
