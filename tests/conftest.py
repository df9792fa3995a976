"""One thread everywhere, also in the processes that tests start: tiny data, and equal rounding."""

from __future__ import annotations

import os
import sys

import pytest
from command import Run

os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture
def overtone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command, in this process: gives its exit code, what it printed, and what it complained of."""
    from overtone.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["overtone", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run
