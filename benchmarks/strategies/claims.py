"""Runs the recipe of each strategy, the same without what its claim rests on, and random weights; one table.

    python benchmarks/strategies/claims.py --seeds 8 --jobs 2          # all of them
    python benchmarks/strategies/claims.py cacr mochi --seeds 8        # some

Called again it continues; what is finished is not repeated. Runs go to `runs/strategies/NAME/`, what was
found to `docs/strategies/found.json`, and the table of all of that to `docs/strategies/README.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from overtone.recipe import open_data
from overtone.results import columns_of_seeds, embeddings_kept, probe_sets, read_columns
from overtone.strategies import STRATEGIES, Strategy
from overtone.study import Study

PAGES = Path("docs/strategies")
FOUND = PAGES / "found.json"
BEGIN, END = "<!-- made by `make strategies` -->\n", "<!-- end -->\n"

Found = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="default: all")
    parser.add_argument("--seeds", type=int, default=8, help="at least 2, so that there is an interval")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/strategies"))
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(STRATEGIES):
        parser.error(f"{', '.join(sorted(unknown))}: unknown; expected some of {', '.join(STRATEGIES)}")
    for name in asked.names or STRATEGIES:
        keep(found_by(STRATEGIES[name], asked.out / name, asked.seeds, asked.jobs))
    print(table(json.loads(FOUND.read_text(encoding="utf-8"))))


def found_by(strategy: Strategy, out: Path, seeds: int, jobs: int) -> Found:
    """The accuracies of stage 0, of the ablation and of random weights, and of all stages, a value a seed."""
    values = {
        "strategy": ((), "stage 0"),
        "ablation": ((*strategy.ablation, "stages=1"), "stage 0"),
        "random": (('stages=[{"epochs": 0}]',), "stage 0"),
    }
    found: Found = {"name": strategy.name, "seeds": seeds}
    for part, (overrides, column) in values.items():
        run = out / part
        trained(strategy, run, overrides, seeds, jobs)
        read = probed(run, strategy)
        found[part] = read[column]
        if part == "strategy":
            found |= {"chance": read["chance"], "two stages": read["stages 0-1"]}
    return found


def trained(strategy: Strategy, run: Path, overrides: tuple[str, ...], seeds: int, jobs: int) -> None:
    """One run of the command, or the rest of one that was interrupted."""
    command = [sys.executable, "-m", "overtone"]
    if (run / "study.json").exists():
        command += ["resume", str(run), "--jobs", str(jobs)]
    else:
        command += ["train", "--strategy", strategy.name, *overrides, "threads=1"]
        command += ["--seeds", str(seeds), "--jobs", str(jobs), "--out", str(run)]
    subprocess.run(command, check=True)


def probed(run: Path, strategy: Strategy) -> dict[str, list[float]]:
    """What the linear probe reads of the attribute, a value a seed: from each stage, and from all."""
    study = Study.load(run)
    sets = probe_sets(*open_data(study.recipe))

    def reader(home: Path, stage: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        train, test = embeddings_kept(sets, home, stage)
        chosen = slice(*strategy.columns)
        return train[:, chosen], test[:, chosen]

    found: dict[str, list[float]] = {}
    for columns in columns_of_seeds(study):
        for column, scores in read_columns(columns, sets, reader, study.recipe.normalise or "each").items():
            score = scores[strategy.attribute, "linear"]
            found.setdefault(column, []).append(round(score["accuracy"], 2))
    return found | {"chance": [round(score["chance"], 2)]}


def keep(found: Found) -> None:
    """Puts what was found in the place of what was found before, and writes the table."""
    known = json.loads(FOUND.read_text(encoding="utf-8")) if FOUND.exists() else {}
    known[found["name"]] = found
    FOUND.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    write_table(known)


def write_table(known: dict[str, Found]) -> None:
    """Puts the table of all strategies on their page."""
    page = PAGES / "README.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + table(known) + "\n" + END + after, encoding="utf-8")


def table(known: dict[str, Found]) -> str:
    """A row a strategy, measured or not."""
    lines = [
        "| strategy | modality | claim | seeds | stage 0 | without | random weights | chance | shown |"
        " stages 0-1 | as a stage | confidence |",
        "|---|---|---|---:|---:|---:|---:|---:|---|---:|---|---|",
    ]
    for name, strategy in sorted(STRATEGIES.items()):
        found = known.get(name)
        parts = ("strategy", "ablation", "random", "chance", "two stages")
        values = ["" if found is None else said(found[part]) for part in parts]
        cells = [
            f"[{name}]({name}.md)",
            strategy.modality,
            f"{strategy.claim} ({strategy.attribute})",
            "" if found is None else str(found["seeds"]),
            *values[:4],
            "not measured" if found is None else shown(found),
            values[4],
            strategy.stage,
            strategy.confidence,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def said(values: list[float]) -> str:
    """Mean ± standard deviation over the seeds."""
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 and len(set(values)) > 1 else mean


def shown(found: Found) -> str:
    """Whether it beats ablation, random weights and chance with 95 % confidence; its gain over the first."""
    value, low, high = gain(found, "ablation")
    words = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    if low > 0 and all(gain(found, other)[1] > 0 for other in ("random", "chance")):
        return f"yes, {words}"
    return f"no, {words}" + (", but no more than random weights" if low > 0 else "")


def gain(found: Found, other: str) -> tuple[float, float, float]:
    """How far the strategy lies above another part, seed by seed: the mean, and Student's 95 % interval."""
    difference = np.subtract(found["strategy"], found[other])
    interval = stats.ttest_1samp(difference, 0.0).confidence_interval()
    return float(difference.mean()), float(interval.low), float(interval.high)


if __name__ == "__main__":
    main()
