from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone gives blocks back")

SCRIPT = """
import resource
from overtone.cli.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    block = bytearray(64 * 2**20)
    block[::4096] = bytes(len(block) // 4096)

{0}
step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""


def page_faults(script: str, **environment: str) -> int:
    """Of ten steps that each fill 64 MB, after one that does not count."""
    said = ("MALLOC_", "GLIBC_TUNABLES")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(said)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_block_that_was_freed_is_not_cleared_again() -> None:
    # Pages may be larger than 4 kB, so the bound is a share of what plain glibc takes.
    kept = page_faults(SCRIPT.format("assert keep_freed_memory()"))
    assert kept < page_faults(SCRIPT.format("")) / 20


def test_processes_that_are_started_keep_theirs_too() -> None:
    starts = "import subprocess, sys\n"
    starts += "from overtone.cli.allocator import keep_freed_memory\nkeep_freed_memory()\n"
    starts += f"subprocess.run([sys.executable, '-c', {SCRIPT.format('')!r}], check=True)"
    assert page_faults(starts) < page_faults(SCRIPT.format("")) / 20


def test_what_the_environment_says_of_it_stands() -> None:
    assert page_faults(SCRIPT.format("assert not keep_freed_memory()"), MALLOC_MMAP_MAX_="65536") > 100
