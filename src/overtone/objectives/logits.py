"""The logits of each row: its positive's, and those of its negatives as one sum, in memory of one tile.

Rows and columns are sorted by cell, then identity. So pairs that may be negatives lie together, and
so do those that may not inside a cell: most tiles are skipped or need no mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from overtone.contracts import Ids
from overtone.errors import RecipeError

_SIDE = 512  # of a tile of logits on a CPU: with all that is made of it, it stays in the cache of a core
_SIDE_ELSEWHERE = 4096  # where starting a small product takes longer than computing it

Ways = Literal["rows", "both", "mirrored"]


def own_and_others(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor,
    sharpness: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The logit of each row's positive, and the log of the sum of exp over those of its allowed negatives.

    Logits are cosines over the temperature, in float32 at least; arguments as `nt_xent`, and:

    Args:
        sharpness: Scales the logits; at 0 the sum is the number of negatives.

    Returns:
        (n,) each; the second is -inf where a row has no negative. Backward computes the logits anew, tile by
        tile: memory grows as n + m, not n m. Where the very rows are also the columns (SimCLR in one process)
        each logit is computed once for both of its rows.

    Raises:
        RecipeError: The temperature is not a finite number > 0.

    >>> z, ids = torch.eye(2), Ids(cell=torch.tensor([0, 0]), identity=torch.tensor([0, 1]))
    >>> own, others = own_and_others(z, z, torch.arange(2), ids, ids, temperature=0.5)
    >>> own.round(decimals=4), others
    (tensor([2., 2.]), tensor([0., 0.]))
    """
    mirrored = rows is columns and _mirrored(positive, row_ids, column_ids)
    batch = (rows, columns, positive, row_ids, column_ids)
    return _logits(*batch, temperature, sharpness, "mirrored" if mirrored else "rows")


def own_and_others_both_ways(
    rows: Tensor, columns: Tensor, ids: Ids, temperature: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`own_and_others` of the rows among the columns, and of the columns among the rows, for one's price.

    Args:
        rows: (n, d).
        columns: (n, d); column i is the positive of row i, and row i that of column i.
        ids: Of both.
        temperature: As in `nt_xent`.

    Returns:
        (n,) each: the logits of the pairs, the others of the rows, those of the columns.

    Raises:
        RecipeError: The temperature is not a finite number > 0.

    >>> ids = Ids(cell=torch.tensor([0, 0]), identity=torch.tensor([0, 1]))
    >>> columns = torch.tensor([[1.0, 0], [1, 0]])
    >>> [x.round(decimals=4) for x in own_and_others_both_ways(torch.eye(2), columns, ids, temperature=0.5)]
    [tensor([2., 0.]), tensor([2., 0.]), tensor([0., 2.])]
    """
    positive = torch.arange(len(rows), device=rows.device)
    own, others = _logits(rows, columns, positive, ids, ids, temperature, 1.0, "both")
    return own, others[: len(rows)], others[len(rows) :]


def _mirrored(positive: Tensor, row_ids: Ids, column_ids: Ids) -> bool:
    """Whether i may repel j exactly where j may repel i, if rows and columns are the same."""
    counting = torch.arange(len(positive), device=positive.device)
    same = all(a is b for a, b in zip(row_ids, column_ids, strict=True))
    return same and torch.equal(positive[positive], counting)


def _logits(
    rows: Tensor,
    columns: Tensor,
    positive: Tensor,
    row_ids: Ids,
    column_ids: Ids,
    temperature: float | Tensor,
    sharpness: float,
    ways: Ways,
) -> tuple[Tensor, Tensor]:
    """The logits of the positives, and the others: of the rows, and with "both" of the columns after them."""
    if not isinstance(temperature, Tensor):
        check_temperature(temperature)
    with torch.autocast(rows.device.type, enabled=False):
        # In units of log 2: a CPU's exp, unlike exp2, is slow at -inf. Half of the scale on each side.
        scale = math.sqrt(sharpness / math.log(2)) / temperature**0.5
        rows = unit(rows) * scale
        columns = rows if ways == "mirrored" else unit(columns) * scale
        own = (rows * columns.index_select(0, positive)).sum(dim=1) * math.log(2)
        row_order, column_order, pairs = arranged(positive, row_ids, column_ids)
        rows = rows.index_select(0, row_order)
        columns = rows if ways == "mirrored" else columns.index_select(0, column_order)
        others: Tensor = _Others.apply(rows, columns, pairs, ways)
        order = torch.cat([row_order, column_order + len(rows)]) if ways == "both" else row_order
        return own, torch.empty_like(others).index_copy(0, order, others * math.log(2))


class _Others(torch.autograd.Function):
    """log2 of the sum of exp2 over each row's negatives; those of the columns follow, or are added."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, pairs: Pairs, ways: Ways) -> Tensor:
        total = rows.new_zeros(len(rows) + (len(columns) if ways == "both" else 0))
        lowest = torch.finfo(rows.dtype).min  # stands for -inf, which cannot be subtracted from itself
        largest = torch.full_like(total, lowest)
        for tile in tiles(rows, columns, pairs, half=ways == "mirrored"):
            for where, dim in _sides(tile, ways, len(rows)):
                _add(total[where], largest[where], tile.logits, dim)
        others = total.log2_().add_(largest)
        ctx.pairs, ctx.ways = pairs, ways
        ctx.save_for_backward(rows, columns, others.clamp_min(lowest))
        return others

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_others: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, others = ctx.saved_tensors
        d_rows, d_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        with torch.autocast(rows.device.type, enabled=False):
            for tile in tiles(rows, columns, ctx.pairs, half=ctx.ways == "mirrored"):
                # The derivative of log2 of the sum by a logit is its softmax.
                d_logits = torch.zeros_like(tile.logits)
                for where, dim in _sides(tile, ctx.ways, len(rows)):
                    softmax = (tile.logits - others[where].unsqueeze(dim)).exp2_()
                    d_logits.addcmul_(softmax, d_others[where].unsqueeze(dim))
                d_rows[tile.rows].addmm_(d_logits, columns[tile.columns])
                d_columns[tile.columns].addmm_(d_logits.T, rows[tile.rows])
        return d_rows, d_columns, None, None


def _add(total: Tensor, largest: Tensor, logits: Tensor, dim: int) -> None:
    """Adds exp2 of the logits along `dim` to sums that are multiples of exp2 of the largest so far."""
    now = torch.maximum(largest, logits.amax(dim))
    found = (logits - now.unsqueeze(dim)).exp2_().sum(dim)
    total.mul_(largest.sub_(now).exp2_()).add_(found)
    largest.copy_(now)


class Tile(NamedTuple):
    """Which rows, which columns, and their products: -inf where there is no negative."""

    rows: slice
    columns: slice
    logits: Tensor


def _sides(tile: Tile, ways: Ways, n: int) -> Iterator[tuple[slice, int]]:
    """Whose sums a tile adds to, and along which dimension."""
    yield tile.rows, 1
    if ways == "both":
        yield slice(n + tile.columns.start, n + tile.columns.stop), 0
    if ways == "mirrored" and tile.rows != tile.columns:
        yield tile.columns, 0


class Pairs(NamedTuple):
    """Three numbers of each row, (n,), and of each column, (m,), which decide what a pair may be.

    Attributes:
        cells: It may be negative if they are equal,
        kinds: unless these are: a number for each cell and identity,
        places: or these: that of the row's positive, and that of the column.
    """

    cells: tuple[Tensor, Tensor]
    kinds: tuple[Tensor, Tensor]
    places: tuple[Tensor, Tensor]


def arranged(positive: Tensor, row_ids: Ids, column_ids: Ids) -> tuple[Tensor, Tensor, Pairs]:
    """The order of rows and of columns by cell, then identity; and their pairs in that order.

    >>> ids = Ids(cell=torch.tensor([1, 0, 1]), identity=torch.tensor([5, 6, 5]))
    >>> rows, columns, pairs = arranged(torch.tensor([2, 1, 0]), ids, ids)
    >>> rows, pairs.cells[0], pairs.kinds[0], pairs.places[0]
    (tensor([1, 0, 2]), tensor([0, 1, 1]), tensor([1, 2, 2]), tensor([0, 2, 1]))
    """
    n = len(positive)
    (_, cell), (distinct, identity) = (
        torch.unique(torch.cat(pair), return_inverse=True) for pair in zip(row_ids, column_ids, strict=True)
    )
    kind = cell * len(distinct) + identity
    rows, columns = kind[:n].argsort(stable=True), kind[n:].argsort(stable=True)
    counting = torch.arange(len(columns), device=columns.device)
    place = torch.empty_like(counting).index_copy(0, columns, counting)
    cells, kinds = ((x[:n][rows], x[n:][columns]) for x in (cell, kind))
    return rows, columns, Pairs(cells, kinds, (place[positive[rows]], counting))


def tiles(rows: Tensor, columns: Tensor, pairs: Pairs, half: bool = False) -> Iterator[Tile]:
    """The tiles in which a pair may be negative; the next overwrites the logits of the last.

    Args:
        half: Of a tile and its mirror image, only one.
    """
    side = _SIDE if rows.device.type == "cpu" else _SIDE_ELSEWHERE
    memory = rows.new_empty(min(side, len(rows)) * min(side, len(columns)))
    for i, line in enumerate(_survey(pairs, side)):
        for j, (allowed, *barring) in enumerate(line):
            if not allowed or (half and j < i):
                continue
            here = slice(i * side, min((i + 1) * side, len(rows)))
            there = slice(j * side, min((j + 1) * side, len(columns)))
            left, right = rows[here], columns[there]
            logits = memory[: len(left) * len(right)].view(len(left), len(right))
            torch.mm(left, right.T, out=logits)
            for (a, b), bars, needed in zip(pairs, (torch.ne, torch.eq, torch.eq), barring, strict=True):
                if needed:
                    logits.masked_fill_(bars(a[here, None], b[there]), -torch.inf)
            yield Tile(here, there, logits)


def _survey(pairs: Pairs, side: int) -> list[list[list[bool]]]:
    """Of each tile: may a pair in it be negative; may one be barred by its cells, its kinds, its places?

    Told from the least and the greatest number of rows and of columns: never wrongly no.
    """
    cells, kinds, places = ([_bounds(x, side) for x in numbers] for numbers in pairs)
    allowed = _meet(*cells)
    mixed = (cells[0][:, None] != cells[1].flip(-1)).any(-1)
    return torch.stack([allowed, mixed, _meet(*kinds), _meet(*places)], dim=-1).tolist()


def _bounds(numbers: Tensor, side: int) -> Tensor:
    """The least and the greatest of each `side` numbers, (tiles, 2)."""
    return torch.stack([torch.stack(part.aminmax()) for part in torch.split(numbers, side)])


def _meet(a: Tensor, b: Tensor) -> Tensor:
    """Which of some ranges (n, 2) overlap which of others (m, 2)."""
    return (a[:, None, 0] <= b[:, 1]) & (a[:, None, 1] >= b[:, 0])


def unit(x: Tensor) -> Tensor:
    """The rows of x at length 1, in float32 at least."""
    x = x if x.dtype == torch.float64 else x.float()
    # The direction does not depend on the scale, but squares of values above 1e19 overflow float32.
    return normalize(x / x.detach().abs().amax(dim=1, keepdim=True).clamp_min(1), dim=1)


def check_temperature(temperature: float) -> None:
    """Raises a RecipeError unless the temperature is a finite number > 0."""
    if not 0 < temperature < math.inf:
        raise RecipeError(f"temperature={temperature}: expected a finite number > 0, such as 0.2")
