"""The runs of a row, and what they have cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console

from overtone import artifacts
from overtone.progress import Bars
from overtone.recipe import Recipe
from overtone.study import Job, Study, carry_out


def carried_out(
    study: Study, beside: Callable[[int], Iterable[tuple[str, Recipe]]], processes: int
) -> list[Job]:
    """Trains a study, and beside each of its seeds other runs: folder and recipe. Gives all of them."""
    study.save()
    extra = [
        Job(f"seed {seed} {name}", recipe, study.home(seed) / name, True, study.cache)
        for seed in range(study.seeds)
        for name, recipe in beside(seed)
    ]
    jobs = [*study.jobs(), *extra]
    with Bars(Console()) as display:
        carry_out(jobs, display, processes)
    return jobs


def costs_of(jobs: Sequence[Job]) -> dict[str, dict[str, list[float]]]:
    """Run -> the seconds it took and the images it saw, one a seed."""
    costs: dict[str, dict[str, list[float]]] = {}
    for job in jobs:
        _, _, name = job.name.partition(" ")[2].partition(" ")
        cost = costs.setdefault(name or "result", {"seconds": [], "images": []})
        cost["seconds"].append(artifacts.read_json(job.folder / "seconds.json"))
        cost["images"].append(images_seen(job.folder))
    return costs


def images_seen(folder: Path) -> int:
    """The samples of all steps; a step that was repeated after an interruption stands in the log twice."""
    seen = 0
    for log in folder.glob("stage-*/metrics.jsonl"):
        records = [json.loads(line) for line in log.read_text().splitlines()]
        seen += sum({r["step"]: r["samples"] for r in records if "samples" in r}.values())
    return seen
