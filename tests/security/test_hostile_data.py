"""Data from the network: pictures, archives, tables and names made to do harm."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import Run
from layouts import write_files, write_tar
from PIL import Image
from test_cli import write_pictures

from overtone.datasets import Captioned, arrays, image_folder, open_dataset, open_source, parquet
from overtone.datasets.decoding import MAX_PIXELS, Framing, decoded
from overtone.errors import DataError, RecipeError
from overtone.recipe import read

TRAIN = ("train.epochs=1", "train.batch_size=8", "stages=1", "threads=1")
AS_IS = Framing.of(None, None, "crop")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, extra: bytes = b"", pixels: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def saved(kind: str) -> bytes:
    Image.new("RGB", (8, 8)).save(file := io.BytesIO(), kind)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", ["kept", "removed"])
@pytest.mark.parametrize("side", [9460, 30_000, 2_000_000])
def test_a_bomb_is_refused_by_its_header_even_where_a_program_removed_pillows_own_limit(
    monkeypatch: pytest.MonkeyPatch, limit: str, side: int
) -> None:
    if limit == "removed":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert side * side > MAX_PIXELS
    with pytest.raises((ValueError, Image.DecompressionBombError), match="pixels"):
        decoded(png(side, side), AS_IS)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        ("a.jpg", b"<!doctype html><script>alert(1)</script>", "not an image of a known format"),
        ("a.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of a known format"),
        ("a.jpg", b"%PDF-1.7\n", "not an image of a known format"),
        ("a.jpg", saved("TIFF"), "a TIFF file named .jpg"),
        ("a.jpg", saved("PPM"), "not an image of a known format"),
        ("a.jpg", saved("ICO"), "not an image of a known format"),
        ("a.png", png(8, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * (64 << 20)))), "too large"),
        ("a.png", png(8, 8), "truncated"),
    ],
)
def test_a_file_in_disguise_is_left_out_with_its_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    for number in range(3):
        (tmp_path / f"good-{number}.png").write_bytes(saved("PNG"))
    (tmp_path / name).write_bytes(content)
    ((quarantined, why),) = image_folder(tmp_path).quarantined
    assert quarantined == name
    assert reason in why


def test_a_tiff_by_its_own_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(saved("TIFF"))
    assert len(image_folder(tmp_path)) == 1


def test_what_is_no_file_or_too_large_is_left_out_unread(tmp_path: Path, overtone: Run) -> None:
    write_pictures(tmp_path / "p", classes=False)
    os.mkfifo(tmp_path / "p" / "pipe.jpg")
    with (tmp_path / "p" / "sparse.jpg").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "p" / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "p" / "nowhere.jpg").symlink_to("gone.jpg")
    run = ("train", "--data", tmp_path / "p", "--out", tmp_path / "run", *TRAIN)
    code, out, complaint = overtone(*run, "data.max_bad_fraction=0.05")
    assert code == 0, complaint
    assert "4 of 70 images cannot be read" in out
    assert all(words in out for words in ("'pipe.jpg' (no regular file)", "'circle.jpg' (", "and 1 more"))


def test_links_that_leave_the_data_are_refused_unless_asked_for(tmp_path: Path, overtone: Run) -> None:
    write_pictures(tmp_path / "p", classes=False)
    write_pictures(tmp_path / "outside" / "deep", classes=False, n=2)
    (tmp_path / "p" / "linked").symlink_to(tmp_path / "outside")
    (tmp_path / "p" / "circle").symlink_to(tmp_path / "p")
    run = ("train", "--data", tmp_path / "p", "--out", tmp_path / "run", *TRAIN)
    code, _, complaint = overtone(*run)
    assert code == 3
    assert "linked' is a link that leaves it" in complaint
    assert "data.follow_links=true" in complaint
    assert overtone(*run, "data.follow_links=true")[0] == 0
    assert len(image_folder(tmp_path / "p", image_size=16, follow_links=True)) == 68


def test_a_link_to_a_parquet_file_elsewhere_is_refused_unless_asked_for(tmp_path: Path) -> None:
    table = pa.table({"image": [saved("PNG")] * 3})
    pq.write_table(table, tmp_path / "secret.parquet")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.parquet").symlink_to(tmp_path / "secret.parquet")
    with pytest.raises(DataError, match="link that leaves"):
        parquet(tmp_path / "p")
    assert len(parquet(tmp_path / "p", follow_links=True)) == 3


@pytest.mark.parametrize(
    "metadata",
    [b"{", b"[]", b"[" * 100_000, b'{"info": 3}', b'{"info": {"features": 3}}']
    + [b'{"info": {"features": {"l": {"_type": "ClassLabel", "names": %s}}}}' % n for n in (b"3", b"[1]")],
    ids=range(7),
)
def test_damaged_metadata_of_a_parquet_file_cost_the_names_of_classes_alone(
    tmp_path: Path, metadata: bytes
) -> None:
    table = pa.table({"image": [saved("PNG")] * 3, "l": [0, 1, 1]})
    pq.write_table(table.replace_schema_metadata({b"huggingface": metadata}), tmp_path / "a.parquet")
    dataset = parquet(tmp_path / "a.parquet")
    assert dataset.labels["l"].tolist() == [0, 1, 1]
    assert dataset.label_names["l"] == ("0", "1")


def test_flipped_bytes_anywhere_in_a_parquet_file_end_in_a_message(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [saved("PNG")] * 40, "l": list(range(40))}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    refused = 0
    for place in range(4, len(whole), len(whole) // 60):
        (tmp_path / "a.parquet").write_bytes(whole[:place] + b"\xff\xff\xff\xff" + whole[place + 4 :])
        try:
            parquet(tmp_path / "a.parquet")
        except (DataError, RecipeError):
            refused += 1
    assert refused > 20


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.mark),)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_pickle_among_arrays_is_refused_unread(tmp_path: Path, name: str) -> None:
    bombs = np.array([[[_Bomb(tmp_path / "mark")] * 2] * 2] * 2, dtype=object)
    if name == "a.npy":
        np.save(tmp_path / name, bombs, allow_pickle=True)
    else:
        np.savez(tmp_path / name, images=bombs)
    with pytest.raises(DataError, match="Python objects"):
        arrays(tmp_path / name)
    assert not (tmp_path / "mark").exists()


def test_a_zip_that_unpacks_to_more_than_memory_is_refused_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", b"")
    content = bytearray((tmp_path / "a.npz").read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFFFFF0)
    (tmp_path / "a.npz").write_bytes(bytes(content))
    with pytest.raises(DataError):
        arrays(tmp_path / "a.npz")


NASTY = "k\x1b[31m\u202e[bold]|<script>\x07"


def test_names_and_values_of_labels_reach_neither_terminal_nor_tables_raw(
    tmp_path: Path, overtone: Run
) -> None:
    write_pictures(tmp_path / "p", classes=False)
    values = (b"a\xff", b"b\x1b]0;x\x07")
    rows = b"".join(b"%02d.jpg,%s\n" % (i, values[i % 2]) for i in range(66))
    (tmp_path / "p" / "metadata.csv").write_bytes(b"file_name," + NASTY.encode() + b"\xff\n" + rows)
    run = tmp_path / "run"
    code, out, complaint = overtone("train", "--data", tmp_path / "p", "--out", run, *TRAIN)
    assert code == 0, complaint
    shown = out + complaint + (run / "table.md").read_text()
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)
    assert "[bold]" in out
    assert "<script>" not in (run / "table.md").read_text()
    assert (run / "results.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "payload",
    [
        "!!python/object/apply:os.mknod ['{mark}']",
        "!!python/object/new:os.mknod ['{mark}']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/tuple [1]",
    ],
)
def test_yaml_makes_no_objects_neither_in_a_file_nor_in_an_override(tmp_path: Path, payload: str) -> None:
    text = payload.replace("{mark}", str(tmp_path / "mark"))
    (tmp_path / "r.yaml").write_text(f"data: {{source: trifeature, n: {text}}}\n")
    with pytest.raises(RecipeError, match="not plain YAML"):
        read(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text("data: {source: trifeature}\n")
    with pytest.raises(RecipeError, match="not a YAML value"):
        read(tmp_path / "r.yaml", [f"data.n={text}"])
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_out_of_image_text_data_is_refused_unless_asked_for(tmp_path: Path, linked: str) -> None:
    files = {
        f"{i}{end}": content for i in range(3) for end, content in ((".png", saved("PNG")), (".txt", b"t"))
    }
    write_files(tmp_path / "secret/pairs", files)
    write_tar(tmp_path / "secret/tars/a.tar", files)
    write_tar(tmp_path / "in/tars/b.tar", files)
    write_files(tmp_path / "in/pairs", {"9.png": saved("PNG"), "9.txt": b"t"})
    for kind, name in (("pairs", "1.png"), ("tars", "a.tar")):
        what = f"{kind}/{name}" if linked == "file" else kind
        (tmp_path / "in" / kind / ("linked" if linked == "folder" else name)).symlink_to(
            tmp_path / "secret" / what
        )
    (tmp_path / "in/pairs/1.txt").write_bytes(b"t")
    (tmp_path / "in/all.csv").write_text(f"path,text\npairs/{'linked/' * (linked == 'folder')}1.png,t\n")
    pattern = tmp_path / "in/tars" / ("*/*.tar" if linked == "folder" else "*.tar")
    for path, count in (("in/pairs", 4 if linked == "folder" else 2), ("in/tars", 6), (pattern, None)):
        with pytest.raises(DataError, match="is a link that leaves it"):
            open_dataset(tmp_path / path)
        with pytest.raises(DataError, match="is a link that leaves it"):
            open_source(tmp_path / path)
        dataset = open_dataset(tmp_path / path, follow_links=True)
        assert isinstance(dataset, Captioned)
        assert count in (None, len(dataset), len(open_source(tmp_path / path, follow_links=True).ids))
    with pytest.raises(DataError, match="lies outside"):
        open_dataset(tmp_path / "in/all.csv")
    assert len(open_dataset(tmp_path / "in/all.csv", follow_links=True)) == 1
    (tmp_path / "in/all.csv").write_text("path,text\n../secret/pairs/1.png,t\n")
    with pytest.raises(DataError, match="lies outside"):
        open_dataset(tmp_path / "in/all.csv", follow_links=True)


def test_an_index_of_tars_is_not_written_through_a_link(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", {"1.png": saved("PNG"), "1.txt": b"t"})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in/.overtone-index").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link that leaves its folder"):
        open_dataset(tmp_path / "in")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_tiff_named_jpg_in_a_tar_is_left_out_too(tmp_path: Path) -> None:
    members = {"1.png": saved("PNG"), "1.txt": b"t", "2.jpg": saved("TIFF"), "2.txt": b"t"}
    dataset = open_dataset(write_tar(tmp_path / "a.tar", members))
    assert isinstance(dataset, Captioned)
    assert dataset.quarantined == [("a/2", "a TIFF file named .jpg")]
