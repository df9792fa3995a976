"""Two pictures that differ in one thing, with a statement each: what blind pairs are made of."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, TypeAlias

from torch import Tensor

Picture: TypeAlias = Tensor | Path
"""(C, H, W), uint8 or float in [0, 1]; or a file that is read when it is asked for."""


class Pair(NamedTuple):
    """Statement i is true of picture i alone.

    Attributes:
        images: Two pictures.
        texts: Two statements.
        pattern: What the two differ in.
        ids: What to call the pictures in messages.

    >>> Pair((Path("1.jpg"), Path("2.jpg")), ("a dog to the left", "a dog to the right"), "Spatial").ids
    ('', '')
    """

    images: tuple[Picture, Picture]
    texts: tuple[str, str]
    pattern: str
    ids: tuple[str, str] = ("", "")
