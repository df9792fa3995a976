from __future__ import annotations

from itertools import combinations

import pytest
from two_towers import scenes
from two_towers.asking import diagnosis, judged
from two_towers.emoji import MERGED, base, differing, split_of
from two_towers.scenes import held_out_pairs, scene_names, without_scene

TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
PERSONS = ("man", "woman", "person")
RUNNING = [f"{who} running{way}" for who in PERSONS for way in ("", " facing right")]
NAMES = [
    *(f"{running} with {tone} skin tone" for running in RUNNING for tone in TONES),
    *(f"handshake with {one} skin tone and {other} skin tone" for one in TONES for other in TONES),
    *(f"clock face {hour}{half}" for hour in ("one", "two", "three") for half in (" oclock", "-thirty")),
    *("downwards black arrow", "black rightwards arrow", "new moon symbol", "full moon symbol", "rose"),
    *("family: man, boy", "family: man, boy, boy", "family: man, woman, boy", "woman"),
]


def by_loops(words: tuple[str, ...]) -> list[tuple[int, int]]:
    """The pairs of names whose words agree in all places but one, where both have one of these."""
    found = []
    for (one, a), (other, b) in combinations(enumerate(NAMES), 2):
        if len(a.split()) == len(b.split()):
            unlike = [(x, y) for x, y in zip(a.split(), b.split(), strict=True) if x != y]
            if len(unlike) == 1 and set(unlike[0]) <= set(words):
                found.append((one, other))
    return found


def test_pairs_differ_in_one_word_of_an_attribute_and_in_nothing_else() -> None:
    found = differing(NAMES)
    assert found["skin tone"] == by_loops(TONES)
    assert found["gender"] == by_loops(PERSONS)
    said = {name: [{NAMES[one], NAMES[other]} for one, other in pairs] for name, pairs in found.items()}
    assert len(said["direction"]) == len(PERSONS) * len(TONES)
    assert {"man running with dark skin tone", "man running facing right with dark skin tone"} in said[
        "direction"
    ]
    assert said["arrow"] == [{"downwards black arrow", "black rightwards arrow"}]
    assert said["moon phase"] == [{"new moon symbol", "full moon symbol"}]
    assert said["count of people"] == [{"family: man, boy", "family: man, boy, boy"}]
    assert len(said["clock time"]) == 15


def test_no_picture_of_a_held_out_pair_is_trained_on_and_every_picture_has_its_place() -> None:
    for variants in ("all", "one"):
        split = split_of(NAMES, variants)
        train = set(split.train.tolist())
        assert sorted([*train, *split.held_out.tolist()]) == list(range(len(NAMES)))
        held_out = split.held_out_pairs()
        assert len(held_out["skin tone"]) > 3
        assert len(held_out["clock time"]) > 0
        assert all(train.isdisjoint(pair) for pairs in held_out.values() for pair in pairs)


def test_of_one_variant_of_each_base_nothing_else_of_that_base_is_trained_on() -> None:
    split = split_of(NAMES, "one")
    trained = [base(NAMES[row]) for row in split.train]
    assert len(set(trained)) == len(trained)
    assert not any(set(pair) <= set(split.train) for name in MERGED for pair in split.pairs[name])


@pytest.mark.parametrize(
    ("seen", "unseen", "verdict"),
    [(99, 95, "learned"), (99, 60, "too little data"), (60, 55, "suppressed")],
)
def test_what_is_told_apart_only_where_it_was_seen_lacks_data_and_what_is_told_apart_nowhere_is_suppressed(
    seen: float, unseen: float, verdict: str
) -> None:
    assert f": {verdict}" in diagnosis("gender", seen, unseen)


def test_a_pattern_counts_as_doubled_or_below_by_the_means_and_the_spread() -> None:
    figures = {"stage 0": [20.0, 22.0], "stages 0-2": [41.0, 43.0]}
    worse = {"stage 0": [30.0, 31.0], "stages 0-2": [27.0, 28.0]}
    same = {"stage 0": [90.0, 92.0], "stages 0-2": [89.0, 92.0]}
    ways = {"image to text": same, "text to image": same}
    double, below, retrieval = judged({"a": figures, "b": worse, "c": same, **ways}, ("a", "b", "c"))
    assert double == "at least double stage 0 on 1 patterns: a; aim 2: not met."
    assert below == "no pattern more than the spread below stage 0; below: b -3.0, spread 0.7: not met."
    assert retrieval == "no retrieval more than the spread below stage 0: met."


def test_captions_without_the_scene_and_its_name_alone_make_up_the_whole_caption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scenes, "HELD_OUT_PAIRS", 2)
    properties, names = without_scene(3, start=5), scene_names(3, start=5)
    for one, other in zip(properties.texts, names.texts, strict=True):
        assert "in " not in one.rpartition("the letter")[2]
        assert other.startswith("in ")
    pairs, bare = held_out_pairs(), held_out_pairs(with_scene=False)
    assert len(pairs) == 9 * 2
    assert pairs[0].texts[0].startswith(f"{bare[0].texts[0]}, in ")
