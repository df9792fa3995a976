"""How time and memory grow with samples, batch and stages; and what a run on a cluster would take.

    python benchmarks/scale.py samples --n 10000 100000 1000000 --cells coarse
    python benchmarks/scale.py samples --n 10000 100000 1000000 --cells fine
    python benchmarks/scale.py samples --n 10000000 --cells coarse     # 5 GB of disk
    python benchmarks/scale.py samples --n 10000000 --cells fine       # on its own: the dearest
    python benchmarks/scale.py batch
    python benchmarks/scale.py stages
    python benchmarks/scale.py cluster
    python benchmarks/scale.py table --picture docs/images/scale.svg

Each figure comes from a process of its own and is kept in `runs/scale/`; called again, what is kept is not
measured again. The last command gathers all that is there into `runs/scale.md` and draws it.

Embeddings are drawn: 128 dimensions, around 1,000 centres whose own centres are 30, so that both coarse and
fine cells find something. Coarse cells are 10 clusters, fine ones 30 samples each. Memory is what a process
held at most beyond Python, torch and the library, without mapped files, which the kernel can drop.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import re
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from overtone import CellBatchSampler, Partition, multistage, rng
from overtone.clustering import next_partition
from overtone.contracts import Address
from overtone.encoders import build_encoder
from overtone.exploring import drawn, mapped, neighbours
from overtone.gradients import gradients_of
from overtone.methods import SimCLR
from overtone.optim import build_optimizer
from overtone.planning import Figure, Given, plan
from overtone.recipe import build_parts, open_data, parse, read, resolved
from overtone.views import ImageViews

KEPT = Path("runs/scale")
DIM = 128
CHUNK = 2**18
ROWS = 3000  # of which a page shows something
BATCHES = 200
SIZES = (32, 64, 128, 256, 512, 1024)
BYTES_PER_SAMPLE, BYTES_PER_SECOND = 25_000, 2e9  # of CC12M at 256 pixels as JPEG; of a disk that all share
ASSUMED = 700.0  # samples a second of one A100 (40 GB) with ViT-B/32 at 224 pixels, see docs/scale.md

RECIPE = Path("recipes/clip_vit_l14_cc12m.yaml")  # the paper's setting
SMALLER = (
    "encoder.name=open_clip:ViT-B-32",
    "train.trainable=[logit_scale, image_tower.*]",
    "data.cache=none",
)
RUNS = {
    "CC12M": (10_970_000, SMALLER),
    "400 M": (
        400_000_000,
        (
            *SMALLER,
            "preset=overtone",
            "stages=3",
            "train.epochs=1",
            "train.batch_size=32768",
            "train.erase='off'",
        ),
    ),
}

Figures = dict[str, float]


def anonymous() -> float:
    """MB of this process beside what it maps of files."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


class Memory:
    """The most that a block held beyond what was there before it, looked at every few milliseconds."""

    def __enter__(self) -> Memory:
        self.before, self.most, self._done = anonymous(), 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, anonymous() - self.before)


def alone(work: Callable[..., Figures], *arguments: Any) -> Figures:
    """What a function gives, in a process that does nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def kept(name: str, measure: Callable[[], Figures]) -> Figures:
    place = KEPT / f"{name}.json"
    if not place.exists():
        found = measure()
        KEPT.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(name, found, flush=True)
    figures: Figures = json.loads(place.read_text())
    return figures


def draw_embeddings(place: Path, n: int) -> None:
    """Structured: 30 centres, about each of them some of 1,000 others, about these the samples."""
    draws = rng.numpy_generator(0, "scale")
    far, near = draws.normal(size=(30, DIM)), draws.normal(size=(1000, DIM)) * 0.5
    centres = (far[draws.integers(0, 30, 1000)] + near).astype(np.float32)
    rows = np.lib.format.open_memmap(place, "w+", np.float32, (n, DIM))
    for begin in range(0, n, CHUNK):
        count = min(CHUNK, n - begin)
        noise = draws.standard_normal((count, DIM), dtype=np.float32) * np.float32(0.3)
        rows[begin : begin + count] = centres[draws.integers(0, 1000, count)] + noise
    rows.flush()


def cluster(place: Path, cells: str) -> Figures:
    asked: dict[str, Any] = {"n_clusters": 10} if cells == "coarse" else {"cell_size": 30}
    with Memory() as memory:
        began = time.perf_counter()
        partition, _ = next_partition("concat", [np.load(place, mmap_mode="r")], seed=0, **asked)
        took = time.perf_counter() - began
    np.save(place.with_name("labels.npy"), partition.pseudo_labels)
    return {"clustering, s": took, "clustering, MB": memory.most, "cells": partition.n_cells}


def build(place: Path) -> Figures:
    with Memory() as memory:
        began = time.perf_counter()
        Partition.build(place.with_name("labels.npy"), place.with_name("cells"))
        took = time.perf_counter() - began
    return {"building the cells, s": took, "building the cells, MB": memory.most}


def sample(place: Path) -> Figures:
    each = []
    with Memory() as memory:
        began = time.perf_counter()
        sampler = CellBatchSampler(Partition.load(place.with_name("cells")), 256, seed=0)
        sampler.batch(0, 0)
        first = time.perf_counter() - began
        for position in range(1, min(BATCHES, len(sampler))):
            began = time.perf_counter()
            sampler.batch(0, position)
            each.append(time.perf_counter() - began)
    return {
        "first batch, s": first,
        "a batch of 256, ms": 1e3 * statistics.median(each),
        "sampler, MB": memory.most,
    }


def page(place: Path) -> Figures:
    """What a page looks at: neighbours and the map of a keyed draw."""
    with Memory() as memory:
        began = time.perf_counter()
        embeddings = np.load(place, mmap_mode="r")
        rows: NDArray[np.float32] = np.asarray(embeddings[np.sort(drawn(len(embeddings), ROWS))])
        neighbours(rows)
        mapped(rows)
        took = time.perf_counter() - began
    return {"page's draw, s": took, "page's draw, MB": memory.most}


def by_samples(n: int, cells: str, scratch: Path | None) -> None:
    def measure() -> Figures:
        folder = Path(tempfile.mkdtemp(prefix="scale-", dir=scratch))
        place = folder / "embeddings.npy"
        try:
            draw_embeddings(place, n)
            found = alone(cluster, place, cells) | alone(build, place) | alone(sample, place)
            return found | (alone(page, place) if cells == "coarse" else {})
        finally:
            shutil.rmtree(folder)

    kept(f"samples-{cells}-{n}", measure)


def step(size: int) -> Figures:
    """A step of SimCLR on pictures of 32 pixels, median of some, after one to warm up."""
    taken = []
    index = torch.arange(size)
    pixels = rng.numpy_generator(0, "scale", "pixels").integers(0, 256, (size, 3, 32, 32), dtype=np.uint8)
    with Memory() as memory, rng.seeded(0, "scale"):
        method = SimCLR(build_encoder("resnet18_cifar"))
        optimizer = build_optimizer(method, name="adamw", lr=1e-3, weight_decay=0.0)
        gradients, views = gradients_of(method, "fp32", torch.device("cpu")), ImageViews()
        batch = {"index": index, "image": torch.from_numpy(pixels), "cell": index // 30, "identity": index}
        for number in range(3 if size >= 512 else 6):
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            gradients(views(batch, Address(0, 0, number)))
            optimizer.step()
            taken.append(time.perf_counter() - began)
    return {"a step, s": statistics.median(taken[1:]), "a step, MB": memory.most}


def by_batch(size: int) -> None:
    def measure() -> Figures:
        recipe = {
            "data": {"source": "folder", "root": "far", "image_size": 32, "cache": "none"},
            "encoder": {"name": "resnet18_cifar"},
            "train": {"batch_size": size},
            "stages": 1,
        }
        training = plan(parse(recipe), 1, Given(samples=size)).stages[0].training
        planned = sum(figure.most for figure in training.values()) / 2**20
        return alone(step, size) | {"planned, MB": planned}

    kept(f"batch-{size}", measure)


def run(stages: int, n: int) -> Figures:
    """One run of the default preset, and the seconds until each of its stages is trained and embedded."""
    recipe = resolved(
        parse(
            {
                "data": {"source": "trifeature", "n": n, "image_size": 32},
                "train": {"epochs": 2},
                "stages": stages,
                "loggers": [],
            }
        )
    )
    folder, after = Path(tempfile.mkdtemp(prefix="scale-")), Figures()
    with Memory() as memory:
        began = time.perf_counter()

        def on_stage() -> None:
            number = len(after) // 2 + 1
            after[f"{number} stages, s"] = time.perf_counter() - began
            after[f"{number} stages, MB"] = memory.most

        try:
            multistage.run(build_parts(recipe, *open_data(recipe)), folder, on_stage=on_stage)
        finally:
            shutil.rmtree(folder)
    return after


def on_a_cluster(name: str, world_size: int) -> Figures:
    n, overrides = RUNS[name]
    given = Given(n, BYTES_PER_SAMPLE, ASSUMED, BYTES_PER_SECOND)
    found = plan(read(RECIPE, overrides), world_size, given)
    stage, totals = found.stages[-1], found.totals()
    seconds = [each.seconds for each in found.stages]
    disk = sum(each.pop("reading and writing").most for each in map(dict, seconds))
    embeddings = stage.written[f"stage-{len(found.stages) - 1}/embeddings/train.npy"]
    return {
        "steps, at most": totals["steps"].most,
        "samples seen, millions": totals["samples"].most / 1e6,
        "read, TB": totals["read"].most / 1e12,
        "written, GB": totals["written"].most / 1e9,
        "of these, embeddings of a stage, GB": embeddings.most / 1e9,
        "memory of a process in training, GB": most(stage.training) / 1e9,
        "of the first in clustering, GB": most(stage.clustering) / 1e9,
        "training and embedding, h": (totals["seconds"].most - disk) / 3600,
        "reading and writing, h": disk / 3600,
    }


def most(figures: Mapping[str, Figure]) -> float:
    return sum(figure.most for figure in figures.values())


def tables() -> str:
    found = {place.stem: json.loads(place.read_text()) for place in KEPT.glob("*.json")}
    parts = []
    for cells in ("coarse", "fine"):
        prefix = f"samples-{cells}-"
        columns = {f"{n:,}": found[f"{prefix}{n}"] for n in _sizes(found, prefix)}
        parts += [f"{cells} cells, samples:\n\n{table(columns)}"] * bool(columns)
    sizes = {f"{n:,}": found[f"batch-{n}"] for n in _sizes(found, "batch-")}
    parts += [f"batch:\n\n{table(sizes)}"] * bool(sizes)
    if "stages" in found:
        count = len(found["stages"]) // 2
        stages = {
            str(s): {unit: found["stages"][f"{s} stages, {unit}"] for unit in ("s", "MB")}
            for s in range(1, count + 1)
        }
        parts.append(f"stages:\n\n{table(stages)}")
    clusters = {name.removeprefix("cluster-"): found[name] for name in sorted(found) if "cluster-" in name}
    parts += [f"on a cluster:\n\n{table(clusters)}"] * bool(clusters)
    return "\n\n".join(parts)


def _sizes(found: Mapping[str, Figures], prefix: str) -> list[int]:
    return sorted(int(name.removeprefix(prefix)) for name in found if name.startswith(prefix))


def table(columns: Mapping[str, Figures]) -> str:
    names = dict.fromkeys(name for figures in columns.values() for name in figures)
    rows = [["", *columns], ["---", *("---:" for _ in columns)]]
    rows += [
        [name, *(shown(figures[name]) if name in figures else "" for figures in columns.values())]
        for name in names
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


LINES = {
    "clustering, coarse": ("coarse", "clustering, s", 1.0),
    "clustering, fine": ("fine", "clustering, s", 1.0),
    "building the cells": ("fine", "building the cells, s", 1.0),
    "page's draw": ("coarse", "page's draw, s", 1.0),
    "first batch": ("fine", "first batch, s", 1.0),
    "a batch of 256": ("fine", "a batch of 256, ms", 1e-3),
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#666666", "#000000")


def picture() -> str:
    """Seconds against samples, both on logarithmic axes, as SVG."""
    found = {place.stem: json.loads(place.read_text()) for place in KEPT.glob("samples-*.json")}

    def across(n: float) -> float:
        return 60 + 130 * (math.log10(n) - 4)

    def down(seconds: float) -> float:
        return 280 - 40 * (math.log10(seconds) + 4)

    drawn = [f'<line x1="60" x2="450" y1="{down(10**p):.0f}" y2="{down(10**p):.0f}" stroke="#ddd"/>'
             f'<text x="54" y="{down(10**p) + 4:.0f}" text-anchor="end">{_power(p)} s</text>'
             for p in range(-4, 4)]  # fmt: skip
    drawn += [
        f'<text x="{across(10**p):.0f}" y="300" text-anchor="middle">{_power(p)}</text>' for p in range(4, 8)
    ]
    for (name, (cells, figure, unit)), colour in zip(LINES.items(), COLOURS, strict=True):
        points = [
            (across(n), down(unit * found[f"samples-{cells}-{n}"][figure]))
            for n in _sizes(found, f"samples-{cells}-")
        ]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        drawn.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        x, y = points[-1]
        drawn.append(f'<text x="{x + 8:.0f}" y="{y + 4:.0f}" fill="{colour}">{name}</text>')
    style = 'font-family="sans-serif" font-size="12" fill="#333"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 320" {style}>'
        f'<title>Seconds against samples</title><rect width="600" height="320" fill="#fff"/>'
        + "".join(drawn)
        + '<text x="255" y="316" text-anchor="middle">samples</text></svg>\n'
    )


def _power(p: int) -> str:
    return f"{10**p:,}" if p >= 0 else f"{10.0**p:g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked = parser.add_subparsers(dest="what", required=True)
    samples = asked.add_parser("samples")
    samples.add_argument("--n", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    samples.add_argument("--cells", choices=("coarse", "fine"), default="coarse")
    samples.add_argument("--folder", type=Path, help="for the data")
    batch = asked.add_parser("batch")
    batch.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    stages = asked.add_parser("stages")
    stages.add_argument("--most", type=int, default=5)
    stages.add_argument("--n", type=int, default=5000)
    cluster_runs = asked.add_parser("cluster")
    cluster_runs.add_argument("--world-sizes", type=int, nargs="+", default=[8, 64])
    summary = asked.add_parser("table")
    summary.add_argument("--picture", type=Path)
    given = parser.parse_args()
    if given.what == "samples":
        for n in given.n:
            by_samples(n, given.cells, given.folder)
    elif given.what == "batch":
        for size in given.sizes:
            by_batch(size)
    elif given.what == "stages":
        kept("stages", lambda: alone(run, given.most, given.n))
    elif given.what == "cluster":
        for name in RUNS:
            for world in given.world_sizes:
                kept(f"cluster-{name}, {world} processes", partial(on_a_cluster, name, world))
    else:
        text = tables()
        print(text)
        (KEPT.parent / "scale.md").write_text(text + "\n", encoding="utf-8")
        if given.picture is not None:
            given.picture.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
