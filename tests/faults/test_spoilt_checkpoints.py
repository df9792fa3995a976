"""Bytes that went bad between two starts: it is said, and nothing starts over unasked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from trials import killing, require_same, run, uninterrupted

from overtone.rng import numpy_generator

__all__ = ["uninterrupted"]

pytestmark = pytest.mark.slow

FILES = ["method.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its second stage; nobody writes into it."""
    folder = tmp_path_factory.mktemp("spoilt") / "halfway"
    assert run(folder, killing("between two files", 12)).code == -9
    assert len(newest_first(folder)) == 2
    return folder


@pytest.fixture
def copied(halfway: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(halfway, tmp_path / "run"))


def newest_first(folder: Path) -> list[Path]:
    return sorted((folder / "stage-1" / "checkpoints").glob("step-*"), reverse=True)


def truncated(percent: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, path.stat().st_size * percent // 100)


def flipped(seed: int) -> Callable[[Path], None]:
    """One bit of one byte, somewhere."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        where, bit = numpy_generator(seed, path.name).integers(0, [len(content), 8])
        content[where] ^= 1 << int(bit)
        path.write_bytes(content)

    return flip


DAMAGES = {f"truncated at {percent} %": truncated(percent) for percent in (0, 1, 50, 99)}
DAMAGES |= {f"flipped {seed}": flipped(seed) for seed in range(4)}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_spoilt_newest_checkpoint_is_named_and_the_one_before_leads_to_the_same_bytes(
    copied: Path, uninterrupted: Path, damage: str, file: str
) -> None:
    newest = newest_first(copied)[0]
    DAMAGES[damage](newest / file)
    ended = run(copied)
    if ended.code == 4:  # a flipped bit that makes the manifest speak of other inputs: refused, not skipped
        assert file == "manifest.json"
        assert f"{newest}: was made from another" in ended.said
        return
    assert ended.code == 0, ended.said
    assert "checkpoint skipped" in ended.said
    assert newest.name in ended.said
    require_same(copied, uninterrupted)


def test_where_all_are_spoilt_the_run_ends_with_exit_code_4_names_each_and_trains_nothing(
    copied: Path,
) -> None:
    damaged = [place / "method.safetensors" for place in newest_first(copied)]
    for file in damaged:
        truncated(50)(file)
    before = (copied / "stage-1" / "ledger-0.jsonl").read_bytes()
    ended = run(copied)
    assert ended.code == 4
    assert all(f"{file}: damaged" in ended.said for file in damaged)
    assert "none of its 2 checkpoints is whole" in ended.said
    assert (copied / "stage-1" / "ledger-0.jsonl").read_bytes() == before


def test_killed_between_the_two_renames_that_replace_a_spoilt_one_loses_nothing(
    copied: Path, uninterrupted: Path
) -> None:
    flipped(0)(newest_first(copied)[0] / "method.safetensors")
    assert run(copied, killing("between the two renames", 1)).code == -9
    assert len(newest_first(copied)) == 1
    assert run(copied).code == 0
    require_same(copied, uninterrupted)
