from __future__ import annotations

import numpy as np
import pytest
import torch
from towers import Known

from overtone.datasets import arrays
from overtone.errors import DataError, RecipeError
from overtone.evaluation.zero_shot import zero_shot_accuracy, zero_shot_classifier

TEMPLATES = ("a {}", "one {}")
# Of unit length (1, 0) and (0, 1); (0.6, 0.8) and (0.6, -0.8).
PROMPTS = {"a cat": (2.0, 0.0), "one cat": (0.0, 9.0), "a dog": (3.0, 4.0), "one dog": (0.3, -0.4)}


def test_a_class_is_the_renormalised_mean_of_unit_embeddings() -> None:
    half = 0.5**0.5
    directions = zero_shot_classifier(Known(PROMPTS), ["cat", "dog"], TEMPLATES)
    torch.testing.assert_close(directions, torch.tensor([[half, half], [1.0, 0.0]]))


def test_accuracy_counts_labelled_pictures_alone() -> None:
    pictures = torch.tensor([[1.0, 1.0], [0.5, 0.1], [0.1, 1.0], [1.0, 0.0]]).view(4, 1, 1, 2)
    dataset = arrays(pictures, {"animal": ["cat", "dog", "dog", ""]}, channels_last=False)
    found = [
        zero_shot_accuracy(Known(PROMPTS), dataset, "animal", templates=TEMPLATES, batch_size=size)
        for size in (1, 2, 9)
    ]
    assert found == pytest.approx([200 / 3] * 3)  # the third is labelled a dog and looks like a cat


def test_braces_in_a_name_are_only_a_name() -> None:
    assert zero_shot_classifier(Known({"a {0}": (1.0, 0.0)}), ["{0}"], ["a {}"]).tolist() == [[1.0, 0.0]]


def test_what_makes_no_classifier_is_refused() -> None:
    dataset = arrays(np.zeros((2, 8, 8, 3), np.uint8), {"animal": ["", ""]})
    with pytest.raises(RecipeError, match="'a photo' has no"):
        zero_shot_classifier(Known(PROMPTS), ["cat"], ["a photo"])
    with pytest.raises(RecipeError, match="0 names and 1 templates"):
        zero_shot_classifier(Known(PROMPTS), [])
    with pytest.raises(DataError, match="no attribute 'breed'; there are animal"):
        zero_shot_accuracy(Known(PROMPTS), dataset, "breed")
    with pytest.raises(DataError, match="no sample has a label of 'animal'"):
        zero_shot_accuracy(Known(PROMPTS), dataset, "animal")
