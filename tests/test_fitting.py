from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from overtone.datasets import Tones, tones, torch_dataset, trifeature
from overtone.encoders import load_encoder, resnet18_cifar, small_cnn
from overtone.errors import OvertoneError, RecipeError, RunError
from overtone.fitting import as_dataset, fit
from overtone.integration import JointEncoder, load
from overtone.methods import SimCLR
from overtone.rng import numpy_generator, seeded
from overtone.views import ImageViews, PerSampleViews

QUICK: dict[str, Any] = {"stages": 2, "epochs": 1, "batch_size": 32, "progress": False}


def _pixels() -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = numpy_generator(0, "fit").integers(0, 256, (80, 16, 16, 3), dtype=np.uint8)
    return pixels


class Own(nn.Module):
    """A user's network: normalised pictures in, 12 numbers out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 12, 3, stride=4), nn.BatchNorm2d(12), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images).mean((2, 3))
        return features


def _same(one: JointEncoder, other: JointEncoder) -> bool:
    return bool((one.encode(_pixels()) == other.encode(_pixels())).all())


def test_arrays_are_enough_and_calling_again_loads(tmp_path: Path) -> None:
    joint = fit(_pixels(), out=tmp_path, **QUICK)
    assert joint.encode(_pixels()).shape == (80, 256)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    assert _same(fit(_pixels(), out=str(tmp_path), num_workers=1, **QUICK), joint)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")} == before
    assert _same(load(tmp_path), joint)


def test_the_same_call_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        fit(_pixels(), out=tmp_path / name, encoder=Own, **QUICK)
    assert tiny.artifacts_of(tmp_path / "one") == tiny.artifacts_of(tmp_path / "other")


def test_calling_again_with_other_arguments_is_refused_and_spoils_nothing(tmp_path: Path) -> None:
    fit(_pixels(), out=tmp_path, **QUICK)
    before = tiny.contents(tmp_path)
    for other in ({"seed": 1}, {"encoder": "resnet18_cifar"}, {"epochs": 2}, {"stages": 3}):
        with pytest.raises(RunError, match=f"{tmp_path}: holds a run of another recipe"):
            fit(_pixels(), out=tmp_path, **{**QUICK, **other})
    with pytest.raises(RunError, match="another data"):
        fit(_pixels()[::-1].copy(), out=tmp_path, **QUICK)
    assert {n: c for n, c in tiny.contents(tmp_path).items() if n != "lock"} == {
        n: c for n, c in before.items() if n != "lock"
    }


def test_a_torch_dataset_of_images_and_labels_is_taken_with_its_labels(tmp_path: Path) -> None:
    images = torch.from_numpy(_pixels()).permute(0, 3, 1, 2)
    pairs = TensorDataset(images, torch.arange(80) % 4)
    assert as_dataset(pairs).labels["label"].tolist() == [i % 4 for i in range(80)]
    joint = fit(pairs, out=tmp_path, **QUICK)
    assert joint.encode(_pixels()).shape == (80, 256)
    assert '"knn/label"' in (tmp_path / "stage-0" / "metrics.jsonl").read_text()


def test_every_stage_starts_from_the_weights_of_a_given_module_which_stays_as_it_is(tmp_path: Path) -> None:
    module = Own()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(_pixels(), out=tmp_path, encoder=module, **{**QUICK, "epochs": 0})
    for stage in (0, 1):
        kept = load_encoder(tmp_path / f"stage-{stage}" / "encoder", Own()).get_submodule("backbone")
        assert all(torch.equal(value, kept.state_dict()[name]) for name, value in before.items())
    joint = fit(_pixels(), out=tmp_path / "trained", encoder=module, **QUICK)
    assert joint.encode(_pixels()).shape == (80, 24)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())


def test_a_factory_is_called_for_every_stage_with_weights_of_the_seed(tmp_path: Path) -> None:
    fit(_pixels(), out=tmp_path, encoder=Own, seed=3, **{**QUICK, "epochs": 0})
    for stage in (0, 1):
        with seeded(3, "encoder", stage):
            expected = Own()
        kept = load_encoder(tmp_path / f"stage-{stage}" / "encoder", Own()).get_submodule("backbone")
        assert all(torch.equal(v, kept.state_dict()[k]) for k, v in expected.state_dict().items())


def test_a_method_and_views_of_ones_own_are_used(tmp_path: Path) -> None:
    methods: list[SimCLR] = []

    def method(encoder: Any) -> SimCLR:
        methods.append(SimCLR(encoder, temperature=0.5, out_dim=8))
        return methods[-1]

    transform = v2.Compose([v2.RandomCrop(12), v2.RandomHorizontalFlip()])
    joint = fit(_pixels(), out=tmp_path, method=method, views=PerSampleViews(transform), **QUICK)
    assert len(methods) == 2
    trained = methods[1].encoder.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in joint.stages[1].state_dict().items())


def test_a_class_that_is_named_is_imported_for_training_and_for_loading(tmp_path: Path) -> None:
    joint = fit(_pixels(), out=tmp_path, encoder="test_fitting:Own", **QUICK)
    assert joint.encode(_pixels()).shape == (80, 24)


def test_a_set_that_is_not_images_takes_the_views_of_its_modality(tmp_path: Path) -> None:
    data: Tones = tones(80)
    joint = fit(data, out=tmp_path, encoder="series_cnn", **QUICK)
    assert joint.encode(data.collate([data[i] for i in range(9)])).shape == (9, 256)


def test_another_modality_needs_only_views_and_an_encoder(tmp_path: Path) -> None:
    rows = torch_dataset(list(torch.from_numpy(_pixels()).flatten(1)[:, :6].float() / 255), modality="row")

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 5)

        def forward(self, batch: dict[str, Any]) -> Tensor:
            features: Tensor = self.layer(batch["row"])
            return features

    views = PerSampleViews(lambda row: row + 0.1 * torch.randn(6), key="row")
    joint = fit(rows, out=tmp_path, encoder=Rows, views=views, **QUICK)
    assert joint.encode(rows.collate([rows[0], rows[1]])).shape == (2, 10)


def test_stages_take_values_of_their_own(tmp_path: Path) -> None:
    stages = [{"epochs": 0}, {"epochs": 1, "cells": "intersect", "n_clusters": 3}]
    fit(_pixels(), out=tmp_path, **{**QUICK, "stages": stages})
    assert not (tmp_path / "stage-0" / "metrics.jsonl").exists()
    assert len(np.unique(np.load(tmp_path / "stage-1" / "partition" / "pseudo_labels.npy"))) <= 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"epoch": 3}, "did you mean `epochs`"),
        ({"batchsize": 3}, "did you mean `batch_size`"),
        ({"stages": [{"n_cluster": 3}]}, "did you mean `n_clusters`"),
        ({"epochs": "three"}, "epochs"),
        ({"encoder": "smal_cnn"}, "did you mean `small_cnn`"),
        ({"method": "simclrr"}, "did you mean `simclr`"),
        ({"preset": "papers"}, "preset"),
        ({"precision": "fp8"}, "precision"),
        ({"stages": 0}, "expected at least 1 stage"),
        ({"batch_size": 100}, "expected 2 to 80"),
        ({"stages": [{}, {"cell_size": 3, "n_clusters": 3}]}, "not both"),
        ({"seed": -1}, "seed"),
        ({"encoder": lambda: nn.Conv2d(3, 4, 3)}, r"expected embeddings of shape"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_trained(
    tmp_path: Path, arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RecipeError, match=complaint):
        fit(_pixels(), out=tmp_path / "run", **{**QUICK, **arguments})
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("source", [7, object(), None, "nowhere"])
def test_what_holds_no_samples_is_refused(tmp_path: Path, source: Any) -> None:
    with pytest.raises(OvertoneError):
        fit(source, out=tmp_path, **QUICK)


def test_a_test_set_is_embedded(tmp_path: Path) -> None:
    data, test = trifeature(80, image_size=16), trifeature(20, image_size=16, start=80)
    fit(data, out=tmp_path, test=test, **{**QUICK, "stages": 1})
    assert np.load(tmp_path / "stage-0" / "embeddings" / "test.npy").shape == (20, 128)


def test_other_views_or_another_encoder_are_refused_instead_of_using_what_is_there(tmp_path: Path) -> None:
    pictures = np.zeros((40, 16, 16, 3), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None, None]
    same: dict[str, Any] = {"out": tmp_path, "stages": 1, "epochs": 1, "batch_size": 8, "progress": False}
    fit(pictures, encoder=small_cnn, views=ImageViews(), **same)
    fit(pictures, encoder=small_cnn, views=ImageViews(), **same)
    with pytest.raises(RunError, match="another views"):
        fit(pictures, encoder=small_cnn, views=ImageViews(flip=0.0), **same)
    with pytest.raises(RunError, match="another encoder"):
        fit(pictures, encoder=resnet18_cifar, views=ImageViews(), **same)


def test_a_module_of_other_weights_and_a_partial_of_other_values_are_refused(tmp_path: Path) -> None:
    same: dict[str, Any] = {"out": tmp_path / "run", "test": None, **QUICK, "stages": 1}
    with seeded(0):
        one, other = Own(), Own()
    method = partial(SimCLR, out_dim=16)
    fit(_pixels(), encoder=one, method=method, **same)
    fit(_pixels(), encoder=copy.deepcopy(one), method=partial(SimCLR, out_dim=16), **same)
    with pytest.raises(RunError, match="another weights"):
        fit(_pixels(), encoder=other, method=method, **same)
    with pytest.raises(RunError, match="another method"):
        fit(_pixels(), encoder=one, method=partial(SimCLR, out_dim=8), **same)


def test_views_that_hold_others_are_known_by_these(tmp_path: Path) -> None:
    same: dict[str, Any] = {"out": tmp_path, **QUICK, "stages": 1}
    fit(_pixels(), views=PerSampleViews(v2.RandomHorizontalFlip(0.5)), **same)
    fit(_pixels(), views=PerSampleViews(v2.RandomHorizontalFlip(0.5)), **same)
    with pytest.raises(RunError, match="another views"):
        fit(_pixels(), views=PerSampleViews(v2.RandomHorizontalFlip(0.1)), **same)


def test_a_hugging_face_data_set_is_taken_as_it_is(tmp_path: Path) -> None:
    hub = pytest.importorskip("datasets", reason="the extra hub is not installed")
    pictures = [Image.new("RGB", (16, 16), (n * 6, 255 - n * 6, 128)) for n in range(40)]
    features = hub.Features({"img": hub.Image(), "label": hub.ClassLabel(names=["even", "odd"])})
    split = hub.Dataset.from_dict({"img": pictures, "label": [n % 2 for n in range(40)]}, features=features)
    dataset = as_dataset(split)
    assert list(dataset.label_names["label"]) == ["even", "odd"]
    joint = fit(split, out=tmp_path, stages=1, epochs=1, batch_size=8, progress=False)
    assert joint.encode(pictures).shape == (40, 128)
