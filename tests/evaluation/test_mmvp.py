"""MMVP-VLM from its published layout to its score, on pictures drawn here whose answers are known."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from overtone.errors import DataError
from overtone.evaluation.mmvp import FOLDERS, TYPES, read_mmvp
from overtone.evaluation.pairs import image_reader, pair_accuracy
from overtone.evaluation.pairs_csv import read_pairs

HEADER = ("Question ID", "Type", "Statement")
Row = tuple[object, str, str]


def published(home: Path, images: str = FOLDERS[0]) -> list[Row]:
    """The layout: 270 pictures of 8 x 8, each of one grey, and 270 statements, 15 pairs a type."""
    rows: list[Row] = []
    for number, kind in enumerate(TYPES):
        folder = home / images / kind
        folder.mkdir(parents=True)
        for i in range(30 * number + 1, 30 * number + 31):
            Image.new("RGB", (8, 8), (grey(i),) * 3).save(folder / f"{i}.jpg", quality=95)
            rows.append((i, kind, statement(i)))
    write(home, rows)
    return rows


def write(home: Path, rows: Iterable[Row], header: tuple[str, ...] = HEADER) -> None:
    with (home / "Questions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def rows_of(table: Path) -> list[tuple[str, str, str]]:
    with table.open(newline="") as file:
        return [(a, b, c) for a, b, c in csv.reader(file)][1:]


def grey(i: int) -> int:
    """Odd pictures are darker, except where both are alike: the last pair of each type."""
    return 100 if i % 30 in (29, 0) else 40 + i % 30 + 60 * (i % 2 == 0)


def statement(i: int) -> str:
    """True ones but for the first so many of each type, as many as its number: there both say "light"."""
    kind, place = divmod(i - 1, 30)
    return "a light one, with a comma" if i % 2 == 0 or place < 2 * kind else "a dark one, with a comma"


class Greys:
    """Reads how light a picture is, and the word."""

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.float().mean((1, 2, 3)) / 255
        return torch.stack([mean, 1 - mean], 1)

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        assert all(text.startswith("a photo of a ") for text in texts)
        return torch.tensor([[1.0, 0.0] if "light" in text else [0.0, 1.0] for text in texts])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mmvp")
    published(place)
    return place


@pytest.fixture
def table(home: Path) -> Iterable[Path]:
    """A table that a test may spoil."""
    kept = (home / "Questions.csv").read_bytes()
    yield home / "Questions.csv"
    (home / "Questions.csv").write_bytes(kept)


def test_the_score_is_the_published_one_worked_out_by_hand(home: Path) -> None:
    """Type k has k pairs whose first statement is wrong, and one, not among these, of equal pictures."""
    found = pair_accuracy(Greys(), read_mmvp(home), read=image_reader(8))
    assert list(found.patterns) == list(TYPES.values())
    assert [score.right for score in found.patterns.values()] == [14 - k for k in range(9)]
    assert {score.n_pairs for score in found.patterns.values()} == {15}
    # The pair of equal pictures: both statements tie, so that of the first picture is answered wrongly.
    assert [score.ties for score in found.patterns.values()] == [2] * 9
    assert (found.all.right, found.all.n_pairs, found.all.ties) == (sum(14 - k for k in range(9)), 135, 18)
    assert found.mean == pytest.approx(100 * found.all.right / 135) == pytest.approx(found.all.accuracy)


def test_the_score_is_that_of_a_loop_over_the_table_as_the_published_one_reads_it(home: Path) -> None:
    rows = rows_of(home / "Questions.csv")
    right = [0] * 9
    for number, (first, second) in enumerate(zip(rows[::2], rows[1::2], strict=True)):
        folder = home / FOLDERS[0] / first[1]
        light = [np.asarray(Image.open(folder / f"{row[0]}.jpg")).mean() / 255 for row in (first, second)]
        images = [np.array([mean, 1 - mean]) for mean in light]
        answers = []
        for row in (first, second):
            text = np.array([1.0, 0.0] if "light" in row[2] else [0.0, 1.0])
            logits = [100 * float(image @ text) / float(np.linalg.norm(image)) for image in images]
            answers.append(0 if 1 / (1 + np.exp(logits[1] - logits[0])) > 0.5 else 1)
        right[number // 15] += answers == [0, 1]
    found = pair_accuracy(Greys(), read_mmvp(home), read=image_reader(8))
    assert [score.right for score in found.patterns.values()] == right


def test_columns_are_found_by_name_and_otherwise_by_order(home: Path, table: Path) -> None:
    expected = read_mmvp(home)
    rows = rows_of(table)
    write(home, rows, ("lfd", "Kategorie", "Satz"))
    assert read_mmvp(home) == expected
    write(home, [(c, a, b) for a, b, c in rows], ("statement", "question_id", "TYPE"))
    assert read_mmvp(home) == expected
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes() + b"\r\n\r\n")
    assert read_mmvp(home) == expected


def test_the_other_name_of_the_folder_is_known(tmp_path: Path) -> None:
    published(tmp_path, FOLDERS[1])
    assert len(read_mmvp(tmp_path)) == 135


def test_a_pair_has_the_type_of_its_first_row(home: Path, table: Path) -> None:
    rows = rows_of(table)
    write(home, [(rows[0][0], "Color", "x"), *rows[1:]])
    with pytest.raises(DataError, match=r"2 of 270 images are not there, first .*Color/1\.jpg"):
        read_mmvp(home)


def test_fewer_pairs_than_published_are_scored_with_a_warning(
    home: Path, table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(home, rows_of(table)[:4])
    with caplog.at_level(logging.WARNING):
        assert len(read_mmvp(home)) == 2
    assert "2 pairs, not 135 as published" in caplog.text


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (HEADER, [(1, "Orientation", "a")], "1 rows below the header; expected an even number"),
        (HEADER, [], "0 rows below the header"),
        (
            HEADER,
            [(1, "Colour", "a"), (2, "Colour", "b")],
            "csv:2: the type 'Colour' is unknown; expected",
        ),
        (
            HEADER,
            [(2, "Orientation", "a"), (3, "Orientation", "b")],
            "the ids '2' and '3' are no pair",
        ),
        (
            HEADER,
            [(1, "Orientation", "a"), (4, "Orientation", "b")],
            "csv:3: the ids '1' and '4' are no pair",
        ),
        (HEADER, [("one", "Orientation", "a"), (2, "Orientation", "b")], "the ids 'one' and '2' are no pair"),
        (HEADER, [(1, "Orientation", " "), (2, "Orientation", "b")], "csv:2: the statement is empty"),
        (
            HEADER,
            [(1, "Orientation", "a", "b"), (2, "Orientation", "b")],
            "csv:2: 4 cells, but the header",
        ),
        (
            ("1", "Orientation", "a"),
            [(2, "Orientation", "b")],
            "the header is '1', 'Orientation'",
        ),
        (("a", "b"), [(1, 2)], "the header is 'a', 'b'; expected three columns"),
        (
            HEADER,
            [(999, "Orientation", "a"), (1000, "Orientation", "b")],
            "2 of 2 images are not there, first",
        ),
    ],
)
def test_a_table_that_is_not_the_published_kind_is_refused_by_line(
    home: Path, table: Path, header: tuple[str, ...], rows: list[Row], message: str
) -> None:
    write(home, rows, header)
    with pytest.raises(DataError, match=message):
        read_mmvp(home)


def test_what_is_no_copy_of_mmvp_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Questions\.csv: cannot be read: No such file"):
        read_mmvp(tmp_path)
    (tmp_path / "Questions.csv").write_text("")
    with pytest.raises(DataError, match=r"Questions\.csv: is empty"):
        read_mmvp(tmp_path)
    (tmp_path / "Questions.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no CSV file in UTF-8"):
        read_mmvp(tmp_path)
    write(tmp_path, [(1, "Orientation", "a"), (2, "Orientation", "b")])
    with pytest.raises(DataError, match="no folder of images; expected 'MLLM_VLM Images' or"):
        read_mmvp(tmp_path)


def test_pairs_of_ones_own_are_read_relative_to_their_table_and_scored(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, colour in (("dark", 10), ("light", 240)):
        Image.new("L", (9, 5), colour).save(tmp_path / "in" / f"{name}.png")
    text = (
        "pattern,text_1,text_2,image_1,image_2,note\n"
        "tone,a dark one,a light one,in/dark.png,in/light.png,\n"
        '"tone, turned",a dark one,a light one,in/light.png,in/dark.png,x\n'
    )
    (tmp_path / "pairs.csv").write_text(text)
    pairs = read_pairs(tmp_path / "pairs.csv")
    assert pairs[1].ids == ("in/light.png", "in/dark.png")
    found = pair_accuracy(Greys(), pairs, read=image_reader(4))
    assert {name: score.accuracy for name, score in found.patterns.items()} == {
        "tone": 100,
        "tone, turned": 0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_1,image_2,text_1,text_2\n", "no column 'pattern'; expected image_1"),
        ("image_1,image_2,text_1,text_2,pattern\n", "no pairs below the header"),
        ("image_1,image_2,text_1,text_2,pattern\na,b,c,,d\n", "pairs.csv:2: text_2 is empty"),
        (
            "image_1,image_2,text_1,text_2,pattern\na.png,b.png,c,d,e\n",
            "2 of 2 images are not there, first .*a.png",
        ),
    ],
)
def test_a_table_of_pairs_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / "pairs.csv")
