from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor

from overtone.datasets import Pair, captioned_scenes, scene_pairs
from overtone.datasets.captioned_scenes import MOST_SCENES, PATTERNS
from overtone.errors import RecipeError

CAPTION = re.compile(
    r"a (?P<viewpoint>\w+) (?P<state>\w+) (?P<colour>\w+) (?P<structure>\w+) at the (?P<position>\w+ \w+), "
    r"(?P<presence>\w+) a sun, an arrow pointing (?P<orientation>\w+), (?P<count>\w+) dots?, "
    r"the letter (?P<text>\w), in (?P<scene>[a-z-]+)"
)


def said(text: str) -> dict[str, str]:
    """What a caption says of the scene and of each property."""
    found = CAPTION.fullmatch(text)
    assert found is not None, text
    return found.groupdict()


def pictures(pair: Pair) -> tuple[Tensor, Tensor]:
    one, other = pair.images
    assert isinstance(one, Tensor)
    assert isinstance(other, Tensor)
    return one, other


def test_a_caption_names_the_scene_and_every_property() -> None:
    dataset = captioned_scenes(300, scenes=40)
    assert list(dataset.label_names) == ["scene", *PATTERNS]
    for i, text in enumerate(dataset.texts):
        for name, value in said(text).items():
            assert value == dataset.label_names[name][dataset.labels[name][i]]
        assert ("one dot," in text) == ("dots," not in text)


@pytest.mark.parametrize("scenes", [2, 9, 1000, MOST_SCENES])
def test_no_two_scenes_share_a_name_nor_a_syllable_with_other_words(scenes: int) -> None:
    names = captioned_scenes(1, scenes=scenes).label_names["scene"]
    assert len(set(names)) == scenes
    words = {word for values in PATTERNS.values() for value in values for word in value.split()}
    assert not {syllable for name in names for syllable in name.split("-")} & words


def test_each_syllable_of_a_scene_can_be_read_from_the_pixels_by_a_line() -> None:
    dataset = captioned_scenes(800, scenes=1000)
    images = np.stack([dataset[i]["image"].numpy() for i in range(800)]).reshape(800, -1).astype(float)
    names = [said(text)["scene"].split("-") for text in dataset.texts]
    for band, syllables in enumerate(zip(*names, strict=True)):
        assert len(set(syllables)) == 10
        found = RidgeClassifier(1e5).fit(images[:600], syllables[:600]).score(images[600:], syllables[600:])
        assert found > 0.95, band


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pair_differs_in_its_property_alone(pattern: str) -> None:
    values = set()
    for pair in scene_pairs(60, pattern, scenes=20, start=7):
        one, other = map(said, pair.texts)
        assert {name for name in one if one[name] != other[name]} == {pattern}
        assert pair.pattern == pattern
        values |= {one[pattern], other[pattern]}
        moved = torch.nonzero((pictures(pair)[0] != pictures(pair)[1]).any(0))
        assert len(moved)
        if pattern != "position":  # what differs lies in one quarter, with what is drawn beyond its border
            assert (moved.amax(0) - moved.amin(0)).max() < 32 * 0.6
    assert values == set(PATTERNS[pattern])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_pictures_of_a_pair_differ_to_the_eye(pattern: str) -> None:
    """Three pixels or more change by an eighth of the whole range, in all but two of a hundred pairs."""
    both = [pictures(pair) for pair in scene_pairs(100, pattern)]
    changed = [int(((one.int() - other.int()).abs().amax(0) > 31).sum()) for one, other in both]
    assert sorted(changed)[2] >= 3


def test_pairs_are_held_out_and_show_the_scenes_of_the_training_set() -> None:
    dataset = captioned_scenes(300, scenes=2)
    usual = {}
    for scene in dataset.label_names["scene"]:
        rows = [i for i, text in enumerate(dataset.texts) if said(text)["scene"] == scene]
        usual[scene] = torch.stack([dataset[i]["image"].float() for i in rows]).median(0).values
    seen = {dataset[i]["image"].numpy().tobytes() for i in range(300)}
    for pair in scene_pairs(50, "count", scenes=2):
        assert not seen & {image.numpy().tobytes() for image in pictures(pair)}
        alike = {scene: ((pictures(pair)[0] - image).abs() < 40).sum() for scene, image in usual.items()}
        assert max(alike, key=lambda scene: int(alike[scene])) == said(pair.texts[0])["scene"]


def test_a_pair_is_a_function_of_its_pattern_and_number() -> None:
    whole, part = scene_pairs(20, "text"), scene_pairs(5, "text", start=15)
    for one, other in zip(whole[15:], part, strict=True):
        assert (one.texts, one.ids) == (other.texts, other.ids)
        assert all(torch.equal(a, b) for a, b in zip(pictures(one), pictures(other), strict=True))
    texts = [{text for pair in scene_pairs(20, name) for text in pair.texts} for name in PATTERNS]
    assert len(set().union(*texts)) == 9 * 40


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(RecipeError, match="pattern: 'color' is unknown; expected one of orientation"):
        scene_pairs(1, "color")
    for wrong in (
        {"n": 0},
        {"n": 1, "scenes": 1},
        {"n": 1, "scenes": MOST_SCENES + 1},
        {"n": 1, "image_size": 31},
    ):
        with pytest.raises(RecipeError, match="give n >= 1"):
            captioned_scenes(**wrong)
        with pytest.raises(RecipeError, match="give n >= 1"):
            scene_pairs(pattern="text", **wrong)
