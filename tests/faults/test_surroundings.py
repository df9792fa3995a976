"""What surrounds a run may change between two starts: workers, users, clocks, languages, data."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from trials import PATHS, killing, require_same, run, start, uninterrupted

from overtone import rng
from overtone.contracts import Dataset
from overtone.datasets import image_folder, trifeature
from overtone.errors import DataError
from overtone.rng import numpy_generator

__all__ = ["uninterrupted"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("first", "then"), [(0, 2), (2, 0), (1, 1)])
def test_a_killed_run_goes_on_exactly_with_another_number_of_workers(
    tmp_path: Path, uninterrupted: Path, first: int, then: int
) -> None:
    folder = tmp_path / "run"
    assert run(folder, killing("before the manifest", 14), num_workers=first).code == -9
    assert run(folder, num_workers=then).code == 0
    require_same(folder, uninterrupted)


def test_a_second_process_in_a_run_folder_ends_with_exit_code_4_and_the_pid_of_the_first(
    tmp_path: Path, uninterrupted: Path
) -> None:
    folder = tmp_path / "run"
    first = start(folder)
    while not (folder / "stage-0").exists():
        time.sleep(0.01)
    second = run(folder)
    assert second.code == 4
    assert f"locked by process {first.pid}" in second.said
    first.join()
    assert first.exitcode == 0
    require_same(folder, uninterrupted)


_ELSEWHERE = "import sys, trials; from pathlib import Path; trials.work(Path(sys.argv[1]), None, {})"


def test_spaces_in_the_path_an_umask_another_zone_and_language_and_no_home_change_nothing(
    tmp_path: Path, uninterrupted: Path
) -> None:
    folder = tmp_path / "my run — ü" / "of *today*"
    folder.parent.mkdir()
    command = [sys.executable, "-c", _ELSEWHERE, str(folder)]
    bare = {**PATHS, "PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "Pacific/Kiritimati"}
    with subprocess.Popen(command, env=bare, umask=0o077) as process:
        while not list(folder.glob("stage-1/checkpoints/step-*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    bare |= {"LC_ALL": "C.UTF-8", "TZ": "America/St_Johns"}
    assert subprocess.run(command, env=bare, umask=0o077, check=False).returncode == 0
    require_same(folder, uninterrupted)
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*"))


# --- pictures that go bad


def pictures(folder: Path, bad: int = 0) -> Path:
    """200 JPEGs, of which so many are cut in half."""
    folder.mkdir()
    dataset = trifeature(200, image_size=16)
    spoilt = set(numpy_generator(0, "pictures").choice(200, bad, replace=False).tolist())
    for i in range(200):
        place = folder / f"{i:03}.jpg"
        Image.fromarray(dataset[i]["image"].numpy().transpose(1, 2, 0)).save(place, quality=95)
        if i in spoilt:
            place.write_bytes(place.read_bytes()[:300])
    return folder


def read(folder: Path) -> Dataset:
    return image_folder(folder, image_size=16, cache="none")


def test_one_bad_picture_in_200_is_named_left_out_and_a_killed_run_goes_on_exactly(tmp_path: Path) -> None:
    with_bad = read(pictures(tmp_path / "pictures", bad=1))
    assert len(with_bad) == 199
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole, dataset=with_bad).code == 0
    assert run(killed, killing("before the manifest", 14), dataset=with_bad).code == -9
    assert run(killed, dataset=read(tmp_path / "pictures")).code == 0
    require_same(killed, whole)


@pytest.mark.parametrize(("bad", "complaint"), [(10, "10 of 200 images"), (200, "none of the 200 images")])
def test_more_bad_pictures_than_tolerated_are_an_error_with_their_number_and_the_first_names(
    tmp_path: Path, bad: int, complaint: str
) -> None:
    with pytest.raises(DataError, match=rf"{complaint}.*'\d+\.jpg' \(.*Truncated") as caught:
        read(pictures(tmp_path / "pictures", bad))
    assert caught.value.exit_code == 3


class Spoils:
    """Cuts a picture when a stage comes to a step, and may kill the process at a later write."""

    def __init__(self, file: Path, killed: bool) -> None:
        self.file, self.killed = file, killed

    def __call__(self) -> None:
        reseed = rng.reseed

        def wrapped(seed: int, *address: rng.Key) -> None:
            if address[:3] == ("step", 1, 2):
                self.file.write_bytes(self.file.read_bytes()[:300])
            reseed(seed, *address)

        rng.reseed = wrapped
        if self.killed:
            killing("between two files", 12)()


def test_a_picture_that_goes_bad_during_training_is_replaced_alike_whether_the_run_is_killed_or_not(
    tmp_path: Path,
) -> None:
    dataset = read(pictures(tmp_path / "pictures"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    file = tmp_path / "pictures" / "007.jpg"
    good = file.read_bytes()
    spoilt = run(whole, Spoils(file, killed=False), dataset=dataset)
    assert spoilt.code == 0, spoilt.said
    assert "another sample takes the place of '007.jpg'" in spoilt.said
    file.write_bytes(good)
    assert run(killed, Spoils(file, killed=True), dataset=dataset).code == -9
    assert run(killed, dataset=dataset).code == 0
    require_same(killed, whole)


def _removed(folder: Path) -> None:
    (folder / "009.jpg").unlink()


def _added(folder: Path) -> None:
    Image.new("RGB", (16, 16)).save(folder / "new.jpg")


def _edited(folder: Path) -> None:
    Image.new("RGB", (16, 16)).save(folder / "009.jpg")


def _renamed(folder: Path) -> None:
    (folder / "009.jpg").rename(folder / "9.jpg")


@pytest.mark.parametrize("edit", [_removed, _added, _edited, _renamed])
def test_data_that_were_edited_between_stages_are_refused_by_name_and_the_old_ones_go_on_exactly(
    tmp_path: Path, edit: Callable[[Path], None]
) -> None:
    home = pictures(tmp_path / "pictures")
    assert run(tmp_path / "whole", dataset=read(home)).code == 0
    folder = tmp_path / "run"
    assert run(folder, killing("before the manifest", 10), dataset=read(home)).code == -9
    old = tmp_path / "old"
    home.rename(old)
    edit(pictures(home))
    refused = run(folder, dataset=read(home))
    assert refused.code == 4
    assert "was made from another data" in refused.said
    assert run(folder, dataset=read(old)).code == 0
    require_same(folder, tmp_path / "whole")
