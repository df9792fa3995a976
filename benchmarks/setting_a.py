"""A digit suppresses a photograph: CIFAR-10 beside MNIST, with every baseline and the oracle.

    python benchmarks/setting_a.py --data ../shared/data --seeds 5

16 x 32 pixels, 6,000 images, the digit half from 100 distinct pictures (10 a class) and the same in both
views, 8 epochs a stage, the 3-layer CNN; train and test share the digit pictures. Linear probe on 3,000
test images. `oracle` columns are plain encoders trained on the photographs alone.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from overtone import artifacts
from overtone.progress import Bars
from overtone.recipe import Recipe, open_data, parse, resolved
from overtone.report.table import Comparison, Row, markdown_table, table_records, verdict
from overtone.results import columns, embeddings_kept, probe_sets, read_columns
from overtone.study import Job, Study, carry_out

ORACLES = 3


def photographs(data: Path, part: str, n: int) -> dict[str, Any]:
    whole = {"source": "parquet", "path": str(data / "cifar10" / f"{part}.parquet"), "image_size": [16, 16]}
    return {"source": "subset", "dataset": whole, "indices": n}


def pictures(data: Path, part: str, n: int) -> dict[str, Any]:
    digits = {"source": "parquet", "path": str(data / "mnist" / "test.parquet"), "image_size": [16, 16]}
    return {
        "source": "composite",
        "left": photographs(data, part, n),
        "right": digits,
        "instances": 100,
        "names": ["class", "digit"],
    }


def recipe(folder: Path, epochs: int, **changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "data": pictures(folder, "train", 6000),
        "test": pictures(folder, "test", 3000),
        "views": {"name": "image", "region": [0, 0, 16, 16]},
        "train": {"epochs": epochs},
        "threads": 1,
        **changes,
    }
    return resolved(parse(values))


def jobs(study: Study, data: Path, epochs: int) -> list[Job]:
    """The study itself, and for each of its seeds the paper's way and the oracle."""
    found = study.jobs()
    alone = {
        "data": photographs(data, "train", 6000),
        "test": photographs(data, "test", 3000),
        "views": {"name": "image"},
        "stages": 1,
    }
    for seed in range(study.seeds):
        home = study.folder / f"seed-{seed}"
        found.append(
            Job(f"seed {seed} paper", recipe(data, epochs, preset="paper", seed=seed), home / "paper", True)
        )
        for number in range(ORACLES):
            oracle = recipe(data, epochs, **alone, seed=seed + 1000 * number)
            found.append(Job(f"seed {seed} oracle-{number}", oracle, home / f"oracle-{number}", True))
    return found


def shown(study: Study, seed: int) -> dict[str, list[tuple[Path, int]]]:
    home = study.folder / f"seed-{seed}"
    found = columns(study.home(seed), 3, baselines=True)
    found |= {f"paper 0-{last}": [(home / "paper", stage) for stage in range(last + 1)] for last in (1, 2)}
    oracles = [(home / f"oracle-{number}", 0) for number in range(ORACLES)]
    return found | {f"oracle x {n}": oracles[:n] for n in (1, ORACLES)}


def closed(figures: dict[str, list[float]], column: str) -> float:
    """How much of the distance from stage 0 to the equal-size oracle a column closes, in percent."""
    low, high, value = (np.mean(figures[name]) for name in ("stage 0", f"oracle x {ORACLES}", column))
    return 100 * float((value - low) / (high - low))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds cifar10/ and mnist/")
    parser.add_argument("--out", type=Path, default=Path("runs/setting-a"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()

    study = Study(recipe(asked.data, asked.epochs), asked.out, max(asked.seeds, 2), baselines=True)
    study.save()
    with Bars(Console()) as display:
        carry_out(jobs(study, asked.data, asked.epochs), display, asked.jobs)
    sets = probe_sets(*open_data(study.recipe))
    reader = partial(embeddings_kept, sets)
    scores = [read_columns(shown(study, seed), sets, reader, "each") for seed in range(study.seeds)]
    rows: list[Row] = [
        (
            name,
            {column: [seed[column][name, "linear"]["accuracy"] for seed in scores] for column in scores[0]},
        )
        for name in sets.train_labels
    ]
    comparison = Comparison("stages 0-2", "3 plain", "1 plain, 3 x longer")
    photos = {column: list(values) for column, values in dict(rows)["class"].items()}
    lines = [
        markdown_table(rows, comparison),
        "",
        *verdict(rows, comparison, {name: len(sets.test) for name in sets.train_labels}),
        "Distance from stage 0 to the equal-size oracle closed: "
        + ", ".join(
            f"{c} {closed(photos, c):.0f} %" for c in ("stages 0-1", "stages 0-2", "paper 0-2", "3 plain")
        ),
    ]
    print("\n".join(lines))
    artifacts.write_text(study.folder / "table.md", "\n".join(lines) + "\n")
    artifacts.write_json(study.folder / "results.json", table_records(rows, comparison))


if __name__ == "__main__":
    main()
