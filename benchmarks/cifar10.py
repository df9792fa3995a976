"""What stages recover on CIFAR-10, with every baseline, the paper's way and the oracle.

    python benchmarks/cifar10.py beside-mnist --data ../shared/data --seeds 5
    python benchmarks/cifar10.py alone --data ../shared/data --seeds 5

`beside-mnist`: a digit suppresses the photograph beside it. 16 x 32 pixels, 6,000 pictures; the digit half
comes from 100 distinct pictures (10 a class) and is the same in both views; train and test share the
digits. The oracle is plain encoders trained on the photographs alone.
`alone`: 32 x 32 pixels, 6,000 photographs, nothing planted: what stages cost where nothing is suppressed.
8 epochs a stage, the 3-layer CNN, linear probe on 3,000 test pictures.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
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

STAGES = 3
SIZES = {"train": 6000, "test": 3000}
Columns = dict[str, list[tuple[Path, int]]]


def photographs(folder: Path, part: str, size: int) -> dict[str, Any]:
    path = str(folder / "cifar10" / f"{part}.parquet")
    return {"source": "parquet", "path": path, "image_size": size, "limit": SIZES[part]}


def pictures(folder: Path, part: str) -> dict[str, Any]:
    return {
        "source": "composite",
        "left": photographs(folder, part, 16),
        "right": {"source": "parquet", "path": str(folder / "mnist" / "test.parquet"), "image_size": 16},
        "instances": 100,
        "names": ["class", "digit"],
    }


def beside_mnist(folder: Path) -> dict[str, Any]:
    data, test = (pictures(folder, part) for part in SIZES)
    return {
        "data": data,
        "test": test,
        "views": {"name": "image", "region": [0, 0, 16, 16]},
        "stages": STAGES,
    }


def alone(folder: Path, size: int) -> dict[str, Any]:
    data, test = (photographs(folder, part, size) for part in SIZES)
    return {"data": data, "test": test, "views": {"name": "image"}, "stages": STAGES}


def recipe(values: dict[str, Any], epochs: int, **changes: Any) -> Recipe:
    return resolved(parse({**values, "train": {"epochs": epochs}, "threads": 1, **changes}))


def extra_jobs(study: Study, values: dict[str, Any], oracle: dict[str, Any] | None, epochs: int) -> list[Job]:
    """For each seed of the study, the paper's way and, where there is one, the oracle."""
    found = []
    for seed in range(study.seeds):
        home, name = study.folder / f"seed-{seed}", f"seed {seed}"
        found.append(
            Job(f"{name} paper", recipe(values, epochs, preset="paper", seed=seed), home / "paper", True)
        )
        for number in range(STAGES if oracle else 0):
            single = recipe(oracle or {}, epochs, stages=1, seed=seed + 1000 * number)
            found.append(Job(f"{name} oracle-{number}", single, home / f"oracle-{number}", True))
    return found


def shown(study: Study, seed: int, oracle: bool) -> Columns:
    home = study.folder / f"seed-{seed}"
    found = columns(home, STAGES, baselines=True)
    oracles = [(home / f"oracle-{number}", 0) for number in range(STAGES)]
    return found | ({f"{n} oracle": oracles[:n] for n in (1, 2, STAGES)} if oracle else {})


def shown_once(study: Study, seed: int) -> Columns:
    """What is concatenated raw and normalised once, as the paper does."""
    home = study.folder / f"seed-{seed}" / "paper"
    return {f"paper 0-{last}": [(home, stage) for stage in range(last + 1)] for last in (1, 2)}


def closed(figures: dict[str, list[float]]) -> str:
    """How much of the distance from stage 0 to the equal-size oracle is closed."""
    low, high = (np.mean(figures[column]) for column in ("stage 0", f"{STAGES} oracle"))
    shares = {
        column: 100 * float((np.mean(figures[column]) - low) / (high - low))
        for column in ("stages 0-1", "stages 0-2", "paper 0-2", "3 plain", "1 plain, as long")
    }
    return "Distance from stage 0 to the equal-size oracle closed: " + ", ".join(
        f"{column} {share:.0f} %" for column, share in shares.items()
    )


def against_paper(name: str, figures: Mapping[str, Sequence[float]]) -> str:
    ours, paper = figures["stages 0-2"], figures["paper 0-2"]
    spread = max(np.std(ours, ddof=1), np.std(paper, ddof=1))
    gain = np.mean(ours) - np.mean(paper)
    return f"{name}: {gain:+.1f} against the paper's way, whose spread or ours is {spread:.1f}."


def report(study: Study, oracle: bool) -> str:
    sets = probe_sets(*open_data(study.recipe))
    reader = partial(embeddings_kept, sets)
    scores = [
        read_columns(shown(study, seed, oracle), sets, reader, "each")
        | read_columns(shown_once(study, seed), sets, reader, "once")
        for seed in range(study.seeds)
    ]
    rows: list[Row] = [
        (
            name,
            {column: [seed[column][name, "linear"]["accuracy"] for seed in scores] for column in scores[0]},
        )
        for name in sets.train_labels
    ]
    comparison = Comparison("stages 0-2", "3 plain", "1 plain, as long")
    counts = {name: len(sets.test) for name in sets.train_labels}
    said = verdict(rows, comparison, counts)
    said += [
        "Against `paper` in place of the ensemble:",
        *verdict(rows, Comparison("stages 0-2", "paper 0-2"), counts),
    ]
    if oracle:
        said.append(closed({column: list(values) for column, values in dict(rows)["class"].items()}))
    artifacts.write_json(study.folder / "results.json", table_records(rows, comparison))
    return "\n".join([markdown_table(rows, comparison), "", *said, ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("setting", choices=["beside-mnist", "alone"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds cifar10/ and mnist/")
    parser.add_argument("--out", type=Path, default=None, help="default: runs/cifar10-SETTING")
    parser.add_argument("--seeds", type=int, default=5, help="at least 2, so that there is a spread")
    parser.add_argument("--epochs", type=int, default=8, help="a stage")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()

    planted = asked.setting == "beside-mnist"
    values = beside_mnist(asked.data) if planted else alone(asked.data, 32)
    oracle = alone(asked.data, 16) if planted else None
    folder = asked.out or Path("runs") / f"cifar10-{asked.setting}"
    study = Study(recipe(values, asked.epochs), folder, max(asked.seeds, 2), baselines=True)
    study.save()
    with Bars(Console()) as display:
        jobs = [*study.jobs(), *extra_jobs(study, values, oracle, asked.epochs)]
        carry_out(jobs, display, asked.jobs)
    text = report(study, planted)
    print(text)
    artifacts.write_text(folder / "table.md", text)


if __name__ == "__main__":
    main()
