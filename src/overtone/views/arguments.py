"""What an argument of the views may be, and the error that says so."""

from __future__ import annotations

from math import inf

from overtone.errors import RecipeError

Range = tuple[float, float]


def require(holds: bool, field: str, value: object, expected: str) -> None:
    """Raises RecipeError, naming the field, the value and what was expected, unless `holds`.

    >>> require(False, "views.flip", 2.0, "a probability from 0 to 1")
    Traceback (most recent call last):
    overtone.errors.RecipeError: views.flip=2.0: expected a probability from 0 to 1
    """
    if not holds:
        raise RecipeError(f"{field}={value!r}: expected {expected}")


def require_range(field: str, value: Range, least: float = 0.0, most: float = inf) -> None:
    """Two rising numbers above `least` (excluded) and up to `most`."""
    bounds = f"above {least:g}" + (f" and at most {most:g}" if most < inf else " and finite")
    holds = len(value) == 2 and least < value[0] <= value[1] <= most and value[1] < inf
    require(holds, field, value, f"two numbers, the smaller first, {bounds}")
