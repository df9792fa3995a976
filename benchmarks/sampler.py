"""Time and memory of cells and sampler at full size, beside the published way at the sizes that it can hold.

    python benchmarks/sampler.py

400 million samples in 10^4, 10^6 and 2 x 10^7 cells drawn at random, batches of 4,096; writes
`runs/sampler.md`. Needs 5 GB of disk (12 bytes a sample) in a temporary folder, or in `--folder`, and as much
free memory, so that the files are still cached when they are read: the figures are warm ones.

Each figure comes from a process of its own. Its private memory is what it holds beyond Python, torch and
the library; its peak counts these too, and the pages of mapped files, which the kernel can drop at need.
CPU time is what the same would take on an idle machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from overtone import CellBatchSampler, Partition, rng

CHUNK = 1 << 23
BATCHES = 500
LATER = 90_000  # the step of a resumed run
MEAN = 40_000  # samples a cell in the comparison: 400 million in 10^4

Figures = dict[str, float]


def megabytes(file: str, field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self", file).read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def held() -> float:
    """Private memory: unlike `Private_Dirty`, without pages of files that wait to be written."""
    return megabytes("smaps_rollup", "Anonymous")


def peak() -> float:
    """The most memory that was ever resident."""
    return megabytes("status", "VmHWM")


AT_START, STARTED = held(), time.process_time()


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    work()
    return clock() - began


def draw_labels(folder: Path, samples: int, cells: int) -> None:
    labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", np.int32, (samples,))
    for begin in range(0, samples, CHUNK):
        part = labels[begin : begin + CHUNK]
        part[:] = rng.numpy_generator(0, begin).integers(0, cells, len(part))


def build(folder: Path) -> Figures:
    took = seconds(lambda: Partition.build(folder / "labels.npy", folder))
    return {"build, s": took, "build, CPU s": time.process_time() - STARTED, "build, peak MB": peak()}


def draw(folder: Path, batch_size: int, step: int) -> Figures:
    """The first batch from `step` on, with all that comes before it, and the next ones."""

    def batch(step: int) -> list[int]:
        indices: list[int] = sampler.batch(*divmod(step, len(sampler))).tolist()
        return indices

    began = time.perf_counter()
    sampler = CellBatchSampler(Partition.load(folder), batch_size, seed=0)
    batch(step)
    first, most = time.perf_counter() - began, peak()
    following = iter(range(step + 1, step + 1 + 2 * BATCHES))
    each = [seconds(lambda: batch(next(following))) for _ in range(BATCHES)]
    of_cpu = [seconds(lambda: batch(next(following)), time.thread_time) for _ in range(BATCHES)]
    return {
        "first batch, s": first,
        "first batch, peak MB": most,
        "batch, median ms": 1e3 * statistics.median(each),
        "batch, median CPU ms": 1e3 * statistics.median(of_cpu),
        "private MB": held() - AT_START,
    }


def cover(folder: Path, batch_size: int) -> Figures:
    sampler = CellBatchSampler(Partition.load(folder), batch_size, seed=0)
    return {"coverage, s": seconds(sampler.coverage), "coverage, peak MB": peak()}


def published(folder: Path, batch_size: int) -> Figures:
    labels = np.load(folder / "labels.npy").tolist()
    cells = max(labels) + 1

    def epoch() -> Iterator[list[int]]:
        """A permutation drawn anew, cut into a list of Python ints for each cell; the cells take turns."""
        members: list[list[int]] = [[] for _ in range(cells)]
        for sample in torch.randperm(len(labels)).tolist():
            members[labels[sample]].append(sample)
        taken = [0] * cells
        while any(at + batch_size <= len(own) for at, own in zip(taken, members, strict=True)):
            for cell, own in enumerate(members):
                if taken[cell] + batch_size <= len(own):
                    yield own[taken[cell] : taken[cell] + batch_size]
                    taken[cell] += batch_size

    batches = epoch()
    first = seconds(lambda: next(batches))
    each = [seconds(lambda: next(batches)) for _ in range(min(BATCHES, len(labels) // batch_size // 2))]
    return {
        "first batch of an epoch, s": first,
        "batch, median ms": 1e3 * statistics.median(each),
        "private MB": held() - AT_START,
    }


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives, in a process that does nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def at_scale(folder: Path, samples: int, cells: int, batch_size: int) -> Figures:
    alone(draw_labels, folder, samples, cells)
    figures = alone(build, folder)
    figures |= alone(draw, folder, batch_size, 0)
    later = alone(draw, folder, batch_size, LATER)
    for name in ("first batch, s", "batch, median ms", "batch, median CPU ms"):
        figures[f"from step {LATER:,}: {name}"] = later[name]
    return {**figures, **alone(cover, folder, batch_size)}


def both_ways(folder: Path, samples: int, batch_size: int) -> tuple[Figures, Figures]:
    alone(draw_labels, folder, samples, max(1, samples // MEAN))
    theirs = alone(published, folder, batch_size)
    alone(build, folder)
    found = alone(draw, folder, batch_size, 0)
    ours = {name: found["first batch, s" if "first" in name else name] for name in theirs}
    return theirs, ours


def table(columns: dict[str, Figures]) -> str:
    names = list(next(iter(columns.values())))
    rows = [["", *columns], ["---", *("---:" for _ in columns)]]
    rows += [[name, *(shown(figures[name]) for figures in columns.values())] for name in names]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=400_000_000)
    parser.add_argument("--cells", type=int, nargs="+", default=[10**4, 10**6, 2 * 10**7])
    parser.add_argument("--published", type=int, nargs="*", default=[10**6, 10**7], metavar="SAMPLES")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--folder", type=Path, help="for the data, on a disk with 5 GB free")
    parser.add_argument("--out", type=Path, default=Path("runs/sampler.md"))
    asked = parser.parse_args()

    place = Path(tempfile.mkdtemp(prefix="sampler-", dir=asked.folder))
    try:
        full = {
            f"{cells:,} cells": at_scale(place, asked.samples, cells, asked.batch_size)
            for cells in asked.cells
        }
        pairs = {n: both_ways(place, n, asked.batch_size) for n in asked.published}
        start = alone(peak)
    finally:
        shutil.rmtree(place)
    columns = {
        f"{way}, {n:,}": figures
        for n, both in pairs.items()
        for way, figures in zip(("published", "ours"), both, strict=True)
    }
    text = f"Python, torch and the library: {start:,.0f} MB.\n\n{asked.samples:,} samples:\n\n"
    text += table(full) + (f"\n\nCells of {MEAN:,}:\n\n" + table(columns) if columns else "")
    print(text)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
