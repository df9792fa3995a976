"""A disk that is full: exit code 5, what was saved stays, and with some room the run goes on exactly."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trials import PATHS, require_same, uninterrupted

__all__ = ["uninterrupted"]

pytestmark = pytest.mark.slow

_FULL = """
import os, shutil, sys
from pathlib import Path
import trials
from overtone import artifacts, multistage
from overtone.errors import OvertoneError

disk, free, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
ballast = disk / "ballast"
with ballast.open("wb") as file:
    os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - free)
try:
    multistage.run(trials.parts(), disk / "run")
except OvertoneError as error:
    print(error.exit_code, error, flush=True)
found = [place.parent for place in disk.rglob("manifest.json") if ".writing" not in str(place)]
for place in found:
    artifacts.verify(place)
print(len(found), trials.unfinished(disk / "run"), flush=True)
ballast.unlink()
multistage.run(trials.parts(), disk / "run")
shutil.copytree(disk / "run", out)
"""


@pytest.mark.parametrize("free", [600_000, 2_000_000, 3_000_000, 4_500_000])
def test_a_full_disk_is_exit_code_5_keeps_what_was_saved_and_loses_nothing(
    tmp_path: Path, uninterrupted: Path, free: int
) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to mount a small disk")
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=32m none "{disk}" && exec "$@"'
    code = [sys.executable, "-c", _FULL, str(disk), str(free), str(out)]
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", *code],
        env={**PATHS},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare:" in ended.stderr or "mount:" in ended.stderr:
        pytest.skip(f"cannot mount a small disk here: {ended.stderr.strip()}")
    assert ended.returncode == 0, ended.stderr
    refused, kept = ended.stdout.splitlines()[:2]
    assert refused.startswith("5 ")
    assert "No space left on device" in refused
    assert "MB are free there" in refused
    assert kept.endswith(" set()")
    require_same(out, uninterrupted)
