"""Texts that belong to pictures: which can be used, how they are kept, and when two are equal."""

from __future__ import annotations

import codecs
import json
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from overtone.errors import DataError, RecipeError

LONGEST = 16_384
"""Characters of a text that are kept; a text encoder reads some dozens or hundreds."""
MOST_BYTES = 4 * LONGEST + 4
"""So many bytes hold more than `LONGEST` characters of any language; of a file no more is read."""

_CHUNK = 65_536


class Texts(Sequence[str]):
    """Strings in one block of memory: a list of millions would be copied by each worker that reads it.

    >>> texts = Texts(["a cat", "a dog", "ein Hörnchen"])
    >>> texts[-1], list(texts.take(np.array([1, 0])))
    ('ein Hörnchen', ['a dog', 'a cat'])
    """

    def __init__(self, strings: Iterable[str]) -> None:
        left = iter(strings)
        chunks = iter(lambda: list(islice(left, _CHUNK)), [])
        kind = pa.large_string()
        self._strings = pa.concat_arrays([pa.array([], kind), *(pa.array(chunk, kind) for chunk in chunks)])

    def __len__(self) -> int:
        return len(self._strings)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[one] for one in range(len(self))[row]]
        text: str = self._strings[range(len(self))[row]].as_py()
        return text

    def take(self, rows: NDArray[np.int64]) -> Texts:
        """The texts of some rows, in that order."""
        taken = Texts([])
        taken._strings = self._strings.take(pa.array(rows))
        return taken


class Captions(NamedTuple):
    """The texts of a source of pictures, before the pictures are read.

    Attributes:
        texts: N strings, blank where there is none that can be used.
        bad: Row -> why its pair cannot be used.
        cut: Rows of which only the first `LONGEST` characters are kept.
        remarks: (what, reason) of everything left out that is no row, such as members of a tar file.
        parts: How many files all of it comes from.
        damaged: How many of these could not be read to their end.
    """

    texts: Texts
    bad: Mapping[int, str]
    cut: Sequence[int]
    remarks: Sequence[tuple[str, str]] = ()
    parts: int = 1
    damaged: int = 0

    @classmethod
    def of(cls, raw: Iterable[bytes | str | None], remarks: Sequence[tuple[str, str]] = ()) -> Captions:
        """Judges what was found for each row: the bytes of a text (at least `MOST_BYTES` of them if it is
        longer), a string, or None where there is nothing.

        >>> Captions.of([" a cat\\n", b"\\xff", " ", None]).bad
        {1: 'a text that is not UTF-8', 2: 'an empty text', 3: 'no text'}
        """
        bad: dict[int, str] = {}
        cut: list[int] = []

        def judged() -> Iterator[str]:
            for row, found in enumerate(raw):
                try:
                    text, whole = usable(found)
                except ValueError as reason:
                    bad[row] = str(reason)
                    yield ""
                    continue
                if not whole:
                    cut.append(row)
                yield text

        return cls(Texts(judged()), bad, cut, remarks)

    def take(self, rows: NDArray[np.int64]) -> Captions:
        """The captions of some rows, in that order; of remarks nothing changes."""
        place = {row: new for new, row in enumerate(rows.tolist())}
        bad = {place[row]: why for row, why in self.bad.items() if row in place}
        cut = [place[row] for row in self.cut if row in place]
        return self._replace(texts=self.texts.take(rows), bad=bad, cut=cut)

    def tolerate(self, max_bad_fraction: float) -> None:
        """Raises a `DataError` if more of the parts, rounded up, are damaged: what they held is not known."""
        if self.damaged > math.ceil(max_bad_fraction * self.parts):
            said = "; ".join(f"{what} ({why})" for what, why in self.remarks[:3])
            raise DataError(
                f"{self.damaged:,} of {self.parts:,} files are damaged, more than max_bad_fraction="
                f"{max_bad_fraction:g}: {said}. Replace or remove them, or raise max_bad_fraction"
            )

    def by_reason(self, quarantined: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
        """The ids of what was left out for each reason, the most frequent first; unreadable pictures, of
        which each decoder says something else, are one."""
        known, found = set(self.bad.values()), defaultdict(list)
        for name, why in quarantined:
            found[why if why in known else "an unreadable picture"].append(name)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def usable(found: bytes | str | None) -> tuple[str, bool]:
    """A text without blanks around it, and whether that is all of it.

    Raises:
        ValueError: It cannot be used; the message says why.

    >>> usable(b"\\xef\\xbb\\xbfa cat "), usable("ab" * LONGEST)[1]
    (('a cat', True), False)
    """
    if found is None:
        raise ValueError("no text")
    whole = True
    if isinstance(found, bytes):
        whole = len(found) < MOST_BYTES
        try:
            found = codecs.getincrementaldecoder("utf-8-sig")().decode(found[:MOST_BYTES], final=whole)
        except UnicodeDecodeError:
            raise ValueError("a text that is not UTF-8") from None
    try:
        found.encode()
    except UnicodeEncodeError:  # lone surrogates
        raise ValueError("a text that is not UTF-8") from None
    if "\0" in found:
        raise ValueError("a text with NUL in it")
    text = found.strip()
    if not text:
        raise ValueError("an empty text")
    return text[:LONGEST].rstrip(), whole and len(text) <= LONGEST


def where(text: str) -> tuple[str, str]:
    """The kind of file that holds a text, and the field in it.

    Raises:
        RecipeError: It is neither `txt` nor `json:` and a field.

    >>> where("txt"), where("json:caption")
    (('txt', ''), ('json', 'caption'))
    """
    kind, _, field = text.partition(":")
    if kind != "txt" and not (kind == "json" and field):
        raise RecipeError(f"text={text!r}: give 'txt', or 'json:' and the name of a field, as 'json:caption'")
    return kind, field


def field_of(content: bytes | None, field: str) -> bytes | str | None:
    """The text in what a file holds: all of it, or a field of a JSON object; None where there is none.

    >>> field_of(b'{"caption": "a cat"}', "caption")
    'a cat'
    """
    if content is None or not field:
        return content
    try:
        value = json.loads(content)[field]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return value if isinstance(value, str) else None


def normalised(text: str) -> str:
    """Equal for texts that differ in Unicode's composition (NFC) and in blanks alone.

    >>> normalised("cafe\\u0301  noir\\n") == normalised("café noir")
    True
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def first_equal(texts: Iterable[str]) -> NDArray[np.int64]:
    """(N,) int64, for each text the row of the first one that is equal when normalised.

    >>> first_equal(["a cat", "a dog", "a  cat"])
    array([0, 1, 0])
    """
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(normalised(text), row) for row, text in enumerate(texts)], np.int64)
