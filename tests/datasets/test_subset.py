"""Some of the samples, renumbered."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from overtone.datasets import balanced, digits, subset
from overtone.errors import DataError, RecipeError

WHOLE = digits(300, image_size=12)


def test_a_subset_is_renumbered_and_keeps_ids_labels_and_pictures() -> None:
    few = subset(WHOLE, [9, 2, 250])
    assert few.ids == ["9", "2", "250"]
    assert few.labels["digit"].tolist() == WHOLE.labels["digit"][[9, 2, 250]].tolist()
    assert few[2]["index"] == 2
    assert torch.equal(few[2]["image"], WHOLE[250]["image"])
    assert few.collate([few[0], few[-1]])["index"].tolist() == [0, 2]


def test_other_samples_are_another_fingerprint() -> None:
    assert subset(WHOLE, 5).fingerprint == subset(WHOLE, range(5)).fingerprint
    assert subset(WHOLE, 5).fingerprint != subset(WHOLE, [0, 1, 2, 4, 3]).fingerprint


def test_a_subset_cannot_reach_outside() -> None:
    for indices in ([300], [-1], 301):
        with pytest.raises(RecipeError, match="300 samples"):
            subset(WHOLE, indices)


def test_a_balanced_draw_has_as_many_of_each_class_and_is_reproducible() -> None:
    counts = np.bincount(balanced(WHOLE, 53).labels["digit"], minlength=10)
    assert sorted(counts.tolist()) == [5] * 7 + [6] * 3
    assert balanced(WHOLE, 53).ids == balanced(WHOLE, 53).ids != balanced(WHOLE, 53, seed=1).ids


def test_a_balanced_draw_needs_an_attribute_and_enough_samples() -> None:
    with pytest.raises(RecipeError, match="'digit'"):
        balanced(WHOLE, 10, attribute="colour")
    with pytest.raises(DataError, match=r"has .* samples, 29 are needed"):
        balanced(WHOLE, 290)
