from __future__ import annotations

import numpy as np

from overtone.evaluation.caption_words import caption_words


def test_each_word_marks_the_captions_that_say_it_as_a_whole_word_in_any_case() -> None:
    texts = ["A Dog runs", "two dogs", "dog, asleep", "cats"] * 10
    found = caption_words(texts)
    assert found["dog"].tolist() == [1, 0, 1, 0] * 10
    assert found["dogs"].tolist() == [0, 1, 0, 0] * 10


def test_stop_words_numbers_rare_and_common_words_are_none() -> None:
    texts = [
        f"photo of the bird {n} {'seldom' if n < 9 else ''} {'singing' if n % 2 else ''}" for n in range(100)
    ]
    assert list(caption_words(texts)) == ["singing"]


def test_of_words_that_always_come_together_one_is_kept() -> None:
    texts = ["hot dog", "cat"] * 20
    assert sorted(caption_words(texts)) == ["cat", "dog"]


def test_no_more_words_than_asked_for_the_most_frequent_first() -> None:
    draws = np.random.default_rng(0)
    said = draws.random((500, 20)) < np.linspace(0.45, 0.1, 20)
    texts = [" ".join(f"word{chr(97 + i)}" for i in np.flatnonzero(row)) or "nothing" for row in said]
    found = caption_words(texts, 5)
    counts = [int(codes.sum()) for codes in found.values()]
    assert (len(found), counts) == (5, sorted(counts, reverse=True))


def test_too_few_captions_or_words_give_none() -> None:
    assert caption_words(["a dog", "a cat"]) == {}
    assert caption_words(["the", "of"] * 50) == {}
