"""Codes and names from raw values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from overtone.datasets.labels import coded


@pytest.mark.parametrize(
    ("values", "codes", "names"),
    [
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        ([2, 0, -1, None], [2, 0, -1, -1], ("0", "1", "2")),
        ([2020, 1990, 2020], [1, 0, 1], ("1990", "2020")),
        ([True, False, None], [1, 0, -1], ("False", "True")),
        ([" a ", "", float("nan"), "a"], [0, -1, -1, 0], ("a",)),
        ([None, ""], [-1, -1], ()),
    ],
)
def test_values_become_codes(values: list[Any], codes: list[int], names: tuple[str, ...]) -> None:
    found, found_names = coded(values)
    assert found.dtype == np.int64
    assert (found.tolist(), found_names) == (codes, names)
