from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from command import Run
from PIL import Image
from test_cli import SMALL, write_pictures

from overtone import multistage

TRAIN = ("train.epochs=1", "train.batch_size=8", "stages=2", "threads=1")


def huge_png() -> bytes:
    """A PNG whose header promises 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def write_bad(folder: Path) -> dict[str, str]:
    """Files that only look like pictures; gives the name of each and what is said of it."""
    good = next(folder.glob("*.jpg")).read_bytes()
    content = {
        "a-empty.jpg": (b"", "0 bytes"),
        "b-truncated.jpg": (good[: len(good) // 2], "truncated"),
        "c-page.jpg": (b"<html><body>404</body></html>", "not an image of a known format"),
        "d-postscript.jpg": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "not an image of a known format",
        ),
        "e-huge.png": (huge_png(), "pixels"),
    }
    for name, (data, _) in content.items():
        (folder / name).write_bytes(data)
    return {name: reason for name, (_, reason) in content.items()}


def test_unreadable_files_are_counted_and_named_and_training_goes_on(tmp_path: Path, overtone: Run) -> None:
    write_pictures(tmp_path / "p", classes=False)
    for name in list(write_bad(tmp_path / "p"))[3:]:
        (tmp_path / "p" / name).unlink()
    run = ("train", "--data", tmp_path / "p", "--out", tmp_path / "run", *TRAIN)
    code, out, _ = overtone(*run, "data.max_bad_fraction=0.1")
    assert code == 0
    assert "warning: p: 3 of 69 images cannot be read and are left out" in out
    assert all(name in out for name in ("a-empty.jpg", "b-truncated.jpg", "c-page.jpg"))


def test_too_many_unreadable_files_end_with_exit_code_3_and_their_reasons(
    tmp_path: Path, overtone: Run
) -> None:
    write_pictures(tmp_path / "p", classes=False)
    reasons = write_bad(tmp_path / "p")
    code, _, complaint = overtone("train", "--data", tmp_path / "p", "--out", tmp_path / "run", *TRAIN)
    assert code == 3
    assert "5 of 71 images cannot be read, more than max_bad_fraction=0.01" in complaint
    assert all(f"{name!r} (" in complaint for name in list(reasons)[:3])
    assert reasons["b-truncated.jpg"] in complaint


@pytest.mark.parametrize("name", ["e-huge.png", "d-postscript.jpg"])
def test_a_bomb_and_a_postscript_file_are_refused_from_their_first_bytes(
    tmp_path: Path, overtone: Run, name: str
) -> None:
    write_pictures(tmp_path / "p", classes=False)
    reasons = write_bad(tmp_path / "p")
    for other in set(reasons) - {name}:
        (tmp_path / "p" / other).unlink()
    code, out, _ = overtone("train", "--data", tmp_path / "p", "--out", tmp_path / "run", *TRAIN, "stages=1")
    assert code == 0
    assert f"'{name}' (" in out
    assert reasons[name] in out


def test_file_names_of_every_kind_work_and_none_reaches_the_terminal_raw(
    tmp_path: Path, overtone: Run
) -> None:
    folder = tmp_path / "p\x1b[31m"
    write_pictures(folder / "☺", classes=False, n=33)
    write_pictures(folder / "two\nlines", classes=False, n=33)
    odd = os.fsencode(folder / "☺") + b"/caf\xe9\x1b[2J.jpg"
    with open(odd, "wb") as file:
        file.write(next((folder / "☺").glob("*.jpg")).read_bytes())
    (folder / "☺" / "<script>\x1b]0;x\x07.jpg").write_bytes(b"")
    code, out, complaint = overtone("train", "--data", folder, "--out", tmp_path / "run", *TRAIN)
    assert code == 0, complaint
    assert "\x1b" not in out + complaint
    assert "\x07" not in out
    assert "<script>" in out
    code, _, _ = overtone("embed", tmp_path / "run", "--data", folder, "--out", tmp_path / "e.parquet")
    assert code == 0


def test_data_that_changed_since_are_refused_on_resume(tmp_path: Path, overtone: Run) -> None:
    write_pictures(tmp_path / "p", classes=False)
    assert overtone("train", "--data", tmp_path / "p", "--out", tmp_path / "run", *TRAIN)[0] == 0
    Image.new("RGB", (40, 40)).save(tmp_path / "p" / "new.jpg")
    code, _, complaint = overtone("resume", tmp_path / "run")
    assert code == 4
    assert "was made from another data" in complaint


def test_an_array_of_objects_is_refused_without_unpickling(tmp_path: Path, overtone: Run) -> None:
    np.save(tmp_path / "o.npy", np.array([{"a": 1}] * 40, dtype=object), allow_pickle=True)
    code, _, complaint = overtone("train", "--data", tmp_path / "o.npy", "--out", tmp_path / "run")
    assert code == 3
    assert "o.npy" in complaint


def test_pictures_of_one_colour_end_in_a_message_and_not_in_a_traceback(
    tmp_path: Path, overtone: Run
) -> None:
    np.save(tmp_path / "same.npy", np.full((70, 32, 32, 3), 7, np.uint8))
    code, _, complaint = overtone("train", "--data", tmp_path / "same.npy", "--out", tmp_path / "run", *TRAIN)
    assert code in (0, 6), complaint


def test_labels_that_name_other_files_are_refused_by_line(tmp_path: Path, overtone: Run) -> None:
    write_pictures(tmp_path / "p", classes=False)
    (tmp_path / "l.csv").write_text("file_name,kind\n00.jpg,a\nnone.jpg,b\n")
    train = ("train", "--data", tmp_path / "p", "--out", tmp_path / "run", *TRAIN)
    assert overtone(*train, "stages=1")[0] == 0
    evaluate = ("evaluate", tmp_path / "run", "--data", tmp_path / "p", "--labels", tmp_path / "l.csv")
    code, _, complaint = overtone(*evaluate)
    assert code == 3
    assert "l.csv:3: 'none.jpg' is none of the images" in complaint


def test_labels_of_a_single_value_leave_the_table_out_and_say_so(tmp_path: Path, overtone: Run) -> None:
    write_pictures(tmp_path / "p", classes=False)
    (tmp_path / "p" / "metadata.csv").write_text("file_name,kind\n00.jpg,a\n01.jpg,a\n")
    code, out, _ = overtone("train", "--data", tmp_path / "p", "--out", tmp_path / "run", *TRAIN)
    assert code == 0
    assert "kind: left out of the table: too few labelled samples or a single value" in out
    assert "there is no table" in out


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("temprature: 0.1", "r.yaml:6 temprature: unknown field"),
        (
            "method: {name: simclr, temprature: 1}",
            "method.temprature: unknown field; did you mean `temperature`?",
        ),
        ("method: {name: simclr, temperature: 0}", "temperature=0: expected a finite number > 0"),
        ("method: {name: simclr, temperature: .nan}", "temperature=nan: expected a finite number > 0"),
        ("method: {name: simclr, temperature: .inf}", "temperature=inf: expected a finite number > 0"),
        ("_target_: os.system", "_target_: unknown field; known are "),
        ("encoder: {_target_: os.system}", "encoder.name: is missing; expected one of small_cnn"),
        ("encoder: {name: os.system}", "encoder.name: 'os.system' is unknown; known are"),
        ("encoder: {name: 'os:system', command: 'true'}", "'os:system' is no class and no Python function"),
        ("encoder: {name: 'collections:Counter'}", "made a Counter, expected a torch.nn.Module"),
        ("encoder: {name: 'ast:parse', source: '1'}", "made a Module, expected a torch.nn.Module"),
        ("seed: -1", "seed: -1: input should be greater than or equal to 0"),
        ("precision: fp8", "precision: 'fp8': input should be 'fp32', 'bf16' or 'auto'"),
        ("threads: 0", "threads: 0: input should be greater than or equal to 1"),
        ("num_workers: -1", "num_workers: -1: input should be greater than or equal to 0"),
        ("loggers: [foo]", "loggers[0]: 'foo': input should be 'tensorboard' or 'wandb'"),
    ],
)
def test_a_wrong_value_ends_with_exit_code_2_and_its_field(
    tmp_path: Path, overtone: Run, lines: str, message: str
) -> None:
    (tmp_path / "r.yaml").write_text(SMALL.replace("threads: 1", "") + lines + "\n")
    code, _, complaint = overtone("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    assert (code, message in complaint, "Traceback" in complaint) == (2, True, False), complaint


def test_cells_too_small_for_any_batch_end_with_their_sizes_and_what_to_do(
    tmp_path: Path, overtone: Run
) -> None:
    stages = "stages: [{}, {n_clusters: 20, cells_per_batch: 1, min_batch_size: 16}]"
    (tmp_path / "r.yaml").write_text(SMALL.replace("stages: 2", stages))
    code, _, complaint = overtone("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    assert code == 2
    assert "no cell gives a batch of min_batch_size=16" in complaint
    assert "cells by size: 2-3:" in complaint
    assert "take fewer clusters, a smaller batch_size" in complaint


def test_cells_that_are_left_out_are_counted_in_the_line_of_coverage(tmp_path: Path, overtone: Run) -> None:
    stages = "stages: [{}, {n_clusters: 9, cells_per_batch: 1, min_batch_size: 7}]"
    (tmp_path / "r.yaml").write_text(SMALL.replace("stages: 2", stages))
    code, out, _ = overtone("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    assert code == 0
    assert " samples never used" in out


def test_a_size_that_no_memory_holds_is_refused_before_anything_is_read(
    tmp_path: Path, overtone: Run
) -> None:
    write_pictures(tmp_path / "p", classes=False)
    code, _, complaint = overtone("train", "--data", tmp_path / "p", "data.image_size=100000", *TRAIN)
    assert (code, "image_size=100000: more than 89,478,485 pixels" in complaint) == (2, True)


def test_what_ended_a_run_lies_in_its_folder_for_programs_until_it_goes_on(
    tmp_path: Path, overtone: Run
) -> None:
    (tmp_path / "r.yaml").write_text(SMALL)
    run = ("train", tmp_path / "r.yaml", "--out", tmp_path / "run", "stages=1")
    code, _, complaint = overtone(*run, "method.name=simclr", "method.temperature=-1")
    kept = json.loads((tmp_path / "run" / "error.json").read_text())
    assert (kept["kind"], kept["exit_code"]) == ("RecipeError", code)
    assert kept["message"] in complaint
    assert kept["traceback"].startswith("Traceback")
    assert overtone(*run)[0] == 0
    assert not (tmp_path / "run" / "error.json").exists()


def test_a_fault_of_ours_is_one_line_and_its_traceback_is_kept_or_shown_on_request(
    tmp_path: Path, overtone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("\x1b[31mname")

    monkeypatch.setattr(multistage, "run", broken)
    monkeypatch.setenv("OVERTONE_DEBUG", "")  # put back at the end
    (tmp_path / "r.yaml").write_text(SMALL)
    run = ("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    code, _, complaint = overtone(*run)
    assert code == 1
    assert "KeyError: '\\x1b[31mname'. This should not happen" in complaint
    assert len(complaint.splitlines()) == 1
    assert "in broken" in json.loads((tmp_path / "run" / "error.json").read_text())["traceback"]
    with pytest.raises(KeyError):
        overtone("--debug", *run)
