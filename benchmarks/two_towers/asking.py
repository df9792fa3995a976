"""What every encoder of a row is asked, and what its answers say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from findings import RESULT, START, Figures, against

from overtone.contracts import Dataset
from overtone.datasets import Pair, captioned_scenes, subset
from overtone.evaluation.pairs import pair_accuracy
from overtone.evaluation.retrieval import retrieval
from overtone.evaluation.towers import unit_images, unit_texts
from overtone.integration import JointEncoder
from two_towers import emoji, scenes

MEAN = "mean of patterns"
WAYS = ("image to text", "text to image")
LEARNED = 90.0  # percent of statements
SEEN, UNSEEN = "trained on", "held out"

Answers = dict[str, float]
"""Question -> percent."""


class Statements(NamedTuple):
    """Pictures of an attribute with their own name and one that says another value of it."""

    attribute: str
    part: str
    images: torch.Tensor
    own: list[str]
    other: list[str]


def ask_scenes(encoder: JointEncoder, n: int, start: int, with_scene: bool) -> Answers:
    """Held-out pairs of each pattern, recall@1 on `n` held-out pictures, and of their scenes' names."""
    answers = _pairs_and_retrieval(encoder, _scene_pairs(with_scene), _scenes(n, start, with_scene))
    if with_scene:
        answers["scene"] = retrieval(encoder, scenes.scene_names(n, start), ks=[1]).image_to_text[1]
    return answers


def ask_emoji(encoder: JointEncoder, path: Path, variants: emoji.Variants) -> Answers:
    """Held-out pairs and recall@1 on held-out pictures; statements on pictures of both parts."""
    pairs, held_out = _emoji(path, variants)
    answers = _pairs_and_retrieval(encoder, pairs, held_out)
    for asked in _statements(path, variants):
        answers[f"{asked.attribute}, {asked.part}"] = _told(encoder, asked)
    return answers


def is_statement(question: str) -> bool:
    """Whether a question is one for the diagnosis of an attribute."""
    return question.endswith((SEEN, UNSEEN))


def judged(scores: Mapping[str, Figures], patterns: Sequence[str]) -> Iterator[str]:
    """Whether the result keeps what one plain encoder has, and twice what it has in two patterns."""
    doubled = [p for p in patterns if np.mean(scores[p][RESULT]) >= 2 * np.mean(scores[p][START])]
    named = f": {', '.join(doubled)}" if doubled else ""
    yield _sentence(f"at least double {START} on {len(doubled)} patterns{named}; aim 2", len(doubled) >= 2)
    for what, names in (("no pattern", patterns), ("no retrieval", WAYS)):
        below = [
            f"{name} {gain:+.1f}, spread {noise:.1f}"
            for name in names
            for gain, noise in [against(scores[name], RESULT, START)]
            if gain < -noise
        ]
        found = f"; below: {'; '.join(below)}" if below else ""
        yield _sentence(f"{what} more than the spread below {START}{found}", not below)


def counted(path: Path, variants: emoji.Variants) -> str:
    """How many held-out pairs there are of each attribute."""
    pairs, _ = _emoji(path, variants)
    numbers = Counter(pair.pattern for pair in pairs)
    of_attribute = ", ".join(f"{name} {numbers[name]}" for name in emoji.ATTRIBUTES)
    return f"Held-out pairs: {of_attribute}."


def diagnoses(scores: Mapping[str, Figures], column: str) -> Iterator[str]:
    """For each attribute, whether it is learned, suppressed, or learned by heart for want of data."""
    for attribute in emoji.ATTRIBUTES:
        asked = [f"{attribute}, {part}" for part in (SEEN, UNSEEN)]
        seen, unseen = (float(np.mean(scores[question][column])) for question in asked)
        yield diagnosis(attribute, seen, unseen)


def diagnosis(attribute: str, seen: float, unseen: float) -> str:
    """From how often a picture is nearer to its own name than to one that says another value (chance 50).

    >>> diagnosis("gender", 99.0, 60.0)
    'gender: 99 % on pictures that were trained on, 60 % on held-out ones: too little data (told apart where \
it was seen).'
    >>> diagnosis("gender", 60.0, 55.0)
    'gender: 60 % on pictures that were trained on, 55 % on held-out ones: suppressed (not learned even \
where it was seen).'
    """
    if unseen >= LEARNED:
        verdict = "learned"
    elif seen < LEARNED and 100 - seen > seen - unseen:
        verdict = "suppressed (not learned even where it was seen)"
    else:
        verdict = "too little data (told apart where it was seen)"
    figures = f"{seen:.0f} % on pictures that were trained on, {unseen:.0f} % on held-out ones"
    return f"{attribute}: {figures}: {verdict}."


def _pairs_and_retrieval(encoder: JointEncoder, pairs: Sequence[Pair], held_out: Dataset) -> Answers:
    scores = pair_accuracy(encoder, pairs, prompt="", batch_size=128)
    found = retrieval(encoder, held_out, ks=[1])
    patterns = {name: score.accuracy for name, score in scores.patterns.items()}
    return {
        MEAN: scores.mean,
        **patterns,
        WAYS[0]: found.image_to_text[1],
        WAYS[1]: found.text_to_image[1],
    }


def _told(encoder: JointEncoder, asked: Statements) -> float:
    names = [""] * len(asked.images)
    pictures = unit_images(encoder, asked.images, names)
    own, other = (unit_texts(encoder, texts) for texts in (asked.own, asked.other))
    return 100 * float(((pictures * own).sum(1) > (pictures * other).sum(1)).double().mean())


@lru_cache
def _scene_pairs(with_scene: bool) -> list[Pair]:
    return scenes.held_out_pairs(with_scene)


@lru_cache
def _scenes(n: int, start: int, with_scene: bool) -> Dataset:
    return captioned_scenes(n, start=start) if with_scene else scenes.without_scene(n, start)


@lru_cache
def _emoji(path: Path, variants: emoji.Variants) -> tuple[list[Pair], Dataset]:
    everything = emoji.pictures(path)
    split = emoji.split_of(everything.texts, variants)
    return emoji.picture_pairs(everything, split.held_out_pairs()), subset(everything, split.held_out)


@lru_cache
def _statements(path: Path, variants: emoji.Variants) -> list[Statements]:
    everything = emoji.pictures(path)
    split = emoji.split_of(everything.texts, variants)
    found = []
    for attribute, pairs in split.pairs.items():
        both = [pair for one, other in pairs for pair in ((one, other), (other, one))]
        for part, rows in ((SEEN, split.train), (UNSEEN, split.held_out)):
            asked = emoji.some([pair for pair in both if pair[0] in set(rows.tolist())], attribute)
            if asked:
                images = torch.stack([everything[row]["image"] for row, _ in asked])
                own, other = ([everything.texts[row] for row in side] for side in zip(*asked, strict=True))
                found.append(Statements(attribute, part, images, own, other))
    return found


def _sentence(words: str, met: bool) -> str:
    return f"{words}: {'met' if met else 'not met'}."
