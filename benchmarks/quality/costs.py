"""What runs have cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from overtone import artifacts
from overtone.study import Job


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
