"""Memory and start-up of a run on 60,000 images of 32 pixels with the small CNN.

    python benchmarks/footprint.py --data ../shared/data/mnist/train.parquet

Prints what a stage needs beyond the interpreter with torch and the library imported, and the seconds from
opening the data to the first finished step, without and with the decode cache on disk.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from overtone import multistage
from overtone.datasets import open_dataset
from overtone.progress import Silent
from overtone.recipe import build_parts, parse, resolved


class FirstStep(Exception):
    pass


class UntilFirstStep(Silent):
    """Stops the run at the first record of its training."""

    def advance(self, task: str, done: int, total: int, note: str = "") -> None:
        if task == "stage 0":
            raise FirstStep


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seconds_to_first_step(data: Path, cache: str, folder: Path, display: Silent) -> float:
    began = time.perf_counter()
    dataset = open_dataset(data, image_size=32, channels=3, cache=cache, cache_dir=folder / "cache")
    values: dict[str, Any] = {"data": {"source": "given"}, "stages": 1, "train": {"epochs": 1}, "loggers": []}
    parts = build_parts(resolved(parse(values)), dataset, None)
    with contextlib.suppress(FirstStep):
        multistage.run(parts, folder / f"run-{time.monotonic_ns()}", display)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist/train.parquet"))
    data = parser.parse_args().data
    torch.ones(256, 256) @ torch.ones(256, 256)
    before = megabytes()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for cache, what in (
            ("memory", "to step 20, kept in memory"),
            ("disk", "to step 20, writing the disk cache"),
            ("disk", "to step 20, from the disk cache"),
        ):
            seconds = seconds_to_first_step(data, cache, folder, UntilFirstStep())
            print(f"{what}: {seconds:.1f} s, peak {megabytes() - before:,.0f} MB above the start")
        seconds = seconds_to_first_step(data, "disk", folder, Silent())
        print(f"one epoch, embedded and saved: {seconds:.1f} s, peak {megabytes() - before:,.0f} MB above")


if __name__ == "__main__":
    main()
