"""How long the command and the library take until they do something.

python benchmarks/speed/startup.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial

from measuring import Row, ceilings, in_turn, keep

OURS, PEERS = "overtone", ("torch", "sklearn", "lightly")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="once, without peers")
    smoke = parser.parse_args().smoke
    imported = (OURS,) if smoke else (OURS, *PEERS)
    works = {name: partial(run, "-c", f"import {name}") for name in imported if installed(name)}
    taken = in_turn({"help": partial(run, "-m", OURS, "--help"), **works}, repeats=1 if smoke else 5)
    peers = {f"import {name}": taken[name] for name in works if name != OURS}
    keep(
        "startup",
        [
            Row("overtone --help", taken["help"], {}, aim="< 0.3 s"),
            Row("import overtone", taken[OURS], peers, aim="< 0.3 s"),
        ],
        ceilings(),
    )


def run(*arguments: str) -> None:
    """A Python of its own."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def installed(name: str) -> bool:
    """Whether a package is there, without importing it."""
    from importlib.util import find_spec

    return find_spec(name) is not None


if __name__ == "__main__":
    main()
