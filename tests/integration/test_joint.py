from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from overtone import artifacts
from overtone.contracts import Batch
from overtone.datasets import tones
from overtone.encoders import Encoder, as_encoder, build_encoder
from overtone.errors import DataError, RunError
from overtone.integration import JointEncoder, concatenated, load
from overtone.rng import numpy_generator, seeded

SIZE = 16
CONTENT = {"shape": [3, SIZE, SIZE], "dtype": "uint8"}


def _encoder(number: int) -> Encoder:
    with seeded(number, "integration test"):
        return build_encoder("small_cnn")


def _joint(**settings: Any) -> JointEncoder:
    return JointEncoder([_encoder(0), _encoder(1)], **{"content": CONTENT, **settings}).eval()


def _pictures(n: int = 5) -> NDArray[np.uint8]:
    pictures: NDArray[np.uint8] = numpy_generator(0, "pictures").integers(
        0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8
    )
    return pictures


def _saved(joint: JointEncoder, run: Path) -> Path:
    with artifacts.writing(run / "encoder") as folder:
        joint.save(folder)
    return run


class Own(nn.Module):
    """An architecture that no file names."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 7)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layer(images.mean((2, 3)))
        return features


def _by_hand(sides: list[NDArray[np.float32]], each: bool) -> NDArray[np.float64]:
    rows = []
    for parts in zip(*sides, strict=True):
        row = np.concatenate([p / np.sqrt((p**2).sum()) if each else p for p in parts])
        rows.append(row if each else row / np.sqrt((row**2).sum()))
    return np.array(rows)


@pytest.mark.parametrize("normalise", ["each", "once"])
def test_embeddings_side_by_side_are_what_numpy_gives_by_hand(normalise: str) -> None:
    draws = numpy_generator(0, "sides")
    sides = [(scale * draws.normal(size=(6, d))).astype(np.float32) for scale, d in ((1, 3), (50, 5))]
    joined = concatenated(sides, normalise)
    assert joined.dtype == np.float32
    np.testing.assert_allclose(joined, _by_hand(sides, normalise == "each"), rtol=1e-5)


@pytest.mark.parametrize("normalise", ["each", "once"])
def test_the_joint_encoder_is_the_concatenation_of_its_stages(normalise: str) -> None:
    joint = _joint(normalise=normalise)
    batch = {"image": torch.from_numpy(_pictures()).permute(0, 3, 1, 2)}
    with torch.no_grad():
        sides = [stage(batch).numpy() for stage in joint.stages]
    np.testing.assert_allclose(joint.encode(_pictures()), concatenated(sides, normalise), atol=1e-6)
    assert joint.dim == 256


@pytest.mark.parametrize("normalise", ["each", "once"])
def test_a_saved_encoder_comes_back_bit_by_bit(tmp_path: Path, normalise: str) -> None:
    joint = _joint(normalise=normalise)
    again = load(_saved(joint, tmp_path / "run"))
    assert not again.training
    assert (again.normalise, again.modality, again.content, again.dim) == (normalise, "image", CONTENT, 256)
    assert again.state_dict().keys() == joint.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in joint.state_dict().items())
    assert (again.encode(_pictures()) == joint.encode(_pictures())).all()


def test_the_encoder_folder_alone_is_enough_wherever_it_is_copied(tmp_path: Path) -> None:
    joint = _joint()
    run = _saved(joint, tmp_path / "run")
    shutil.copytree(run / "encoder", tmp_path / "elsewhere")
    shutil.rmtree(run)
    assert (load(str(tmp_path / "elsewhere")).encode(_pictures()) == joint.encode(_pictures())).all()


def test_arrays_tensors_pictures_and_files_of_the_same_pixels_have_the_same_embeddings(
    tmp_path: Path,
) -> None:
    joint, pixels = _joint(), _pictures()
    images = [Image.fromarray(one) for one in pixels]
    paths = [tmp_path / f"{number}.png" for number in range(len(pixels))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    expected = joint.encode(pixels)
    for same in (
        pixels.transpose(0, 3, 1, 2),
        torch.from_numpy(pixels),
        images,
        paths,
        [str(path) for path in paths],
        {"image": torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()},
    ):
        assert (joint.encode(same) == expected).all()
    np.testing.assert_allclose(joint.encode(pixels / np.float32(255)), expected, atol=1e-6)
    np.testing.assert_allclose(joint.encode(pixels.astype(np.uint16) * 257), expected, atol=1e-6)


def test_the_size_of_the_batches_changes_nothing_but_rounding() -> None:
    joint = _joint()
    np.testing.assert_allclose(joint.encode(_pictures(), batch_size=2), joint.encode(_pictures()), atol=1e-6)


def test_larger_pictures_and_grey_ones_are_brought_to_what_was_trained_on(tmp_path: Path) -> None:
    joint = _joint()
    large = [Image.fromarray(one).resize((40, 40), Image.Resampling.NEAREST) for one in _pictures()]
    grey = [image.convert("L") for image in large]
    assert joint.encode(large).shape == joint.encode(grey).shape == (5, 256)
    assert (joint.encode(grey) == joint.encode([image.convert("RGB") for image in grey])).all()


def test_nothing_has_no_embeddings() -> None:
    assert _joint().encode([]).shape == (0, 256)


def test_encoding_does_not_depend_on_training_and_leaves_it_as_it_was() -> None:
    joint = _joint()
    expected = joint.encode(_pictures())
    joint.train()
    assert (joint.encode(_pictures()) == expected).all()
    assert joint.training


@pytest.mark.parametrize(
    "content",
    [
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((2, SIZE, SIZE, 4), np.uint8),
        np.zeros((2, SIZE, SIZE), np.uint8),
        np.zeros((2, SIZE, SIZE, 3), np.int64),
        np.full((2, SIZE, SIZE, 3), np.nan, np.float32),
        ["nowhere.png"],
        "one.png",
        [object()],
        7,
    ],
)
def test_what_cannot_be_read_as_pictures_is_a_data_error(content: Any) -> None:
    with pytest.raises(DataError, match="encode: "):
        _joint().encode(content)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.png"
    Image.fromarray(_pictures()[0]).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"half\.png"):
        _joint().encode([path])


@pytest.mark.parametrize("file", ["joint.json", "stage-1/encoder.safetensors", "stage-0/encoder.json"])
def test_a_damaged_file_is_named(tmp_path: Path, file: str) -> None:
    path = _saved(_joint(), tmp_path) / "encoder" / file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=file):
        load(tmp_path)


def test_an_unfinished_run_is_refused_with_the_way_to_finish_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="overtone resume"):
        load(tmp_path)


def test_a_module_of_ones_own_is_needed_again_and_the_error_says_so(tmp_path: Path) -> None:
    with seeded(0, "own"):
        joint = JointEncoder([as_encoder(Own()), as_encoder(Own())], content=CONTENT).eval()
    run = _saved(joint, tmp_path)
    with pytest.raises(RunError, match="pass the module"):
        load(run)
    with pytest.raises(RunError, match="fit"):
        load(run, encoder=nn.Sequential(nn.Flatten(), nn.Linear(3, 7)))
    again = load(run, encoder=Own())
    assert (again.encode(_pictures()) == joint.encode(_pictures())).all()


def test_data_that_are_not_images_are_given_as_a_batch(tmp_path: Path) -> None:
    stages = [build_encoder("series_cnn", channels=1, widths=[8]) for _ in range(2)]
    joint = load(_saved(JointEncoder(stages, modality="series"), tmp_path))
    data = tones(6)
    batch: Batch = data.collate([data[i] for i in range(6)])
    with torch.no_grad():
        assert (joint.encode(batch) == joint(batch).numpy()).all()
    with pytest.raises(DataError, match="`series`; give a batch dict"):
        joint.encode(np.zeros((2, 10, 1), np.float32))
