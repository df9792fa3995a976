"""Gathers what the scripts of this folder kept in `runs/speed` into `runs/speed/table.md`."""

from __future__ import annotations

import json

from measuring import KEPT, markdown


def main() -> None:
    parts = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(KEPT.glob("*.json"))]
    text = markdown(parts)
    (KEPT / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
