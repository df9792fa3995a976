"""Two pictures in one: what lies where, which instances, which labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overtone.datasets import ImageDataset, arrays, composite, digits, parquet, trifeature
from overtone.errors import DataError, RecipeError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

LEFT = trifeature(60, image_size=16)
RIGHT = digits(500, image_size=16)


def rights(dataset: ImageDataset) -> list[bytes]:
    return [dataset[i]["image"][:, :, 16:].numpy().tobytes() for i in range(len(dataset))]


def test_left_and_right_lie_side_by_side_with_their_labels() -> None:
    both = composite(LEFT, RIGHT)
    digit_of = {RIGHT[i]["image"].numpy().tobytes(): RIGHT.labels["digit"][i] for i in range(len(RIGHT))}
    assert both.image_shape == (3, 16, 32)
    assert both.ids == LEFT.ids
    for i, right in enumerate(rights(both)):
        assert torch.equal(both[i]["image"][:, :, :16], LEFT[i]["image"])
        assert both.labels["digit"][i] == digit_of[right]
    assert (both.labels["shape"] == LEFT.labels["shape"]).all()


def test_train_and_test_share_the_very_same_instances() -> None:
    train = composite(LEFT, RIGHT, instances=20)
    test = composite(trifeature(40, image_size=16, start=1000), RIGHT, instances=20)
    assert set(rights(train)) == set(rights(test))
    assert len(set(rights(train))) == 20


def test_instances_are_as_many_of_each_class_and_serve_equally_often() -> None:
    both = composite(LEFT, RIGHT, instances=20)
    counts = {right: rights(both).count(right) for right in rights(both)}
    assert set(counts.values()) == {3}
    assert np.bincount(both.labels["digit"]).tolist() == [6] * 10


def test_with_enough_pictures_each_sample_has_its_own() -> None:
    assert len(set(rights(composite(LEFT, RIGHT)))) == 60


def test_the_partner_tells_nothing_of_the_sample() -> None:
    both = composite(trifeature(4000, image_size=16), digits(4000, image_size=16))
    table = np.bincount(both.labels["shape"] * 10 + both.labels["digit"], minlength=100)
    assert ((table - 40) ** 2 / 40).sum() < 99 + 4 * 198**0.5


def test_the_same_arguments_give_the_same_dataset_and_another_seed_another() -> None:
    assert composite(LEFT, RIGHT).fingerprint == composite(LEFT, RIGHT).fingerprint
    assert rights(composite(LEFT, RIGHT, instances=20, seed=1)) != rights(
        composite(LEFT, RIGHT, instances=20)
    )


def test_overlay_takes_the_brighter_pixel() -> None:
    both = composite(LEFT, RIGHT, layout="overlay", instances=10)
    assert both.image_shape == (3, 16, 16)
    assert (both[0]["image"] >= LEFT[0]["image"]).all()
    assert int(both[0]["image"].max()) == 255


def test_names_that_clash_are_prefixed_or_chosen() -> None:
    both = composite(RIGHT, RIGHT)
    assert set(both.labels) == {"left_digit", "right_digit"}
    chosen = composite(RIGHT, RIGHT, names=("object", "digit"))
    assert (chosen.labels["object"] == RIGHT.labels["digit"]).all()


@pytest.mark.parametrize(
    ("left", "right", "options"),
    [
        (trifeature(2), RIGHT, {}),
        (trifeature(2, image_size=17), trifeature(2, image_size=16), {"layout": "overlay"}),
        (LEFT, RIGHT, {"layout": "stacked"}),
        (LEFT, RIGHT, {"names": ("object", "digit")}),
        (RIGHT, LEFT, {"instances": 10}),
        (LEFT, arrays(np.zeros((4, 3, 16, 16), np.float32)), {}),
        (LEFT, arrays(np.zeros((4, 16, 16), np.uint8)), {}),
    ],
)
def test_what_does_not_fit_together_is_a_recipe_error(left: Any, right: Any, options: Any) -> None:
    with pytest.raises(RecipeError):
        composite(left, right, **options)


def test_more_instances_than_there_are_is_a_data_error() -> None:
    with pytest.raises(DataError, match="ask for fewer"):
        composite(LEFT, RIGHT, instances=5000)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not beside the repository")
def test_cifar_beside_a_hundred_mnist_digits_that_train_and_test_share() -> None:
    mnist = parquet(SHARED / "mnist" / "train.parquet", image_size=16, limit=1500)
    train, test = (
        composite(
            parquet(SHARED / "cifar10" / f"{split}.parquet", image_size=16, limit=n),
            mnist,
            instances=100,
            names=("object", "digit"),
        )
        for split, n in (("train", 300), ("test", 200))
    )
    assert train.image_shape == (3, 16, 32)
    assert len(set(rights(train))) == 100
    assert set(rights(train)) == set(rights(test))
    assert np.bincount(train.labels["digit"]).tolist() == [30] * 10
    assert train.label_names["object"][0] == "airplane"
