"""Tables of paths and captions, and columns of text beside pictures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from layouts import png, write_files, write_parquet

from overtone.datasets import captions, hugging_face, parquet
from overtone.errors import DataError, RecipeError

ROWS = [
    ("a/1.png", 'says "hi", twice'),
    ("a/2.png", "two\nlines"),
    ("3.png", "tab\tbed, ünï"),
    ("a/2.png", "again"),
]


def pictures(root: Path) -> Path:
    return write_files(root, {"a/1.png": png(1), "a/2.png": png(2), "3.png": png(3)})


@pytest.mark.parametrize(("name", "separator"), [("all.csv", ","), ("all.tsv", "\t"), ("tabs.csv", "\t")])
def test_every_row_of_a_table_is_a_pair(tmp_path: Path, name: str, separator: str) -> None:
    with (pictures(tmp_path) / name).open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=separator).writerows([("n", "title", "filepath")])
        csv.writer(file, delimiter=separator).writerows(
            (i, text, path) for i, (path, text) in enumerate(ROWS)
        )
    dataset = captions(tmp_path / name)
    assert list(dataset.texts) == [text for _, text in ROWS]
    assert dataset.ids == ["a/1.png", "a/2.png", "3.png", "a/2.png#2"]
    assert [int(dataset[i]["image"][0, 0, 0]) for i in range(4)] == [1, 2, 3, 2]
    assert dataset.collate([dataset[3], dataset[0]])["text"] == ["again", 'says "hi", twice']


def test_a_table_in_parquet_gives_what_the_same_in_csv_gives(tmp_path: Path) -> None:
    paths, texts = map(list, zip(*ROWS, strict=True))
    with (pictures(tmp_path) / "all.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "text"), *ROWS])
    write_parquet(tmp_path / "all.parquet", {"path": paths, "text": texts, "n": [1, 2, 3, 4]})
    one, other = captions(tmp_path / "all.csv"), captions(tmp_path / "all.parquet")
    assert (one.ids, list(one.texts), one.fingerprint) == (other.ids, list(other.texts), other.fingerprint)


def test_columns_are_named_or_guessed_and_a_wrong_one_is_an_error_with_those_there_are(
    tmp_path: Path,
) -> None:
    (pictures(tmp_path) / "all.csv").write_text("file_name,deutsch,caption\n3.png,drei,three\n")
    assert list(captions(tmp_path / "all.csv").texts) == ["three"]
    assert list(captions(tmp_path / "all.csv", text="deutsch").texts) == ["drei"]
    with pytest.raises(RecipeError, match=r"text='francais': .*'file_name', 'deutsch', 'caption'"):
        captions(tmp_path / "all.csv", text="francais")
    (tmp_path / "other.csv").write_text("url,caption\nhttps://example.org/1.png,three\n")
    with pytest.raises(RecipeError, match="no single column 'filepath' or 'file_name' or 'path'"):
        captions(tmp_path / "other.csv")


def test_what_a_row_names_wrongly_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(9))
    root = pictures(tmp_path / "root")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    names = [
        "3.png",
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "none.png",
        "",
        "a",
        "https://x/1",
    ]
    (tmp_path / "all.csv").write_text("path,text\n" + "".join(f"{name},text\n" for name in names))
    dataset = captions(tmp_path / "all.csv", root=root, max_bad_fraction=1)
    assert dataset.ids == ["3.png"]
    reasons = [why for _, why in dataset.quarantined]
    assert ["outside" in why for why in reasons] == [True, True, True, False, False, False, False]
    assert reasons[3:] == ["no such file", "no path", "no regular file", "no such file"]
    assert len(captions(tmp_path / "all.csv", root=tmp_path, max_bad_fraction=1)) == 1  # of absolute ones


def test_bytes_that_are_no_text_and_long_fields_stay_in_their_row(tmp_path: Path) -> None:
    long = b"x" * 1_000_000
    rows = [b"3.png,a\xffb", b"3.png,a\0b", b"3.png," + long, b"3.png,", b"3.png,fine"]
    (pictures(tmp_path) / "all.csv").write_bytes(b"path,text\n" + b"\n".join(rows))
    dataset = captions(tmp_path / "all.csv", max_bad_fraction=1)
    assert [len(text) for text in dataset.texts] == [16_384, 4]
    assert dataset.truncated == ["3.png#3"]
    assert [name for name, _ in dataset.quarantined] == ["3.png", "3.png#2", "3.png#4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty; expected a header"),
        ("path,text\n3.png,a, b\n", r":2: 3 cells, the header has 2; put captions with separators"),
        ('path,text\n3.png,a\n3.png,"open\n', "cannot be read as CSV after line 2"),
        ("path,path,text\n", "no single column"),
        ("path,text\n", "no images"),
    ],
)
def test_a_wrong_table_is_an_error_that_says_where(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "all.csv").write_text(content)
    with pytest.raises((DataError, RecipeError), match=message):
        captions(tmp_path / "all.csv")


def test_missing_and_damaged_tables_and_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        captions(tmp_path / "all.csv")
    (tmp_path / "all.parquet").write_text("hello")
    with pytest.raises(DataError, match="not a readable parquet file"):
        captions(tmp_path / "all.parquet")
    with pytest.raises(DataError, match=r"root=.*no such folder"):
        captions(tmp_path / "all.parquet", root=tmp_path / "none")


def columns() -> dict[str, list[Any]]:
    return {
        "image": [png(i) for i in range(6)],
        "caption": ["nought", "one", None, " ", "four", "five"],
        "key": [f"k{i}" for i in range(6)],
        "label": [0, 1, 2, 0, 1, 2],
    }


def test_a_column_of_text_beside_pictures_makes_pairs_and_no_attribute(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", columns())
    dataset = parquet(file, text="caption", key="key", max_bad_fraction=0.5)
    assert dict(zip(dataset.ids, dataset.texts, strict=True)) == {
        "k0": "nought", "k1": "one", "k4": "four", "k5": "five",
    }  # fmt: skip
    assert [int(dataset[i]["image"][0, 0, 0]) for i in range(4)] == [0, 1, 4, 5]
    assert {name: codes.tolist() for name, codes in dataset.labels.items()} == {"label": [0, 1, 1, 2]}
    assert dataset.quarantined == [("k2", "no text"), ("k3", "an empty text")]
    with pytest.raises(RecipeError, match="column 'label' holds int64; expected text"):
        parquet(file, text="label")
    with pytest.raises(RecipeError, match="no column 'title'; there are 'image', 'caption'"):
        parquet(file, text="title")


def test_a_hugging_face_dataset_gives_the_pairs_of_its_parquet_file(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    made = columns()
    made["image"] = [{"bytes": content, "path": None} for content in made["image"]]
    write_parquet(tmp_path / "a.parquet", made)
    split = datasets.Dataset.from_dict(made).cast_column("image", datasets.Image())
    one = hugging_face(split, text="caption", max_bad_fraction=0.5)
    other = parquet(tmp_path / "a.parquet", text="caption", max_bad_fraction=0.5)
    assert list(one.texts) == list(other.texts)
    assert all((one[i]["image"] == other[i]["image"]).all() for i in range(4))
    with pytest.raises(RecipeError, match="text='title' is no column"):
        hugging_face(split, text="title")
