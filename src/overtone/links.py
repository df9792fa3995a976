"""Links that lead out of the folder in which they lie: what came from elsewhere must not reach further."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def leaves(path: Path, folder: Path) -> bool:
    """Whether a path is a link to something outside a folder; one that leads nowhere or in a circle is not.

    >>> leaves(Path("/proc/self"), Path("/proc")), leaves(Path("/proc/self/root"), Path("/proc/self"))
    (False, True)
    """
    return path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def leaving(folder: Path) -> Iterator[Path]:
    """The links below a folder that lead out of it, in no order."""
    for here, folders, files in os.walk(folder):
        yield from (path for name in (*folders, *files) if leaves(path := Path(here, name), folder))
