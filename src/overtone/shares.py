"""What goes through a whole data set, shared out over the processes: each leaves a file of its rows, and the
first joins them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from overtone import distributed
from overtone.npy import created

_ROWS = 2**16  # copied at a time


def share_out(place: Path, n: int, multiple: int, make: Callable[[range, Path], object]) -> None:
    """Makes the share of this process of n rows.

    Args:
        place: Where the rows of all will lie.
        n: The rows of all.
        multiple: Each share begins at one.
        make: Takes the rows of this process and the file to write them to; not called without rows.
    """
    own, piece = distributed.own_share(n, multiple), _piece(place, distributed.rank())
    piece.unlink(missing_ok=True)  # of a run on more processes, in which this one had a share
    if len(own):
        make(own, piece)


def join_shares(place: Path, out: Path) -> None:
    """Puts the shares of all processes one below the other and removes them; short rows end in zeros.

    Raises:
        DiskError: `out` cannot be written.
    """
    pieces = [piece for n in range(distributed.world_size()) if (piece := _piece(place, n)).exists()]
    if len(pieces) == 1:
        shutil.move(pieces[0], out)
        return
    maps = [np.load(piece, mmap_mode="r", allow_pickle=False) for piece in pieces]
    shape = sum(map(len, maps)), max(rows.shape[1] for rows in maps)
    joined, begin = created(out, shape, maps[0].dtype), 0
    for rows in maps:
        for first in range(0, len(rows), _ROWS):
            part = rows[first : first + _ROWS]
            joined[begin + first : begin + first + len(part), : part.shape[1]] = part
        begin += len(rows)
    del joined  # which writes it
    for piece in pieces:
        piece.unlink()


def _piece(place: Path, number: int) -> Path:
    return place.with_name(f".{place.name}-{number}.npy")
