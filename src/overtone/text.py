"""Text that comes from outside, such as names of files."""

from __future__ import annotations


def utf8(text: str) -> str:
    """Text of which bytes that are no UTF-8, which no table, log or JSON file can hold, are escapes.

    >>> print(utf8(b"caf\\xe9".decode("utf-8", "surrogateescape")))
    caf\\udce9
    """
    return text.encode("utf-8", "backslashreplace").decode()
