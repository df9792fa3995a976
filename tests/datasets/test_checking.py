"""`overtone data check` and `overtone data index`: what they count, and how they end."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from command import Run
from layouts import pairs_of, png, write_files, write_parquet, write_tar

from overtone.datasets.checking import check
from overtone.errors import DataError


def bad_pairs() -> dict[str, bytes]:
    """Ten pairs, two of which have equal texts and one a long one; and one of each kind of bad ones."""
    members = pairs_of(15) | {"0001.txt": b"red  0\n", "0002.txt": b"x" * 20_000, "0003.png": png(3, (30, 9))}
    members |= {"0010.txt": b"", "0011.png": b"%!PS", "0012.png": b"", "0013.txt": b"\xff"}
    del members["0014.txt"]
    return members


EXPECTED = [
    "15 samples, 5 (33.33%) cannot be used",
    "  2 x an unreadable picture: 0011, 0012",
    "  1 x an empty text: 0010",
    "  1 x a text that is not UTF-8: 0013",
    "  1 x no text: 0014",
    "texts: characters 5 to 16,384, median 5; 1 (10.00%) equal to an earlier one, most often 'red 0', "
    "2 times; 1 cut to 16,384 characters",
    "pictures: width 4 to 30, median 4; height 4 to 9, median 4",
]


def test_every_kind_of_fault_is_counted_alike_in_files_and_in_tars(tmp_path: Path) -> None:
    assert list(check(write_files(tmp_path / "files", bad_pairs())).lines) == EXPECTED
    in_tar = check(write_tar(tmp_path / "a.tar", bad_pairs())).lines
    assert [line.replace("a/", "") for line in in_tar] == EXPECTED


def test_the_command_ends_well_within_the_share_tolerated_and_lists_the_rest(
    tmp_path: Path, overtone: Run
) -> None:
    root = write_files(tmp_path / "files", bad_pairs())
    listed = tmp_path / "bad.csv"
    code, out, _ = overtone("data", "check", root, "--max-bad-fraction", 0.33, "--list", listed)
    assert (code, out.splitlines()[1:8]) == (0, EXPECTED)
    rows = list(csv.reader(listed.open()))
    assert (rows[0], [row[0] for row in rows[1:]]) == (["id", "reason"], [f"00{i}" for i in range(10, 15)])
    code, out, complaint = overtone("data", "check", root)
    assert (code, out.splitlines()[1:8]) == (3, EXPECTED)
    assert "5 of 15 samples cannot be used, more than max_bad_fraction=0.01" in complaint


@pytest.mark.parametrize("name", ["nowhere/bad.csv", "."])
def test_a_list_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, overtone: Run, name: str
) -> None:
    code, out, complaint = overtone("data", "check", tmp_path / "none", "--list", tmp_path / name)
    assert (code, out) == (2, "")
    assert "expected a file in an existing folder" in complaint


def test_a_list_that_finds_the_disk_full_is_a_disk_error(tmp_path: Path, overtone: Run) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    root = write_files(tmp_path / "files", bad_pairs())
    code, _, complaint = overtone("data", "check", root, "--max-bad-fraction", 1, "--list", full)
    assert (code, "/dev/full: cannot be written: No space left on device" in complaint) == (5, True)


def test_paths_with_nul_or_bytes_that_are_no_utf_8_are_listed_as_bad(tmp_path: Path, overtone: Run) -> None:
    write_files(tmp_path, {"1.png": png(1)})
    (tmp_path / "all.csv").write_bytes(b"path,text\n1.png,a\na\0.png,b\n\xe9.png,c\n")
    options = ("--max-bad-fraction", 1, "--list", tmp_path / "bad.csv")
    code, out, _ = overtone("data", "check", tmp_path / "all.csv", *options)
    assert (code, "3 samples, 2 (66.67%) cannot be used" in out) == (0, True)
    assert [line.split(b",")[0] for line in (tmp_path / "bad.csv").open("rb")][1:] == [
        b"a\\udc00.png",
        b"\xe9.png",
    ]


def test_ids_of_every_kind_can_be_listed(tmp_path: Path) -> None:
    found = check(write_files(tmp_path / "files", {"1.png": png(1)}))
    names = ["a\0b", "no byte \ud800", "a byte \udce9"]
    found._replace(bad=[(name, "why") for name in names]).write(tmp_path / "bad.csv")
    with (tmp_path / "bad.csv").open("rb") as file:
        ids = [line.split(b",")[0] for line in file][1:]
    assert ids == [b"a\0b", b"no byte \\ud800", b"a byte \xe9"]


def test_columns_are_given_to_the_command_and_what_does_not_fit_is_an_error(
    tmp_path: Path, overtone: Run
) -> None:
    write_files(tmp_path / "p", {"1.png": png(1), "2.png": png(2)})
    (tmp_path / "all.csv").write_text("where,what\n1.png,one\n2.png,two\n")
    columns = ("--image", "where", "--text", "what")
    code, out, _ = overtone("data", "check", tmp_path / "all.csv", *columns, "--root", tmp_path / "p")
    assert (code, "2 samples, 0 (0.00%)" in out) == (0, True)
    code, _, complaint = overtone("data", "check", tmp_path / "p", "--text", "what")
    assert (code, "is read as `folder`, which takes no such" in complaint) == (2, True)
    table = write_parquet(tmp_path / "a.parquet", {"image": [png(1)], "what": ["one"]})
    assert "texts: characters 3 to 3" in overtone("data", "check", table, "--text", "what")[1]
    assert "texts" not in overtone("data", "check", table)[1]
    assert overtone("data", "check", tmp_path / "none")[0] == 3


def test_the_index_is_made_once_and_its_counts_printed(tmp_path: Path, overtone: Run) -> None:
    write_tar(tmp_path / "00000.tar", {**pairs_of(3), "0000.npy": b"x", "../0009.txt": b"out"})
    write_tar(tmp_path / "00001.tar", pairs_of(2))
    for turn in range(2):
        code, out, _ = overtone("data", "index", tmp_path)
        assert (code, "looks for the members of 2 tars, once" in out) == (0, turn == 0)
        assert f"{tmp_path}: 2 tars, 5 keys: 5 png, 5 txt." in out
        assert "1 members of other kinds are not read." in out
        assert "left out: 00000.tar: 1 x a name that leads out of the archive" in out
    code, _, complaint = overtone("data", "index", "pipe:cat.tar")
    assert (code, "commands and addresses are not opened" in complaint) == (2, True)


def test_damaged_shards_are_printed_and_then_counted_as_bad(tmp_path: Path, overtone: Run) -> None:
    for name in ("a", "b"):
        path = write_tar(tmp_path / f"{name}.tar", pairs_of(3))
        path.write_bytes(path.read_bytes().rstrip(b"\0"))
    code, out, complaint = overtone("data", "check", tmp_path)
    assert code == 3
    assert "a.tar: damaged: unexpected end of data" in out
    assert "2 of 2 files are damaged" in complaint
    assert overtone("data", "check", tmp_path, "--max-bad-fraction", 1)[0] == 0


def test_where_no_picture_can_be_read_that_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 2 images can be read"):
        check(write_files(tmp_path, {"1.png": b"", "2.png": b"x"}))
