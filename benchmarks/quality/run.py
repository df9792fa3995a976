"""One row of the benchmark: the result, its baselines, its rivals and its oracle, over several seeds.

    python benchmarks/quality/run.py beside-mnist --data ../shared/data --seeds 5 --jobs 2

Called again it continues; what is finished is not repeated. Writes `results.json` and `table.md`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from findings import BEST_RESULT, RESULT, findings
from planted import write_stand_ins
from rows import BEST, ENCODERS, RIVALS, ROWS, STAGES, TINY, Values, located, tiny
from runs import carried_out, costs_of
from table import row_tables

from overtone import artifacts
from overtone.errors import OvertoneError
from overtone.recipe import Recipe, open_data, parse, resolved
from overtone.results import columns, embeddings_kept, probe_sets, read_columns
from overtone.study import Study

PARTS = ("paper", "rivals", "oracle")
Encoders = list[tuple[Path, int]]
Scores = dict[str, dict[str, list[float]]]


def asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds cifar10/ and mnist/")
    parser.add_argument("--out", type=Path, help="default: runs/quality/ROW")
    parser.add_argument("--seeds", type=int, default=5, help="at least 2, so that there is a spread")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--without", nargs="+", choices=PARTS, default=[], help="what to leave out")
    parser.add_argument("--best", action="store_true", help="also the best setting known for this row")
    parser.add_argument("--encoder", choices=ENCODERS, default="small_cnn", help="whose, in all columns")
    parser.add_argument("--epochs", type=int, help="a stage; default: the row's own")
    parser.add_argument("--smoke", action="store_true", help="a few pictures, one epoch: does it run?")
    found = parser.parse_args(arguments)
    if found.seeds < 2:
        parser.error(f"--seeds {found.seeds}: expected 2 or more, so that there is a spread")
    if found.best and found.row not in BEST:
        parser.error(f"--best: no setting is known to be better for {found.row} than the default")
    name = found.row if found.encoder == "small_cnn" else f"{found.row}-{found.encoder}"
    found.out = found.out or Path("runs") / ("quality-smoke" if found.smoke else "quality") / name
    return found


def recipe(options: argparse.Namespace, values: Values, seed: int) -> Recipe:
    """A recipe of the row in full, its data found; of few pictures for `--smoke`."""
    train: Values = {"epochs": options.epochs or ROWS[options.row].epochs}
    values = located(values, options.data)
    if options.smoke:
        values, train = tiny(values), {"epochs": 1, "batch_size": 32}
        if values.get("preset") == "paper":
            train["n_clusters"] = 2  # so that single cells fill batches
    cores = (os.cpu_count() or 1) // options.jobs
    common = {"train": train, "threads": max(1, cores), "loggers": [], "seed": seed}
    return resolved(parse({"stages": STAGES, **common, **ENCODERS[options.encoder], **values}))


def beside(options: argparse.Namespace, seed: int) -> Iterator[tuple[str, Recipe]]:
    """The runs of a seed beside the result and its baselines: folder and recipe."""
    row = ROWS[options.row]
    if options.best:
        yield "best", recipe(options, {**row.recipe, **BEST[options.row]}, seed)
    if "paper" not in options.without:
        yield "paper", recipe(options, {**row.recipe, "preset": "paper"}, seed)
    ensembles: dict[str, Values] = {}
    if "oracle" not in options.without and row.oracle:
        ensembles["oracle"] = row.oracle
    if "rivals" not in options.without:
        for name, objective in RIVALS.items():
            ensembles[name] = {**row.recipe, "method": {"name": "simclr", "objective": objective}}
    for name, values in ensembles.items():
        for number in range(STAGES):
            yield f"{name}-{number}", recipe(options, {**values, "stages": 1}, seed + 1000 * number)


def columns_of(home: Path, runs: Sequence[str]) -> dict[str, tuple[Encoders, str]]:
    """Column -> the encoders it reads side by side, and how they are joined."""
    found = {column: (encoders, "each") for column, encoders in columns(home, STAGES, True).items()}
    for name, normalise in (("best", "each"), ("paper", "once")):
        if name in runs:
            for last in range(1, STAGES):
                stages = [(home / name, stage) for stage in range(last + 1)]
                found[f"{name} 0-{last}"] = (stages, normalise)
    for name in (*RIVALS, "oracle"):
        if f"{name}-0" in runs:
            for size in range(1, STAGES + 1):
                found[f"{size} {name}"] = ([(home / f"{name}-{n}", 0) for n in range(size)], "each")
    return found


def scores_of(study: Study, runs: Sequence[str]) -> Scores:
    """Attribute -> column -> accuracy of the linear probe in percent, one a seed."""
    sets = probe_sets(*open_data(study.recipe, cache_dir=study.cache))
    scores: Scores = {name: {} for name in sets.train_labels}
    for seed in range(study.seeds):
        for column, (encoders, normalise) in columns_of(study.home(seed), runs).items():
            read = read_columns({column: encoders}, sets, partial(embeddings_kept, sets), normalise)
            for name, figures in scores.items():
                figures.setdefault(column, []).append(read[column][name, "linear"]["accuracy"])
    return scores


def main(arguments: Sequence[str]) -> None:
    options = asked(arguments)
    row = ROWS[options.row]
    if options.smoke and not options.data.is_dir():
        options.data = options.out / "data"
        write_stand_ins(options.data, TINY)
    study = Study(recipe(options, row.recipe, 0), options.out, options.seeds, baselines=True)
    jobs = carried_out(study, partial(beside, options), options.jobs)
    runs = [name for name, _ in beside(options, 0)]
    scores = scores_of(study, runs)
    found = {
        "row": options.row,
        "title": row.title,
        "held_out": row.held_out,
        "seeds": options.seeds,
        "scores": scores,
        "costs": costs_of(jobs),
        "default": findings(scores, row.aims, RESULT),
        "best": findings(scores, row.aims, BEST_RESULT) if options.best else None,
    }
    artifacts.write_json(options.out / "results.json", found)
    text = row_tables(found)
    artifacts.write_text(options.out / "table.md", text)
    print(text)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OvertoneError as error:
        sys.exit(str(error))
