from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command import Run
from layouts import write_parquet
from PIL import Image

from overtone import artifacts
from overtone.integration import load

COLOURS = ("blue", "green", "red")
SMALL = """
data: {source: trifeature, n: 64, image_size: 16}
train: {epochs: 1, batch_size: 16}
stages: 2
threads: 1
"""


def write_pictures(folder: Path, *, classes: bool, n: int = 66) -> None:
    """JPEGs of different sizes in three colours, each in the folder of its colour or all in one."""
    draw = np.random.default_rng(0)
    for i in range(n):
        height, width = draw.integers(33, 60, 2)
        pixels = draw.integers(0, 60, (height, width, 3), dtype=np.uint8)
        pixels[..., 2 - i % 3] += 150
        place = folder / COLOURS[i % 3] if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i:02}.jpg")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `plain` pictures, `labelled` ones, and a finished `run` on the first."""
    place = tmp_path_factory.mktemp("home")
    write_pictures(place / "plain", classes=False)
    write_pictures(place / "labelled", classes=True)
    assert (
        started(place, "train", "--data", "plain", "--out", "run", "train.epochs=1", "threads=1").wait(120)
        == 0
    )
    return place


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process and a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from overtone.cli import main; main()", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_neither_torch_nor_numpy(option: str) -> None:
    code = (
        "import sys; from overtone.cli import main\n"
        f"sys.argv = ['overtone', {option!r}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", ["demo", "train", "resume", "evaluate", "embed", "integrate", "diagnose"])
def test_every_command_explains_itself(overtone: Run, command: str) -> None:
    code, out, _ = overtone(command, "--help")
    assert code == 0
    assert f"overtone {command}" in " ".join(out.split())


def test_a_folder_of_pictures_becomes_embeddings_the_same_by_every_way(home: Path, overtone: Run) -> None:
    assert overtone("embed", home / "run", "--data", home / "plain", "--out", home / "e.npy")[0] == 0
    assert overtone("embed", home / "run", "--data", home / "plain", "--out", home / "e.parquet")[0] == 0
    embeddings, table = np.load(home / "e.npy"), pq.read_table(home / "e.parquet")
    np.testing.assert_array_equal(embeddings, np.stack(table["embedding"].to_numpy()))
    paths = [home / "plain" / name for name in table["id"].to_pylist()]
    np.testing.assert_allclose(load(home / "run").encode(paths), embeddings, atol=1e-6)


def test_a_run_trained_on_a_device_that_is_not_here_embeds_and_reads_on_what_is(
    home: Path, overtone: Run, tmp_path: Path
) -> None:
    run = shutil.copytree(home / "run", tmp_path / "run")
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("device: cpu", "device: cuda"))
    assert (run / "recipe.yaml").read_text() != text
    assert overtone("embed", run, "--data", home / "plain", "--out", tmp_path / "e.npy")[0] == 0
    assert overtone("evaluate", run, "--data", home / "labelled")[0] == 0


def test_embed_and_evaluate_are_told_which_columns_hold_pictures_and_texts(
    home: Path, tmp_path: Path, overtone: Run
) -> None:
    files = sorted((home / "plain").iterdir())
    columns: dict[str, list[object]] = {
        "picture": [file.read_bytes() for file in files],
        "colour": [i % 3 for i in range(len(files))],
    }
    table = write_parquet(tmp_path / "a.parquet", columns)
    shown = ("--data", table, "--image", "picture")
    assert overtone("embed", home / "run", *shown, "--out", tmp_path / "e.npy")[0] == 0
    assert overtone("embed", home / "run", "--data", home / "plain", "--out", tmp_path / "p.npy")[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "e.npy"), np.load(tmp_path / "p.npy"))
    code, out, _ = overtone("evaluate", home / "run", *shown)
    assert (code, "colour" in out) == (0, True)
    named = "".join(f"{file},a picture\n" for file in files)
    (tmp_path / "a.csv").write_text(f"where,what\n{named}")
    where = ("--data", tmp_path / "a.csv", "--image", "where", "--text", "what")
    code, _, complaint = overtone("embed", home / "run", *where, "--out", tmp_path / "c.npy")
    assert (code, "root=" in complaint) == (3, True)  # the columns are found; their paths lead elsewhere


def test_one_stage_can_be_embedded_alone(home: Path, overtone: Run) -> None:
    code, out, _ = overtone(
        "embed", home / "run", "--data", home / "plain", "--out", home / "s.npy", "--stage", 1
    )
    assert (code, np.load(home / "s.npy").shape) == (0, (66, 128))
    assert "66 embeddings of 128 values" in out


def test_an_integrated_encoder_is_shown_embeds_and_reads_other_data(
    home: Path, overtone: Run, tmp_path: Path
) -> None:
    run = shutil.copytree(home / "run", tmp_path / "run")
    code, out, _ = overtone("integrate", run, "--epochs", 1)
    assert (code, "distilled')" in out) == (0, True)
    made = ("embed", run, "--data", home / "plain", "--out", tmp_path / "e.npy", "--method", "distilled")
    assert overtone(*made)[0] == 0
    kept = np.load(run / "integrated" / "distilled" / "stage-0" / "embeddings" / "train.npy")
    np.testing.assert_allclose(np.load(tmp_path / "e.npy"), kept, atol=1e-5)
    code, out, _ = overtone("evaluate", run, "--data", home / "labelled")
    assert (code, "distilled" in out, "distilled keeps of what stages 0-2 gain" in out) == (0, True, True)


def test_a_run_without_labels_says_how_to_get_a_table(home: Path, overtone: Run) -> None:
    code, out, _ = overtone("evaluate", home / "run")
    assert code == 0
    assert "no table" in out
    assert "--data LABELLED" in out


def test_other_labelled_data_are_read_by_class_folders_or_by_a_csv_file(home: Path, overtone: Run) -> None:
    rows = [f"{i:02}.jpg,{COLOURS[i % 3]},{i % 2}\n" for i in range(66)]
    (home / "labels.csv").write_text("file_name,hue,odd\n" + "".join(rows))
    by_folder = overtone("evaluate", home / "run", "--data", home / "labelled")
    by_file = overtone("evaluate", home / "run", "--data", home / "plain", "--labels", home / "labels.csv")
    assert by_folder[0] == by_file[0] == 0
    assert "class" in by_folder[1]
    assert all(word in by_file[1] for word in ("hue", "odd", "stages 0-2"))
    assert not (home / "run" / "table.md").exists()
    assert "table.md" not in by_file[1]


def test_resuming_a_finished_run_trains_nothing(home: Path, overtone: Run) -> None:
    before = artifacts.digest(home / "run" / "stage-2" / "encoder")
    code, out, _ = overtone("resume", home / "run")
    assert code == 0
    assert artifacts.digest(home / "run" / "stage-2" / "encoder") == before
    assert "negatives" not in out


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["train"], 2, "give a recipe, or --data FOLDER, or --strategy"),
        (["train", "nowhere.yaml"], 2, "nowhere.yaml: cannot be read as a recipe"),
        (["train", "r.yaml", "--minutes", "3"], 2, "--minutes goes with --data"),
        (["train", "r.yaml", "--data", "plain"], 2, "one of them."),
        (["train", "r.yaml", "train.epochs=big"], 2, "r.yaml:3 train.epochs: 'big'"),
        (
            ["train", "r.yaml", "train.batch_size=99", "--out", "big"],
            2,
            "batch_size: 99, expected 2 to 64",
        ),
        (["train", "--data", "nowhere"], 3, "nowhere does not exist (in folder "),
        (["train", "--data", "r.yaml"], 3, "r.yaml is no such file"),
        (["train", "--data", "empty"], 3, "empty: no images; looked in it"),
        (["train", "--data", "plain", "train.epochs=x"], 2, "train.epochs: 'x'"),
        (["train", "r.yaml", "--out", "r.yaml"], 4, "r.yaml: is a file"),
        (["train", "r.yaml", "--out", "r.yaml/in"], 4, "r.yaml/in: is a file, or lies in one"),
        (["resume", "nowhere"], 4, "nowhere: holds no run"),
        (["evaluate", "plain"], 4, "plain: holds no run"),
        (["evaluate", "run", "--labels", "l.csv"], 2, "--labels l.csv: goes with --data"),
        (["evaluate", "run", "--data", "a.npy", "--labels", "l.csv"], 2, "--data a.npy is none"),
        (["evaluate", "run", "--image", "img"], 2, "--image img: goes with --data"),
        (["evaluate", "run", "--task", "mmvp", "--text", "t"], 2, "--text t: does not go with --task mmvp"),
        (["embed", "run", "--data", "plain", "--out", "e.npy", "--image", "img"], 2, "'image'"),
        (["embed", "run", "--data", "plain", "--out", "e.txt"], 2, "named *.npy or *.parquet"),
        (["embed", "run", "--data", "plain", "--out", "no/e.npy"], 2, "in an existing folder"),
        (["embed", "run", "--data", "plain", "--out", "e.npy", "--stage", "3"], 2, "stages 0 to 2"),
        (
            ["embed", "run", "--data", "plain", "--out", "e.npy", "--method", "whitened"],
            4,
            "overtone integrate run",
        ),
        (["integrate", "run", "--method", "averaged"], 2, "method: 'averaged' is unknown"),
        (["integrate", "run", "--method", "weighted", "--weights", "a,b"], 2, "--weights a,b: expected"),
        (["integrate", "run", "--method", "projected", "--dim", "400"], 2, "dim: 400; expected 1 to"),
        (["integrate", "plain"], 4, "plain: holds no run"),
        (["embed", "plain", "--data", "plain", "--out", "e.npy"], 4, "plain: holds no run"),
        (["trane"], 2, "Did you mean 'train'?"),
    ],
)
def test_a_mistake_ends_in_one_message_and_its_exit_code(
    home: Path,
    overtone: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    exit_code: int,
    message: str,
) -> None:
    monkeypatch.chdir(home)
    (home / "r.yaml").write_text(SMALL)
    (home / "empty").mkdir(exist_ok=True)
    code, _, complaint = overtone(*arguments)
    assert (code, message in complaint) == (exit_code, True), complaint
    assert "Traceback" not in complaint


def test_a_mended_recipe_may_use_the_folder_in_which_nothing_was_trained(
    tmp_path: Path, overtone: Run
) -> None:
    (tmp_path / "r.yaml").write_text(SMALL)
    run = ("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    assert overtone(*run, "train.batch_size=99")[0] == 2
    assert overtone(*run, "stages=1")[0] == 0
    code, _, complaint = overtone(*run, "stages=1", "train.lr=0.1")
    assert code == 4
    assert "stages.0.lr is 0.002, now 0.1" in complaint
    assert overtone(*run, "stages=1", "threads=2")[0] == 0


def test_a_folder_in_use_is_refused_by_the_number_of_the_process(tmp_path: Path, overtone: Run) -> None:
    (tmp_path / "r.yaml").write_text(SMALL)
    with artifacts.locked(tmp_path / "run"):
        code, _, complaint = overtone("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    assert code == 4
    assert f"locked by process {os.getpid()}" in complaint


def test_a_run_that_was_not_finished_is_not_evaluated(tmp_path: Path, overtone: Run) -> None:
    (tmp_path / "r.yaml").write_text(SMALL)
    assert overtone("train", tmp_path / "r.yaml", "--out", tmp_path / "run", "stages=1")[0] == 0
    (tmp_path / "run" / "encoder" / artifacts.MANIFEST).unlink()
    code, _, complaint = overtone("evaluate", tmp_path / "run")
    assert (code, "not finished" in complaint) == (4, True)


def test_series_are_trained_and_probed_but_files_are_not_read_as_series(
    tmp_path: Path, overtone: Run
) -> None:
    recipe = SMALL.replace("trifeature, n: 64, image_size: 16", "tones, n: 64")
    (tmp_path / "r.yaml").write_text(recipe)
    series = ("views.name=series", "encoder.name=series_cnn")
    run = ("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    code, _, complaint = overtone(*run)
    assert (code, "choose views and an encoder for these" in complaint) == (2, True)
    code, out, _ = overtone(*run, *series)
    assert (code, "pitch" in out) == (0, True)
    assert not (tmp_path / "run" / "cells.png").exists()
    code, _, complaint = overtone("embed", tmp_path / "run", "--data", tmp_path, "--out", tmp_path / "e.npy")
    assert (code, "trained on `series`" in complaint) == (2, True)


def test_a_run_stopped_by_a_signal_or_killed_ends_as_one_that_was_not(
    tmp_path: Path, overtone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "pictures"
    write_pictures(pictures, classes=True)
    recipe = (
        "data: {source: folder, root: pictures, image_size: 16}\n"
        + SMALL.partition("\n")[2].partition("\n")[2]
    )
    (tmp_path / "r.yaml").write_text(recipe)
    arguments = ("train.epochs=30", "stages=1", "--baselines")
    monkeypatch.chdir(tmp_path)
    assert overtone("train", "r.yaml", *arguments, "--jobs", "1", "--out", "whole")[0] == 0
    monkeypatch.chdir("/")

    broken = started(tmp_path, "train", "r.yaml", *arguments, "--jobs", "2", "--out", "broken")
    metrics = tmp_path / "broken" / "stage-0" / "metrics.jsonl"
    wait_for(metrics.exists)
    os.killpg(broken.pid, signal.SIGTERM)
    printed, _ = broken.communicate(timeout=60)
    assert broken.returncode == 143
    assert "stopped by SIGTERM after saving; continue with `overtone resume`" in printed

    killed, size = started(tmp_path, "resume", "broken", "--jobs", "2"), metrics.stat().st_size
    wait_for(lambda: metrics.stat().st_size > size)
    os.kill(killed.pid, signal.SIGKILL)  # its workers notice that they are alone, save and end
    killed.communicate(timeout=60)  # returns when the last of them has closed the pipe it prints to

    code, _, _ = overtone("resume", tmp_path / "broken")  # from another folder than the relative path's
    assert code == 0
    assert (tmp_path / "broken" / "table.md").read_text() == (tmp_path / "whole" / "table.md").read_text()


def test_output_that_is_no_terminal_holds_plain_lines_in_a_readable_order(
    tmp_path: Path, overtone: Run
) -> None:
    (tmp_path / "r.yaml").write_text(SMALL)
    code, out, complaint = overtone("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    assert (code, complaint) == (0, "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", out)
    order = ("negatives per anchor", "loss", "Cells of stage 0", "chance", "table.md", "Use it:")
    assert [out.index(words) for words in order] == sorted(out.index(words) for words in order)
