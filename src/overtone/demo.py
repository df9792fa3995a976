"""The recipe of `overtone demo`: a digit that suppresses the picture beside it, drawn here."""

from __future__ import annotations

from typing import Any

SIZE = 20
_DIGITS = {"source": "digits", "n": 1000, "image_size": SIZE}


def _pictures(n: int, start: int) -> dict[str, Any]:
    """Shapes beside digits; both sets share the same 100 pictures of digits, so that few bits suppress."""
    left = {"source": "trifeature", "n": n, "start": start, "image_size": SIZE}
    return {"source": "composite", "left": left, "right": _DIGITS, "instances": 100}


RECIPE: dict[str, Any] = {
    "data": _pictures(5000, 0),
    "test": _pictures(2000, 5000),
    "views": {"name": "image", "region": [0, 0, SIZE, SIZE], "grey": 0.0, "hue": 0.05},
    "train": {"epochs": 6, "batch_size": 256, "lr": 2e-3},
    "stages": 3,
}
