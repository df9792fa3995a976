"""What a step frees is kept for the next one.

glibc maps every block above 32 MB on its own and gives it back when it is freed, so the kernel clears the
pages of large activations anew at each step: a quarter of a ResNet-18's on a CPU (`docs/performance.md`).
Only the command does this; where Overtone is imported, the process is its user's.
"""

from __future__ import annotations

import ctypes
import os

# What mallopt(3) calls them, and the environment of a process that has yet to start.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_VARIABLES = {"MALLOC_TRIM_THRESHOLD_": str(2**62), "MALLOC_MMAP_MAX_": "0"}


def keep_freed_memory() -> bool:
    """For this process and those that it starts; whether it was done.

    Not where the C library is another than glibc, nor where the environment already speaks of it.
    """
    if os.name != "posix" or {*_VARIABLES, "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    os.environ.update(_VARIABLES)
    return bool(mallopt(_TRIM_THRESHOLD, -1) and mallopt(_MMAP_MAX, 0))
