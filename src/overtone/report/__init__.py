"""What a run shows a person at its end: what the cells have in common, and what the stages gained."""

from __future__ import annotations


def printable(text: str, limit: int = 40) -> str:
    """Text from a dataset, safe to show: control and direction characters as `?`, cut at `limit`.

    >>> printable("star\\x1b[31m"), printable("a" * 9, limit=5)
    ('star?[31m', 'aaaa…')
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(character if character.isprintable() else "?" for character in cut)
