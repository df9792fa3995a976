"""A run folder that came from elsewhere: nothing in it names code, leaves the folder, or is unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command import Run
from test_cli import SMALL, write_pictures

from overtone.datasets import arrays
from overtone.embedding import embed
from overtone.encoders import build_encoder, load_encoder, load_weights, save_encoder
from overtone.errors import OvertoneError, RecipeError, RunError
from overtone.integrating import integrate
from overtone.integration import load
from overtone.progress import Silent
from overtone.recipe import parse, resolved
from overtone.results import write_parquet
from overtone.run_folder import array_in, embeddings_of
from overtone.study import Study, run_job

PAYLOAD = "import os\nopen({mark!r}, 'w').close()\nfrom torch import nn\nclass Net(nn.Flatten): dim = 768\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one stage on drawn pictures."""
    place = tmp_path_factory.mktemp("home") / "run"
    study = Study(resolved(parse({**yaml.safe_load(SMALL), "stages": 1, "loggers": []})), place)
    study.save()
    run_job(study.jobs()[0], Silent())
    return place


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Its copy, beside the recipe that it was made of: as if a stranger had sent it."""
    (tmp_path / "r.yaml").write_text(SMALL)
    return Path(shutil.copytree(finished, tmp_path / "run"))


def sealed(folder: Path) -> None:
    """Writes digests into the manifest that fit the files: a stranger can do that too."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in files
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("field", ["encoder", "views", "method", "data"])
def test_code_named_by_the_recipe_of_a_run_is_not_even_imported(
    run: Path, overtone: Run, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    mark, module = run.parent / "mark", f"stranger_{field}"
    (run.parent / f"{module}.py").write_text(PAYLOAD.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(run.parent))
    lines = (run / "recipe.yaml").read_text().splitlines()
    place = lines.index(f"{field}:")
    lines[place + 1] = f"  {'source' if field == 'data' else 'name'}: {module}:Net"
    (run / "recipe.yaml").write_text("\n".join(lines))
    pictures = run.parent / "p"
    write_pictures(pictures, classes=False, n=2)
    for command in (
        ("resume", run),
        ("evaluate", run),
        ("embed", run, "--data", pictures, "--out", run.parent / "e.npy"),
        ("integrate", run, "--method", "whitened"),
    ):
        code, _, complaint = overtone(*command)
        assert code == 2
        assert f"'{module}:Net' names code" in complaint
        assert "--trust" in complaint
    with pytest.raises(RecipeError, match="names code"):
        integrate(run, "whitened")
    assert not mark.exists()


def test_with_trust_the_code_of_ones_own_run_is_imported(
    run: Path, overtone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.parent / "own_trusted.py").write_text(PAYLOAD.format(mark=str(run.parent / "mark")))
    monkeypatch.syspath_prepend(str(run.parent))
    text = (run / "recipe.yaml").read_text().replace("  name: image", "  name: own_trusted:Net")
    (run / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match="names code"):
        Study.load(run)
    assert Study.load(run, trust=True).recipe.views["name"] == "own_trusted:Net"
    assert (run.parent / "mark").exists()
    code, _, complaint = overtone("evaluate", run, "--task", "retrieval", "--trust")
    assert code == 2
    assert "has no encode_text" in complaint  # and not that its recipe names code


def test_a_recipe_found_in_the_out_folder_of_another_run_imports_nothing(run: Path, overtone: Run) -> None:
    text = (run / "recipe.yaml").read_text().replace("  name: image", "  name: this_is_nowhere:Net")
    (run / "recipe.yaml").write_text(text)
    code, _, complaint = overtone("train", run.parent / "r.yaml", "--out", run)
    assert (code, "names code" in complaint) == (2, True)


@pytest.mark.parametrize(
    "name", ["study.lock", "lock", "metrics.jsonl", ".table.md.writing", "stage-0/cells"]
)
def test_a_link_in_a_run_folder_cannot_make_us_write_elsewhere(run: Path, overtone: Run, name: str) -> None:
    victim = run.parent / "victim"
    victim.write_text("precious")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    for command in (("resume", run), ("evaluate", run), ("train", run.parent / "r.yaml", "--out", run)):
        code, _, complaint = overtone(*command)
        assert (code, "link that leads out of the run folder" in complaint) == (4, True), complaint
    assert victim.read_text() == "precious"


def test_a_link_beside_an_output_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    for name in (".e.npy.writing", ".e.parquet.writing", "e.npy", "e.parquet"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    pictures = arrays(np.zeros((3, 16, 16, 3), np.uint8))
    made = embed(build_encoder("small_cnn"), pictures, out=tmp_path / "e.npy")
    write_parquet(tmp_path / "e.parquet", pictures.ids, made)
    assert (tmp_path / "victim").read_text() == "precious"


class _Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.mark),)


def bombs(mark: Path) -> Any:
    return np.array([[_Bomb(mark)] * 2] * 3, dtype=object)


@pytest.mark.parametrize(
    "reads",
    [
        lambda path: array_in(path, 2),
        lambda path: embeddings_of(path.parents[2], 0),
    ],
)
def test_arrays_of_a_run_are_never_unpickled(tmp_path: Path, reads: Callable[[Path], Any]) -> None:
    path = tmp_path / "stage-0" / "embeddings" / "train.npy"
    path.parent.mkdir(parents=True)
    np.save(path, bombs(tmp_path / "mark"), allow_pickle=True)
    with pytest.raises(RunError, match="Python objects"):
        reads(path)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("shape", ["(65536, 65536)", "(4, 4)", "(-1, 3)", "(9999999999999, 2)"])
def test_an_array_whose_header_lies_is_refused_before_anything_is_allocated(
    tmp_path: Path, shape: str
) -> None:
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    data = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + b"\0" * 24
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(RunError, match="the header says"):
        array_in(tmp_path / "a.npy", 2)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
def test_weights_that_are_a_pickle_are_refused_unread(tmp_path: Path, name: str) -> None:
    torch.save({"weight": _Bomb(tmp_path / "mark")}, tmp_path / name)
    with pytest.raises(RunError, match=r"not readable as (tensors alone|safetensors)"):
        load_weights(torch.nn.Linear(2, 2), tmp_path / name)
    assert not (tmp_path / "mark").exists()


def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path) -> None:
    save_encoder(build_encoder("small_cnn"), tmp_path)
    path = tmp_path / "encoder.safetensors"
    content = path.read_bytes()
    for hostile in (
        (1 << 60).to_bytes(8, "little") + content[8:],
        content[:8] + content[8:].replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1),
        content[:-1],
        b"",
    ):
        path.write_bytes(hostile)
        with pytest.raises(RunError, match="not readable as safetensors"):
            load_encoder(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"zz": 1},
        {"stages": 10**9},
        {"stages": "x"},
        {"content": {"shape": [3, "x"]}},
        {"content": []},
        {"weights": "abc"},
        {"projection": {"name": "os:system"}},
        {"normalise": 3},
    ],
    ids=str,
)
def test_settings_of_a_joint_encoder_that_were_tampered_with_are_refused(
    run: Path, changed: dict[str, Any]
) -> None:
    place = run / "encoder" / "joint.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **changed}))
    sealed(run / "encoder")
    with pytest.raises(RunError):
        load(run)


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"seeds": 0, "baselines": false}', '{"seeds": 1, "baselines": false, "x": 1}', "{"],
)
def test_what_was_asked_for_is_checked_before_it_is_used(run: Path, content: str) -> None:
    (run / "study.json").write_text(content)
    with pytest.raises(RunError, match=r"study\.json"):
        Study.load(run)


@pytest.mark.parametrize(
    "spec", [{"name": "os:system", "command": "id"}, {"name": "small_cnn", "trust": True}]
)
def test_the_description_of_an_encoder_names_only_what_is_built_in(run: Path, spec: dict[str, Any]) -> None:
    place = run / "encoder" / "stage-0" / "encoder.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "spec": spec}))
    sealed(run / "encoder")
    with pytest.raises(OvertoneError):
        load(run)
