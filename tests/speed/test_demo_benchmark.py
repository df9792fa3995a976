from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "speed"


@pytest.mark.slow
def test_the_published_procedure_trains_three_stages_on_every_picture(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "published.py"), str(tmp_path), "--smoke"]
    subprocess.run(command, check=True)
    seconds = json.loads((tmp_path / "seconds.json").read_text(encoding="utf-8"))
    assert 3 * 150 - 200 < seconds["pictures seen"] <= 3 * 150
    assert {file.name for file in tmp_path.glob("*.npy")} == {
        f"{stage}-{name}.npy" for stage in range(3) for name in ("train", "test")
    }


@pytest.mark.slow
def test_one_run_of_ours_is_timed_in_its_parts(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "demo.py"), "--ours", str(tmp_path), "--smoke"]
    subprocess.run(command, check=True)
    seconds = json.loads((tmp_path / "seconds.json").read_text(encoding="utf-8"))
    parts = {"views", "step", "embedding", "clustering and levers"}
    assert set(seconds) == parts | {"all", "pictures seen"}
    assert 0 < sum(seconds[part] for part in parts) <= seconds["all"]
