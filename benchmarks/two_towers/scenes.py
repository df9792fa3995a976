"""Captions without the scene that drowns the rest, and names of scenes alone."""

from __future__ import annotations

from overtone.datasets import Pair, captioned_scenes
from overtone.datasets.captioned import Captioned
from overtone.datasets.captioned_scenes import PATTERNS, scene_pairs

HELD_OUT_PAIRS = 200  # a pattern


def without_scene(n: int, start: int = 0) -> Captioned:
    """A data set of a recipe: the same pictures, whose captions leave the scene out."""
    scenes = captioned_scenes(n, start=start)
    return Captioned(scenes, [_split(text)[0] for text in scenes.texts])


def scene_names(n: int, start: int = 0) -> Captioned:
    """The same pictures with the scene's name alone, in the words of the captions."""
    scenes = captioned_scenes(n, start=start)
    return Captioned(scenes, [_split(text)[1] for text in scenes.texts])


def held_out_pairs(with_scene: bool = True) -> list[Pair]:
    """Pairs that differ in one property alone, of each property."""
    pairs = [pair for pattern in PATTERNS for pair in scene_pairs(HELD_OUT_PAIRS, pattern)]
    if with_scene:
        return pairs
    return [pair._replace(texts=(_split(pair.texts[0])[0], _split(pair.texts[1])[0])) for pair in pairs]


def _split(text: str) -> tuple[str, str]:
    properties, _, scene = text.rpartition(", in ")
    return properties, f"in {scene}"
