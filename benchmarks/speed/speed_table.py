"""Gathers what the scripts of this folder kept in `runs/speed` into the tables of `docs/performance.md`."""

from __future__ import annotations

import json
from pathlib import Path

from measuring import KEPT, Found, machine_line, markdown

PAGE = Path("docs/performance.md")
BEGIN, END = "<!-- measured: {part} -->\n", "<!-- end -->\n"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for file in sorted(KEPT.glob("*.json")):
        part: Found = json.loads(file.read_text(encoding="utf-8"))
        text = placed(text, BEGIN.format(part=part["part"]), f"{markdown(part)}\n\n{machine_line(part)}\n")
    PAGE.write_text(text, encoding="utf-8")


def placed(page: str, begin: str, table: str) -> str:
    """The page with a table between its marks; a ValueError where the page has no place for it.

    >>> placed("a<!-- x -->\\nold<!-- end -->\\nb", "<!-- x -->\\n", "new")
    'a<!-- x -->\\nnew<!-- end -->\\nb'
    """
    before, found, rest = page.partition(begin)
    if not found:
        raise ValueError(f"{PAGE}: no line {begin.strip()}")
    return before + begin + table + END + rest.partition(END)[2]


if __name__ == "__main__":
    main()
