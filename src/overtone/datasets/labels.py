"""Attributes from raw values: codes, names, and which columns of a table are attributes at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone.errors import DataError

MOST_VALUES = 1000


class Labels(NamedTuple):
    """Attribute -> codes (N,) int64, -1 where absent; and attribute -> the name of each code."""

    codes: dict[str, NDArray[np.int64]]
    names: dict[str, Sequence[str]]


def coded(values: Sequence[Any]) -> tuple[NDArray[np.int64], Sequence[str]]:
    """Codes and names of one attribute.

    Whole numbers below 1,000 are their own codes, so that splits agree; other values are numbered
    in sorted order. None, NaN, blank text and negative numbers mean that a sample has no label.

    >>> coded(["cat", "", "bird", "cat"])
    (array([ 1, -1,  0,  1]), ('bird', 'cat'))
    >>> coded([2, None, 0])
    (array([ 2, -1,  0]), ('0', '1', '2'))
    """
    present = [_value(value) for value in values]
    distinct = {value for value in present if value is not None}
    if all(isinstance(value, int) for value in distinct):
        numbers = sorted(int(value) for value in distinct)
        if not numbers or numbers[-1] < MOST_VALUES:
            return _array(present), tuple(str(code) for code in range(numbers[-1] + 1 if numbers else 0))
        order: list[int | str] = list(numbers)
    else:
        order = sorted(distinct, key=str)
    code_of = {value: code for code, value in enumerate(order)}
    return _array([None if value is None else code_of[value] for value in present]), tuple(map(str, order))


def whole(values: Sequence[Any]) -> list[Any] | None:
    """Values of which floats are the whole numbers they are, NaN None; None where one is a fraction.

    >>> whole([2.0, float("nan"), "a"]), whole([2.0, 0.5])
    ([2, None, 'a'], None)
    """
    floats = [value for value in values if isinstance(value, float) and not np.isnan(value)]
    if not all(value.is_integer() for value in floats):
        return None
    return [(None if np.isnan(v) else int(v)) if isinstance(v, float) else v for v in values]


def _value(value: Any) -> int | str | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return int(value) if value >= 0 else None
    return str(value).strip() or None


def _array(codes: Iterable[Any]) -> NDArray[np.int64]:
    return np.array([-1 if code is None else code for code in codes], dtype=np.int64)


def is_attribute(distinct: int, rows: int) -> bool:
    """Whether a column with so many distinct values groups the samples rather than naming each.

    At most 1,000, and at most half as many as there are rows (20 in a small table).

    >>> is_attribute(10, 60_000), is_attribute(60_000, 60_000), is_attribute(3, 4)
    (True, False, True)
    """
    return distinct <= min(MOST_VALUES, max(rows // 2, 20))


def labelled(
    values: Mapping[str, Sequence[Any]], names: Mapping[str, Sequence[str]], n_samples: int, where: str
) -> Labels:
    """Codes for every attribute given by the user, checked against the number of samples.

    Args:
        values: Attribute -> one value a sample; codes already where `names` has the attribute.
        names: Attribute -> names of its codes.
        n_samples: How many samples there are.
        where: What the values belong to, for messages.

    Raises:
        DataError: The lengths differ, or a code has no name.
    """
    labels = Labels({}, {})
    for attribute, given in values.items():
        if len(given) != n_samples:
            raise DataError(
                f"{where}: {len(given):,} labels of {attribute!r} for {n_samples:,} images; give one each"
            )
        if attribute not in names:
            labels.codes[attribute], labels.names[attribute] = coded(given)
            continue
        codes = _array(given)
        if len(codes) and codes.max() >= len(names[attribute]):
            raise DataError(
                f"{where}: label {codes.max()} of {attribute!r} has no name; "
                f"the codes are 0 to {len(names[attribute]) - 1}, or -1 for none"
            )
        labels.codes[attribute], labels.names[attribute] = np.maximum(codes, -1), tuple(names[attribute])
    return labels
