"""How fine the cells of a stage are: chosen by what the stages before it still tell apart inside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

Granularity: TypeAlias = Literal["fine", "coarse"]

FINE = 30  # samples a cell: batches of 256 hold about nine cells, and the weakest feature comes out
FINEST = 10
COARSEST = 10  # cells in all: the published method's
# A stage whose negatives an earlier one can tell apart learns again what that one knows. Measured: up to 0.09
# where little is suppressed; where much is, 0.16 to 0.9 in cells that leave the dominant feature of use.
MOST_KNOWN = 0.12


def candidates(granularity: Granularity, n_samples: int) -> list[int]:
    """The cell sizes to try, the one wanted most first.

    `fine` wants `FINE` samples a cell, and `FINEST` where these are known. `coarse` wants the largest cells,
    from a tenth of the data downwards by factors of about three.

    >>> candidates("coarse", 6000)
    [600, 190, 60, 30, 10]
    >>> candidates("fine", 6000)
    [30, 10]
    """
    largest = n_samples // 2
    fine = [size for size in (FINE, FINEST) if size <= largest] or [max(2, largest)]
    if granularity == "fine":
        return fine
    sizes, size = [], n_samples / COARSEST
    while size > 1.5 * FINE:
        sizes.append(10 * round(size / 10))
        size /= 10**0.5
    return sizes + fine


def chosen(sizes: Sequence[int], known: Callable[[int], float]) -> tuple[int, dict[int, float]]:
    """The first size at which the earlier stages know little enough, else that at which they know least.

    Args:
        sizes: The one wanted most first.
        known: Size -> the most that any earlier stage knows inside such cells, from 0 to 1.

    Returns:
        The size, and what was measured at each size that was tried.

    >>> chosen([100, 30, 10], {100: 0.5, 30: 0.1}.__getitem__)
    (30, {100: 0.5, 30: 0.1})
    """
    measured: dict[int, float] = {}
    for size in sizes:
        measured[size] = known(size)
        if measured[size] <= MOST_KNOWN:
            return size, measured
    return min(measured, key=lambda size: measured[size]), measured
