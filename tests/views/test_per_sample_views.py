from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from overtone import rng
from overtone.contracts import Address, Batch
from overtone.errors import RecipeError
from overtone.views import PerSampleViews

ADDRESS = Address(seed=3, stage=1, step=7)
TRANSFORM = v2.Compose(
    [v2.RandomResizedCrop(8, antialias=True), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4)]
)


def batch() -> Batch:
    images = torch.randint(0, 256, (5, 3, 12, 12), generator=torch.Generator().manual_seed(0))
    return {"index": torch.tensor([4, 0, 9, 7, 2]), "image": images.to(torch.uint8), "cell": torch.arange(5)}


def test_each_result_is_the_transform_under_the_samples_own_seed() -> None:
    for view, made in enumerate(PerSampleViews(TRANSFORM)(batch(), ADDRESS)):
        for image, index, sample in zip(
            made["image"], batch()["index"].tolist(), batch()["image"], strict=True
        ):
            with rng.seeded(3, "views", 1, 7, view, index):
                assert torch.equal(image, TRANSFORM(sample))


def test_views_do_not_depend_on_the_batch_and_leave_the_streams_alone() -> None:
    views, state = PerSampleViews(TRANSFORM), torch.get_rng_state()
    whole = views(batch(), ADDRESS)[1]["image"]
    alone = views({key: value[3:4] for key, value in batch().items()}, ADDRESS)[1]["image"]
    assert torch.equal(whole[3:4], alone)
    assert torch.equal(state, torch.get_rng_state())


def test_a_transform_that_draws_from_numpy_or_python_repeats() -> None:
    views = PerSampleViews(lambda image: image * random.random() + float(np.random.rand()))
    first, again = views(batch(), ADDRESS), views(batch(), ADDRESS)
    assert torch.equal(first[0]["image"], again[0]["image"])
    assert not torch.equal(first[0]["image"], first[1]["image"])


def test_a_transform_that_writes_in_place_does_not_change_the_batch() -> None:
    given = batch()
    PerSampleViews(lambda image: image.zero_())(given, ADDRESS)
    assert torch.equal(given["image"], batch()["image"])


def test_other_keys_stay_and_another_key_can_be_chosen() -> None:
    given = {"index": torch.arange(2), "series": torch.ones(2, 4), "cell": torch.zeros(2)}
    view = PerSampleViews(torch.neg, n_views=1, key="series")(given, ADDRESS)[0]
    assert view["cell"] is given["cell"]
    assert view["series"].tolist() == [[-1.0] * 4] * 2


def test_results_that_do_not_stack_name_the_sample() -> None:
    def ragged(image: Tensor) -> Tensor:
        return image[:, : int(image.sum()) % 5 + 1]

    with pytest.raises(RecipeError, match=r"for sample \d, but .* for the first of the batch"):
        PerSampleViews(ragged)(batch(), ADDRESS)
    with pytest.raises(RecipeError, match="returned a list for sample 4: expected a tensor"):
        PerSampleViews(Tensor.tolist)(batch(), ADDRESS)
    with pytest.raises(RecipeError, match=r"views\.n_views=0"):
        PerSampleViews(torch.neg, n_views=0)
