"""Arrays in memory and in files, and files that lie about themselves."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from overtone.datasets import arrays
from overtone.errors import DataError, RecipeError

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 10)).astype(np.uint8)


@pytest.mark.parametrize(
    "given",
    [PICTURES, PICTURES.transpose(0, 2, 3, 1), torch.from_numpy(PICTURES)],
    ids=["first", "last", "torch"],
)
def test_channels_are_found_first_or_last(given: Any) -> None:
    dataset = arrays(given)
    assert (torch.stack([dataset[i]["image"] for i in range(6)]).numpy() == PICTURES).all()


def test_pictures_without_a_channel_axis_have_one_channel() -> None:
    assert arrays(PICTURES[:, 0]).image_shape == (1, 8, 10)


def test_many_channels_and_16_bits_are_kept() -> None:
    deep = np.random.default_rng(0).integers(0, 2**16, (3, 13, 5, 5)).astype(np.uint16)
    dataset = arrays(deep, channels_last=False)
    assert dataset.image_shape == (13, 5, 5)
    np.testing.assert_allclose(dataset[1]["image"].numpy() * 65535, deep[1], rtol=1e-6)


def test_channels_that_cannot_be_told_are_an_error() -> None:
    for shape in ((2, 13, 9, 9), (2, 3, 9, 4), (2, 9, 9, 9)):
        with pytest.raises(RecipeError, match="channels_last"):
            arrays(np.zeros(shape, np.uint8))


def test_labels_are_codes_or_names_and_may_be_absent() -> None:
    labels: dict[str, list[Any]] = {"number": [3, -1, 0, 3, 1, 0], "name": ["b", None, "", "a", "b", "b"]}
    dataset = arrays(PICTURES, labels)
    assert dataset.labels["number"].tolist() == [3, -1, 0, 3, 1, 0]
    assert dataset.label_names["number"] == ("0", "1", "2", "3")
    assert dataset.labels["name"].tolist() == [1, -1, -1, 0, 1, 1]


def test_labels_and_ids_of_another_length_are_errors_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"5 labels of 'a' for 6 images"):
        arrays(PICTURES, {"a": [0] * 5})
    with pytest.raises(DataError, match="2 ids for 6 images"):
        arrays(PICTURES, ids=["a", "b"])


def test_a_picture_with_nan_is_left_out() -> None:
    pictures = PICTURES / np.float32(255)
    pictures[2, 0, 0, 0] = np.nan
    assert arrays(pictures).quarantined == [("2", "values that are NaN or infinite")]


def test_floats_of_0_to_255_are_an_error_that_says_what_to_do() -> None:
    pictures = PICTURES.astype(np.float32)
    with pytest.raises(
        DataError, match=r"values from \d+ to 25\d, expected 0 to 1; divide by 255 or give uint8"
    ):
        arrays(pictures)
    pictures[0] = 0  # a black one tells nothing
    with pytest.raises(DataError, match=r"5 of 6 images cannot be read.*divide by 255"):
        arrays(pictures, cache="none")
    assert len(arrays(pictures / np.float32(255) + np.float32(1e-6))) == 6


def test_npy_and_npz_files_equal_the_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PICTURES)
    np.savez_compressed(tmp_path / "a.npz", images=PICTURES, digit=np.arange(6))
    one, other = arrays(tmp_path / "a.npy"), arrays(tmp_path / "a.npz")
    assert one.fingerprint == other.fingerprint == arrays(PICTURES).fingerprint
    assert other.labels["digit"].tolist() == list(range(6))


def header(shape: str, descr: str = "'<f8'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", content)
    return file.getvalue()


def objects() -> bytes:
    file = io.BytesIO()
    hostile: NDArray[Any] = np.array([[["x", None]]], dtype=object)
    np.save(file, hostile, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("pack", [lambda b: (".npy", b), lambda b: (".npz", zipped(b))], ids=["npy", "npz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(65536, 65536, 8)") + b"\0" * 64, "the header says"),
        (objects(), "Python objects"),
        (header("(1, 2, 2)") + b"\0" * 31, "the header says"),
        (b"\x93NUMPY\x09\x00" + b"\0" * 99, "version"),
        (b"hello", "not a readable"),
        (b"", "not a readable"),
    ],
    ids=["lying", "objects", "cut", "future", "text", "empty"],
)
def test_hostile_files_are_refused_before_anything_is_allocated(
    tmp_path: Path, pack: Any, content: bytes, message: str
) -> None:
    suffix, data = pack(content)
    (tmp_path / f"a{suffix}").write_bytes(data)
    with pytest.raises(DataError, match=message):
        arrays(tmp_path / f"a{suffix}")


def test_a_missing_file_and_a_file_without_pictures_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        arrays(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", digit=np.arange(6))
    with pytest.raises(DataError, match="digit"):
        arrays(tmp_path / "a.npz")


def test_the_disk_cache_notices_an_edited_array(tmp_path: Path) -> None:
    edited = PICTURES.copy()
    edited[3] = 0
    arrays(PICTURES, cache="disk", cache_dir=tmp_path)
    assert arrays(edited, cache="disk", cache_dir=tmp_path)[3]["image"].sum() == 0
