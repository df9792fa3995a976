"""Trifeature, digits, tones and genomes: pure, independent, tellable."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from overtone.contracts import Dataset
from overtone.datasets import captioned_scenes, digits, genomes, tones, trifeature
from overtone.datasets.tones import PITCHES
from overtone.datasets.trifeature import COLOURS
from overtone.errors import RecipeError

MAKERS: list[Callable[..., Dataset]] = [trifeature, digits, tones, captioned_scenes, genomes]


def content(dataset: Dataset, index: int) -> torch.Tensor:
    tensor: torch.Tensor = dataset[index][dataset.modality]
    return tensor


@pytest.mark.parametrize("make", MAKERS)
def test_a_sample_is_a_function_of_seed_and_number_alone(make: Callable[..., Dataset]) -> None:
    whole, part = make(300, seed=5), make(20, seed=5, start=250)
    for i in range(20):
        assert torch.equal(content(part, i), content(whole, 250 + i))
        assert part.ids[i] == whole.ids[250 + i]
        assert all(part.labels[name][i] == whole.labels[name][250 + i] for name in whole.labels)


@pytest.mark.parametrize("make", MAKERS)
def test_another_seed_and_another_start_are_other_data(make: Callable[..., Dataset]) -> None:
    prints = {
        make(10).fingerprint,
        make(10, seed=1).fingerprint,
        make(10, start=1).fingerprint,
        make(11).fingerprint,
    }
    assert len(prints) == 4
    assert make(10).fingerprint == make(10).fingerprint


@pytest.mark.parametrize("make", MAKERS)
def test_labels_are_uniform_and_independent(make: Callable[..., Dataset]) -> None:
    dataset = make(4000)
    for name, codes in dataset.labels.items():
        k = len(dataset.label_names[name])
        assert _chi_square(np.bincount(codes, minlength=k), 4000 / k) < _limit(k - 1)
    for one, other in combinations(dataset.labels, 2):
        k, m = len(dataset.label_names[one]), len(dataset.label_names[other])
        table = np.bincount(dataset.labels[one] * m + dataset.labels[other], minlength=k * m)
        assert _chi_square(table, 4000 / (k * m)) < _limit(k * m - 1)


def _chi_square(counts: NDArray[np.int64], expected: float) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def _limit(freedom: int) -> float:
    """Four standard deviations above the mean of a chi-square."""
    return freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("make", MAKERS)
def test_nothing_is_drawn_for_a_senseless_number(make: Callable[..., Dataset]) -> None:
    with pytest.raises(RecipeError, match="n=0"):
        make(0)


def test_the_brightest_pixel_shows_the_colour() -> None:
    dataset = trifeature(200)
    names = list(COLOURS)
    table = np.array(list(COLOURS.values()), dtype=float)
    for i in range(200):
        image = dataset[i]["image"].numpy().reshape(3, -1).astype(float)
        brightest = image[:, image.sum(0).argmax()]
        nearest = int(
            ((table / table.max(1, keepdims=True) - brightest / brightest.max()) ** 2).sum(1).argmin()
        )
        assert names[nearest] == names[dataset.labels["colour"][i]]


def test_the_shape_is_whole_inside_the_picture() -> None:
    dataset = trifeature(500, image_size=40)
    for i in range(500):
        image = dataset[i]["image"].numpy().astype(int)
        edge = np.concatenate([image[:, [0, -1]].ravel(), image[:, :, [0, -1]].ravel()])
        assert (np.abs(edge - 20) > 60).mean() < 0.1


def test_digits_can_be_told_by_their_nearest_neighbours() -> None:
    train, test = digits(2000, image_size=16), digits(300, image_size=16, start=10_000)
    pixels = [
        np.stack([d[i]["image"][0].numpy().ravel() for i in range(len(d))]).astype(float)
        for d in (train, test)
    ]
    neighbours = KNeighborsClassifier(3).fit(pixels[0], train.labels["digit"])
    assert neighbours.score(pixels[1], test.labels["digit"]) > 0.75


def test_the_spectrum_of_a_tone_peaks_at_its_pitch() -> None:
    dataset = tones(200)
    right = 0
    for i in range(200):
        series = dataset[i]["series"][:, 0].numpy()
        spectrum = np.abs(np.fft.rfft(series * np.hanning(len(series)), 4096))
        peak = spectrum.argmax() / 4096
        right += int(np.abs(np.log(PITCHES / peak)).argmin()) == dataset.labels["pitch"][i]
    assert right > 190


def test_tones_are_padded_with_zeros_to_the_longest_of_the_batch() -> None:
    dataset = tones(50)
    samples = [dataset[i] for i in (4, 8, 15)]
    batch = dataset.collate(samples)
    assert batch["index"].tolist() == [4, 8, 15]
    assert batch["series"].shape == (3, max(len(s["series"]) for s in samples), 1)
    for row, length, sample in zip(batch["series"], batch["length"], samples, strict=True):
        assert torch.equal(row[:length], sample["series"])
        assert not row[length:].any()
    assert all(96 <= len(dataset[i]["series"]) <= 256 for i in range(50))
