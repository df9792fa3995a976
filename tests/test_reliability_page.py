from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "reliability.md"
NAMED = sorted(set(re.findall(r"((?:\w+/)?test_\w+\.py)(?:::(\w+))?", PAGE.read_text())))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_test_that_the_page_names_is_there(file: str, test: str) -> None:
    assert f"def {test}" in (HERE / file).read_text()
