"""The three stages of `overtone demo`, without baselines and pages, beside the published procedure.

Both (`published.py`) train, embed and cluster the same pictures, each in a process of its own with all cores,
in turn; three runs of each, since one takes a minute. Imports and the drawing of the pictures do not count.
The linear probe that reads both afterwards is the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from demo_pictures import STAGES, recipe
from measuring import Row, ceilings, keep

from overtone import multistage
from overtone.evaluation import linear_probe
from overtone.integration import concatenated
from overtone.recipe import build_parts, open_data
from overtone.run_folder import embeddings_of

HERE = Path(__file__).parent


def timed(function: Callable[..., Any], seconds: dict[str, float], part: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = function(*args, **kwargs)
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - began
        return result

    return call


def ours(out: Path, smoke: bool) -> None:
    """One run, its parts timed from outside."""
    chosen = recipe(smoke)
    dataset, test = open_data(chosen)
    seconds: dict[str, float] = {}
    watched = {
        "levers_of": "clustering and levers",
        "embed_stage": "embedding",
        "train_stage": "training",
        "run": "all",
    }
    for name, part in watched.items():
        setattr(multistage, name, timed(getattr(multistage, name), seconds, part))
    parts = build_parts(chosen, dataset, test)
    parts = dataclasses.replace(parts, views=_only_in_training(parts.views, seconds))
    multistage.run(parts, out)
    seconds["step"] = seconds.pop("training") - seconds["views"]
    lines = [line for s in range(STAGES) for line in (out / f"stage-{s}/ledger-0.jsonl").open()]
    per_step = min(chosen.stage_specs()[0].batch_size, len(dataset))
    seconds["pictures seen"] = float(per_step * len(lines))
    (out / "seconds.json").write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")


def _only_in_training(views: Any, seconds: dict[str, float]) -> Callable[..., Any]:
    """Views timed where a stage trains; those by which cells are chosen belong to the levers."""
    watched, seconds["views"] = timed(views, seconds, "views"), 0.0

    def call(batch: Any, address: Any) -> Any:
        return (watched if "cell" in batch else views)(batch, address)

    return call


def accuracies(found: list[dict[str, np.ndarray[Any, Any]]], normalise: str, smoke: bool) -> dict[str, float]:
    """Percent of each attribute that all stages side by side tell."""
    train, test = open_data(recipe(smoke))
    assert test is not None
    joined = {of: concatenated([stage[of] for stage in found], normalise) for of in ("train", "test")}
    return {
        name: linear_probe(joined["train"], train.labels[name], joined["test"], test.labels[name])
        for name in train.labels
    }


def _embeddings(out: Path, published: bool) -> list[dict[str, np.ndarray[Any, Any]]]:
    def of(stage: int, name: str) -> np.ndarray[Any, Any]:
        return np.load(out / f"{stage}-{name}.npy") if published else embeddings_of(out, stage, name)

    return [{name: of(stage, name) for name in ("train", "test")} for stage in range(STAGES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="see whether everything runs")
    parser.add_argument("--repeats", type=int, default=3, help="of each, a minute or more a run")
    parser.add_argument("--ours", type=Path, help="one run of ours into this folder (used by itself)")
    arguments = parser.parse_args()
    if arguments.ours:
        ours(arguments.ours, arguments.smoke)
        return
    smoke = ["--smoke"] if arguments.smoke else []
    works = {
        "ours": ([__file__, "--ours"], False, "each"),
        "published": ([str(HERE / "published.py")], True, "once"),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in works}
    said: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(1 if arguments.smoke else arguments.repeats):
            for name, (command, published, normalise) in works.items():
                out = Path(folder, f"{name}-{repeat}")
                # Of both: what the command `overtone` sets, without which waiting threads keep cores busy.
                subprocess.run(
                    [sys.executable, *command, str(out), *smoke],
                    check=True,
                    env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
                )
                runs[name].append(json.loads((out / "seconds.json").read_text(encoding="utf-8")))
                found = accuracies(_embeddings(out, published), normalise, arguments.smoke)
                said[name] = " ".join(f"{attribute} {value:.0f}" for attribute, value in found.items())
    medians = {
        name: {part: median(run[part] for run in each) for part in each[0]} for name, each in runs.items()
    }
    note = "; ".join(
        f"{name}: "
        + ", ".join(f"{part} {value:.1f}" for part, value in sorted(parts.items()) if part != "all")
        + f"; linear probe {said[name]}"
        for name, parts in medians.items()
    )
    taken = {name: parts["all"] for name, parts in medians.items()}
    keep(
        "demo",
        [
            Row(
                "3 stages of 5,000 pictures",
                taken["ours"],
                {"published": taken["published"]},
                aim=">= 3 x",
                note=note,
            )
        ],
        ceilings(),
    )


if __name__ == "__main__":
    main()
