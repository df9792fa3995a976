"""Which texts can be used, and when two are equal."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overtone.datasets.texts import LONGEST, MOST_BYTES, Captions, Texts, field_of, first_equal, usable
from overtone.errors import DataError

strings = st.text(st.characters(exclude_categories=()), max_size=20)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "no text"),
        (b"", "empty"),
        (" \n\t\u00a0", "empty"),
        (b"\xef\xbb\xbf \n", "empty"),
        (b"caf\xe9", "not UTF-8"),
        (b"cut in a character \xc3", "not UTF-8"),
        ("half \ud83d a pair", "not UTF-8"),
        (b"half \xed\xa0\xbd a pair", "not UTF-8"),
        ("a\0b", "NUL"),
        ("a cat".encode("utf-16"), "not UTF-8"),
        ("a cat".encode("utf-16-le"), "NUL"),
    ],
)
def test_what_is_no_text_is_left_out_with_the_reason(found: bytes | str | None, why: str) -> None:
    captions = Captions.of(["fine", found, "fine too"])
    assert list(captions.bad) == [1]
    assert why in captions.bad[1]
    assert list(captions.texts) == ["fine", "", "fine too"]


@pytest.mark.parametrize("letter", ["a", "ö", "猫", "🎵"])
def test_a_text_of_a_megabyte_is_cut_and_counted_the_same_from_bytes_and_string(letter: str) -> None:
    long = letter * 1_000_000
    captions = Captions.of([long, long.encode(), long.encode()[:MOST_BYTES], letter * LONGEST])
    assert set(captions.texts) == {letter * LONGEST}
    assert (captions.cut, captions.bad) == ([0, 1, 2], {})


@given(st.one_of(st.none(), st.binary(max_size=40), strings))
def test_no_content_whatever_makes_reading_fail(found: bytes | str | None) -> None:
    captions = Captions.of([found])
    assert (captions.texts[0] == "") == (0 in captions.bad)
    captions.texts[0].encode()


@given(strings)
def test_bytes_and_string_of_a_text_are_judged_alike(text: str) -> None:
    def judged(found: bytes | str) -> object:
        try:
            return usable(found)
        except ValueError as error:
            return str(error)

    if not text.startswith("\ufeff"):
        assert judged(text) == judged(text.encode("utf-8", "surrogatepass"))


@given(st.lists(st.sampled_from(["a", "\u00e9", "e\u0301", " ", "\n", "b"]), max_size=5).map("".join))
@settings(max_examples=50)
def test_texts_are_equal_up_to_composition_and_blanks(text: str) -> None:
    variants = [text, unicodedata.normalize("NFD", text), f" {text}\n", text.replace(" ", "  "), text + "c"]
    assert first_equal(variants).tolist() == [0, 0, 0, 0, 4]


def test_texts_in_one_block_are_those_of_the_list() -> None:
    strings = [f"text {i} ü" for i in range(70_000)]
    texts = Texts(iter(strings))
    rows = np.array([69_999, 0, 65_536])
    assert list(texts.take(rows)) == [strings[row] for row in rows]
    assert texts[-2:] == strings[-2:]
    with pytest.raises(IndexError):
        texts[70_000]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"caption": "a"}', "a"),
        (b'{"caption": 3}', None),
        (b'["caption"]', None),
        (b"null", None),
        (b'{"caption": "a"', None),
        (b"[" * 100_000, None),
        (b'{"caption": "\\ud800"}', "\ud800"),
        (b"\xff\xfe", None),
    ],
)
def test_a_field_of_json_is_found_or_there_is_none(content: bytes, found: str | None) -> None:
    assert field_of(content, "caption") == found


def test_more_damaged_files_than_tolerated_are_an_error() -> None:
    captions = Captions.of(["a"])._replace(parts=10, damaged=2, remarks=[("3.tar", "cut short")])
    captions.tolerate(0.2)
    with pytest.raises(DataError, match=r"2 of 10 files are damaged.*3\.tar \(cut short\)"):
        captions.tolerate(0.1)
