"""Antialiased drawing of many small pictures at once, from signed distances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.float64]
"""(B, H, W): one number a pixel of each picture."""


def placed(size: int, centre: Field, radius: Field, angle: Field) -> tuple[Field, Field]:
    """Each pixel in the coordinates of a drawn thing: x to its right, y to its top, 1 is its radius.

    Args:
        size: Height and width in pixels.
        centre: (B, 2), x and y in pixels.
        radius: (B,), in pixels.
        angle: (B,), counter-clockwise, in radians.

    Returns:
        x and y, each (B, size, size).

    >>> x, y = placed(4, np.array([[2.0, 2.0]]), np.array([1.0]), np.array([0.0]))
    >>> x[0, 0].tolist(), y[0, :, 0].tolist()
    ([-1.5, -0.5, 0.5, 1.5], [1.5, 0.5, -0.5, -1.5])
    """
    pixel = np.arange(size) + 0.5
    right = (pixel[None, None, :] - centre[:, 0, None, None]) / radius[:, None, None]
    up = (centre[:, 1, None, None] - pixel[None, :, None]) / radius[:, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    return cos * right + sin * up, cos * up - sin * right


def coverage(distance: Field, radius: Field) -> Field:
    """How much of each pixel lies inside: from the signed distance to the edge, negative inside.

    >>> coverage(np.array([[[-1.0, 0.0, 1.0]]]), np.array([8.0])).tolist()
    [[[1.0, 0.5, 0.0]]]
    """
    return np.clip(0.5 - distance * radius[:, None, None], 0, 1)


def by_kind(table: Mapping[str, Callable[..., Field]], kind: NDArray[np.int64], *fields: Field) -> Field:
    """Applies to each picture the function of its kind; `kind` (B,) counts the functions of the table.

    >>> table = {"same": lambda x: x, "negative": lambda x: -x}
    >>> by_kind(table, np.array([0, 1]), np.ones((2, 1, 1))).ravel().tolist()
    [1.0, -1.0]
    """
    result = np.empty_like(fields[0])
    for code, function in enumerate(table.values()):
        members = np.flatnonzero(kind == code)
        if len(members):
            result[members] = function(*(field[members] for field in fields))
    return result


def to_segment(x: Field, y: Field, start: Field, end: Field) -> Field:
    """Distance to a line segment that differs from picture to picture; `start` and `end` are (B, 2)."""
    along = end - start
    length = np.maximum((along**2).sum(1), 1e-6)[:, None, None]
    dx, dy = x - start[:, 0, None, None], y - start[:, 1, None, None]
    ax, ay = along[:, 0, None, None], along[:, 1, None, None]
    t = np.clip((dx * ax + dy * ay) / length, 0, 1)
    distance: Field = np.hypot(dx - t * ax, dy - t * ay)
    return distance
