"""On what a run was trained: versions and hardware, kept in its folder for those who read its figures."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from overtone import artifacts

FILE = "machine.json"
_PACKAGES = ("overtone", "torch", "numpy", "faiss-cpu")


def keep(folder: Path, device: str) -> None:
    """Writes down on what a run is trained from now on.

    >>> import tempfile
    >>> keep(home := Path(tempfile.mkdtemp()), "cpu")
    >>> list(artifacts.read_json(home / FILE))[-3:]
    ['system', 'processors', 'device']
    """
    artifacts.write_json(
        folder / FILE,
        {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count() or 1,
            "device": device,
        },
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
