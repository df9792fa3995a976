"""The pass over a source: what is left out, what is kept, and what the fingerprint says."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overtone.datasets import ImageDataset, Source, read_images
from overtone.datasets import cache as caching
from overtone.errors import DataError, DiskError, RecipeError

PICTURES = np.random.default_rng(0).integers(0, 256, (200, 3, 4, 4)).astype(np.uint8)


def source(n: int = 200, bad: tuple[int, ...] = (), pictures: Any = PICTURES) -> Source:
    def read(row: int) -> Any:
        return b"" if row in bad else pictures[row]

    labels = {"parity": np.arange(n) % 2}
    return Source("made", [f"p{i}" for i in range(n)], read, labels, {"parity": ("even", "odd")}, stamp="s")


def same(one: ImageDataset, other: ImageDataset) -> bool:
    return len(one) == len(other) and all(
        torch.equal(one[i]["image"], other[i]["image"]) for i in range(len(one))
    )


def test_samples_and_batches_are_as_the_contract_says() -> None:
    dataset = read_images(source())
    batch = dataset.collate([dataset[3], dataset[-1]])
    assert dataset.modality == "image"
    assert dataset[-1]["index"] == 199
    assert batch["index"].tolist() == [3, 199]
    assert batch["image"].dtype == torch.uint8
    assert torch.equal(batch["image"], torch.from_numpy(PICTURES[[3, 199]]))
    with pytest.raises(IndexError):
        dataset[200]


def test_a_sample_can_be_changed_without_changing_the_dataset() -> None:
    dataset = read_images(source())
    dataset[0]["image"].zero_()
    assert torch.equal(dataset[0]["image"], torch.from_numpy(PICTURES[0]))


def test_unreadable_pictures_are_left_out_with_their_labels(caplog: pytest.LogCaptureFixture) -> None:
    dataset = read_images(source(bad=(0, 7)))
    assert dataset.quarantined == [("p0", "0 bytes"), ("p7", "0 bytes")]
    assert (len(dataset), dataset.ids[0], dataset.labels["parity"][0]) == (198, "p1", 1)
    assert torch.equal(dataset[6]["image"], torch.from_numpy(PICTURES[8]))
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "made: 2 of 200 images cannot be read and are left out: 'p0' (0 bytes); 'p7' (0 bytes)"
    ]


def test_too_many_unreadable_pictures_are_an_error_that_names_some() -> None:
    with pytest.raises(DataError, match=r"3 of 200 images .* max_bad_fraction=0.01: 'p1' .*0 bytes"):
        read_images(source(bad=(1, 2, 3)))
    assert len(read_images(source(bad=(1, 2, 3)), max_bad_fraction=0.02)) == 197


def test_the_smallest_set_tolerates_one_and_none_when_told() -> None:
    assert len(read_images(source(3, bad=(1,)))) == 2
    with pytest.raises(DataError, match="1 of 3"):
        read_images(source(3, bad=(1,)), max_bad_fraction=0)


def test_a_set_without_one_readable_picture_is_an_error() -> None:
    with pytest.raises(DataError, match="none of the 2 images"):
        read_images(source(2, bad=(0, 1)), max_bad_fraction=1)


def test_two_sizes_are_an_error_that_names_the_first_that_differs() -> None:
    pictures = [PICTURES[0], PICTURES[1], PICTURES[2][:, :3], PICTURES[3][:, :2]]
    with pytest.raises(DataError, match=r"'p2' is 3x3x4 uint8, others are 3x4x4 uint8; give image_size"):
        read_images(source(4, pictures=pictures))
    assert read_images(source(4, pictures=pictures), image_size=4).image_shape == (3, 4, 4)


def test_two_depths_and_two_numbers_of_channels_are_errors() -> None:
    with pytest.raises(DataError, match="same depth"):
        read_images(source(2, pictures=[PICTURES[0], PICTURES[1] / 255]))
    with pytest.raises(DataError, match="give channels"):
        read_images(source(2, pictures=[PICTURES[0], PICTURES[1][:1]]))


@pytest.mark.parametrize("cache", ["auto", "memory", "disk", "none"])
def test_every_cache_gives_the_same_dataset(cache: Any, tmp_path: Path) -> None:
    dataset = read_images(source(bad=(4,)), cache=cache, cache_dir=tmp_path, image_size=3)
    reference = read_images(source(bad=(4,)), image_size=3)
    assert same(dataset, reference)
    assert (dataset.ids, dataset.fingerprint) == (reference.ids, reference.fingerprint)
    assert dataset.quarantined == reference.quarantined


def test_a_disk_cache_is_reused_without_reading_the_source(tmp_path: Path) -> None:
    def never(row: int) -> Any:
        raise AssertionError

    first = read_images(source(bad=(4,)), cache="disk", cache_dir=tmp_path)
    again = read_images(replace(source(bad=(4,)), read=never), cache="disk", cache_dir=tmp_path)
    assert same(first, again)
    assert (first.fingerprint, first.quarantined) == (again.fingerprint, again.quarantined)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [lambda s: (replace(s, stamp="t"), {}), lambda s: (s, {"image_size": 2}), lambda s: (s, {"limit": 9})],
)
def test_another_content_or_form_gets_another_cache(change: Callable[[Source], Any], tmp_path: Path) -> None:
    read_images(source(), cache="disk", cache_dir=tmp_path)
    changed, options = change(source())
    read_images(changed, cache="disk", cache_dir=tmp_path, **options)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_pass_that_fails_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_images(source(bad=tuple(range(50))), cache="disk", cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["os.posix_fallocate", "numpy.save", "json.dump", "pathlib.Path.rename"])
def test_a_disk_that_fills_while_pictures_are_kept_is_a_disk_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(DiskError, match="cannot be written: No space left on device"):
        read_images(source(), cache="disk", cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_room_for_a_cache_is_taken_before_the_first_picture_is_written(tmp_path: Path) -> None:
    taken: list[int] = []

    def read(row: int) -> Any:
        taken.extend(file.stat().st_blocks * 512 for file in tmp_path.glob("*/images.npy"))
        return PICTURES[row]

    read_images(replace(source(), read=read, parallel=False), cache="disk", cache_dir=tmp_path)
    assert len(taken) == 200
    assert min(taken) >= PICTURES.nbytes


def test_a_cache_folder_that_cannot_be_made_is_a_disk_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    with pytest.raises(DiskError, match="Read-only file system"):
        read_images(source(), cache="disk", cache_dir=tmp_path / "kept")
    with pytest.raises(DiskError, match="Read-only file system"):
        caching.place("disk", 300, tmp_path / "kept" / "images")


def test_a_file_in_the_place_of_the_cache_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(RecipeError, match="is a file, or lies in one"):
            read_images(source(), cache="disk", cache_dir=folder)


def test_of_several_that_open_the_same_pictures_at_once_one_decodes_for_all(tmp_path: Path) -> None:
    firsts: list[int] = []
    lasts: list[int] = []
    together = threading.Barrier(3)

    def read(row: int) -> Any:
        if row == 0 and len(firsts) < 3:
            firsts.append(row)
            together.wait(60)  # all have looked at the first picture before one begins to decode
        lasts.extend([row] if row == 199 else [])
        return PICTURES[row]

    def opened(_: int) -> ImageDataset:
        return read_images(replace(source(), read=read), cache="disk", cache_dir=tmp_path)

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(opened, range(3)))
    assert len(lasts) == 1
    assert all(same(dataset, read_images(source())) for dataset in found)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_of_a_cache_is_in_nobodys_way(tmp_path: Path) -> None:
    read_images(source(), cache="disk", cache_dir=tmp_path)
    (whole,) = tmp_path.iterdir()
    whole.rename(f"{whole}.{os.getpid()}.partial")
    Path(f"{whole}.lock").touch()
    assert same(read_images(source(), cache="disk", cache_dir=tmp_path), read_images(source()))
    assert list(tmp_path.iterdir()) == [whole]


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    read_images(source(), cache="disk", cache_dir=tmp_path)
    images = next(tmp_path.glob("*/images.npy"))
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"damaged.*delete"):
        read_images(source(), cache="disk", cache_dir=tmp_path)


def test_auto_keeps_in_memory_then_on_disk_then_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(caching, "available_memory", lambda: 1000)
    folder = tmp_path / "images"
    assert caching.place("auto", 200, folder) == "memory"
    assert caching.place("auto", 300, folder) == "disk"
    assert caching.place("auto", 300, None) == "none"
    assert caching.place("auto", 10**18, folder) == "none"
    with pytest.raises(DiskError, match="bytes"):
        caching.place("disk", 10**18, folder)


def test_the_available_memory_is_plausible() -> None:
    assert 1e7 < caching.available_memory() < 1e14


@pytest.mark.parametrize(
    "options",
    [{"cache": "ram"}, {"cache": "disk"}, {"limit": 0}, {"image_sise": 3}, {"image_size": -1}],
)
def test_wrong_options_are_recipe_errors(options: Any) -> None:
    with pytest.raises(RecipeError):
        read_images(source(), **options)


def test_no_pictures_and_doubled_ids_are_errors() -> None:
    with pytest.raises(DataError, match="no images"):
        read_images(source(0))
    with pytest.raises(DataError, match="'a' occurs twice"):
        read_images(replace(source(2), ids=["a", "a"], labels={}))


def test_limit_keeps_the_first_pictures_and_their_labels() -> None:
    dataset = read_images(source(), limit=5)
    assert dataset.ids == ["p0", "p1", "p2", "p3", "p4"]
    assert dataset.labels["parity"].tolist() == [0, 1, 0, 1, 0]


def test_the_fingerprint_changes_with_every_pixel_name_and_size() -> None:
    edited = PICTURES.copy()
    edited[150, 2, 3, 3] ^= 1
    renamed = replace(source(), ids=[f"q{i}" for i in range(200)])
    sets = [
        read_images(source()),
        read_images(source(pictures=edited)),
        read_images(renamed),
        read_images(source(), limit=199),
        read_images(source(), image_size=3),
        read_images(source(bad=(9,))),
    ]
    assert len({dataset.fingerprint for dataset in sets}) == len(sets)
    assert read_images(source(), image_size=4).fingerprint == sets[0].fingerprint  # they are 4 x 4


def test_the_pass_says_what_it_did(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read_images(source())
    assert "made: 200 images of 3x4x4 decoded and kept in memory (0 MB" in caplog.text


def test_a_picture_that_vanishes_later_is_a_data_error_that_names_it() -> None:
    pictures = dict(enumerate(PICTURES))
    dataset = read_images(source(pictures=pictures), cache="none")
    del pictures[5]
    with pytest.raises(DataError, match="'p5' can no longer be read"):
        dataset[5]
    pictures[6] = PICTURES[6][:, :2]
    with pytest.raises(DataError, match="'p6' has changed"):
        dataset[6]
