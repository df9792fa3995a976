"""Data that are edited between stages are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command import Run
from PIL import Image
from test_cli import write_pictures
from tiny import parts

from overtone import multistage
from overtone.contracts import Dataset
from overtone.datasets import Captioned, Subset, arrays, image_folder, tones
from overtone.errors import RunError
from overtone.roster import require_same


def pictures(*changed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    made = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    made[list(changed)] += 1
    return made


def begun(folder: Path, dataset: Dataset) -> Path:
    require_same(dataset, folder)
    (folder / "identities").mkdir()
    return folder


def test_the_same_data_pass_again_and_may_have_moved(tmp_path: Path) -> None:
    write_pictures(tmp_path / "here", classes=False, n=9)
    begun(tmp_path / "run", image_folder(tmp_path / "here", image_size=16))
    (tmp_path / "here").rename(tmp_path / "there")
    require_same(image_folder(tmp_path / "there", image_size=16), tmp_path / "run")


def test_an_edited_text_is_an_edited_sample(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(30)]
    home = begun(tmp_path, Captioned(arrays(pictures()), texts))
    with pytest.raises(RunError, match=r"set: '7' was edited\. Bring"):
        require_same(Captioned(arrays(pictures()), [*texts[:7], "another", *texts[8:]]), home)


def test_added_removed_and_edited_samples_are_named(tmp_path: Path) -> None:
    home = begun(tmp_path, arrays(pictures(), ids=[f"p{i}" for i in range(30)]))
    ids = [f"p{i}" for i in range(29)] + ["new\x1b"]
    with pytest.raises(RunError, match=r"'p29' was removed; 'new\\x1b' is new; 'p3' was edited\. Bring"):
        require_same(arrays(pictures(3), ids=ids), home)


def test_five_are_named_and_the_others_counted(tmp_path: Path) -> None:
    home = begun(tmp_path, arrays(pictures()))
    with pytest.raises(RunError, match=r"'1' was edited; .*'5' was edited; and 2 more\."):
        require_same(arrays(pictures(1, 2, 3, 4, 5, 6, 7)), home)


def test_edits_are_seen_through_a_disk_cache_and_a_subset(tmp_path: Path) -> None:
    def few(*changed: int) -> Dataset:
        whole = arrays(pictures(*changed), cache="disk", cache_dir=tmp_path / "cache")
        return Subset(whole, [4, 2, 9])

    few()
    home = begun(tmp_path, few())
    require_same(few(), home)
    with pytest.raises(RunError, match=r"'2' was edited\."):
        require_same(few(2), home)


def test_data_that_tell_no_contents_are_refused_all_the_same(tmp_path: Path) -> None:
    home = begun(tmp_path, tones(20, seed=0))
    with pytest.raises(RunError, match="same names, but not all the same content"):
        require_same(tones(20, seed=1), home)


def test_before_anything_was_made_of_them_data_may_change(tmp_path: Path) -> None:
    require_same(arrays(pictures()), tmp_path)
    begun(tmp_path, arrays(pictures(1)))
    require_same(arrays(pictures(1)), tmp_path)


def test_a_run_from_before_there_were_rosters_goes_on(tmp_path: Path) -> None:
    multistage.run(parts(stages=parts().stages[:1]), tmp_path)
    require_same(parts().dataset, tmp_path)


def test_a_file_edited_or_deleted_between_stages_is_named_on_resume(tmp_path: Path, overtone: Run) -> None:
    write_pictures(tmp_path / "p", classes=False)
    few = ("train.epochs=1", "train.batch_size=8", "stages=1", "threads=1")
    assert overtone("train", "--data", tmp_path / "p", "--out", tmp_path / "run", *few)[0] == 0
    Image.new("RGB", (40, 40)).save(tmp_path / "p" / "07.jpg")
    (tmp_path / "p" / "08.jpg").unlink()
    code, _, complaint = overtone("resume", tmp_path / "run")
    assert code == 4
    assert "was made from another data set: '08.jpg' was removed; '07.jpg' was edited." in complaint
