from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

PLACE = Path(__file__).parents[2] / "benchmarks" / "speed"


@pytest.mark.parametrize("part", ["step", "views", "embedding", "overhead"])
def test_the_measurement_runs(
    part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [part, "--smoke"])
    runpy.run_path(str(PLACE / f"{part}.py"), run_name="__main__")
    assert "Row(case=" in capsys.readouterr().out
