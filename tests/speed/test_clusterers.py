from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "speed"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["clustering", "cells"])
def test_the_contenders_of_a_table_run(part: str, tmp_path: Path) -> None:
    command = [sys.executable, str(_SCRIPTS / f"{part}.py"), "--smoke"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "| case | ours | peer |" in said
    assert (tmp_path / "runs" / "speed" / f"{part}.json").exists()
