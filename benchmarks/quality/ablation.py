"""What each part of the default is worth: one thing changed at a time.

    python benchmarks/quality/ablation.py beside-mnist --seeds 2 --jobs 2

Needs the row's own run (`run.py`), whose stage 0 all variants share. Writes `ablation.md` beside its table.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rows import ROWS, STAGES, Values
from run import asked, recipe

from overtone import artifacts
from overtone.errors import OvertoneError
from overtone.progress import Bars
from overtone.recipe import open_data
from overtone.report.table import Comparison, Row, markdown_table
from overtone.results import embeddings_kept, probe_sets, read_columns
from overtone.study import Job, Study, carry_out

FINE: Values = {"cell_size": "fine", "erase": "auto"}
COARSE: Values = {"cell_size": "coarse", "erase": "auto"}
OFF: Values = {"erase": "off"}

VARIANTS: dict[str, list[Values]] = {
    "nothing hidden": [FINE | OFF, COARSE | OFF],
    "nothing hidden, 30 a cell, then 10 cells": [
        {"cell_size": 30, "erase": "off"},
        {"n_clusters": 10, "erase": "off"},
    ],
    "no cells": [{"cells": "whole", "erase": "auto"}] * 2,
    "fine twice": [FINE, FINE],
    "coarse twice": [COARSE, COARSE],
    "intersect": [FINE | {"cells": "intersect"}, COARSE | {"cells": "intersect"}],
    "nested": [FINE | {"cells": "nested"}, COARSE | {"cells": "nested"}],
}
"""What is changed -> the values of the stages after stage 0."""


def main(arguments: Sequence[str]) -> None:
    options = asked(arguments)
    study = Study.load(options.out)
    jobs = []
    for seed in range(options.seeds):
        for name, later in VARIANTS.items():
            home = study.home(seed) / "ablation" / name.replace(" ", "-").replace(",", "")
            values = {**ROWS[options.row].recipe, "stages": [{}, *later]}
            for shared in ("stage-0", "identities"):
                if not (home / shared).exists():
                    shutil.copytree(study.home(seed) / shared, home / shared)
            jobs.append(Job(f"seed {seed} {name}", recipe(options, values, seed), home, True, study.cache))
    with Bars(Console()) as display:
        carry_out(jobs, display, options.jobs)
    sets = probe_sets(*open_data(study.recipe, cache_dir=study.cache))
    reader = partial(embeddings_kept, sets)
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in sets.train_labels}
    homes = {"default": [study.home(seed) for seed in range(options.seeds)]} | {
        name: [job.folder for job in jobs if job.name.endswith(f" {name}")] for name in VARIANTS
    }
    for name, folders in homes.items():
        for home in folders:
            column = {name: [(home, stage) for stage in range(STAGES)]}
            for (attribute, probe), score in read_columns(column, sets, reader, "each")[name].items():
                if probe == "linear":
                    rows[attribute].setdefault(name, []).append(score["accuracy"])
    table: list[Row] = list(rows.items())
    text = markdown_table(table, Comparison("default"))
    artifacts.write_text(options.out / "ablation.md", text + "\n")
    print(text)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OvertoneError as error:
        sys.exit(str(error))
