"""A run and what it must be compared with: seeds, and the baselines of equal cost, each a run of its own.

Everything here is a `Job`: a recipe and a folder. A baseline is the same recipe with its stages
replaced; random weights are a stage of no epochs. Jobs are independent, so they share the cores.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

import torch

from overtone import artifacts, interrupts, multistage, rng
from overtone.contracts import Dataset
from overtone.errors import OvertoneError, RunError
from overtone.progress import Display, Remote, logging_to, relayed
from overtone.recipe import Recipe, build_parts, open_data, parse, read, resolved, to_yaml

PLAIN = {
    "n_clusters": None,
    "cell_size": None,
    "cells_per_batch": None,
    "min_batch_size": None,
    "init": "scratch",
}


class Job(NamedTuple):
    """One run: its name beside the others, its resolved recipe, its folder; of a quiet one only warnings show."""

    name: str
    recipe: Recipe
    folder: Path
    quiet: bool = False

    @property
    def level(self) -> int:
        """From which level on its log is shown."""
        return logging.WARNING if self.quiet else logging.INFO


class Study(NamedTuple):
    """The runs that one command asks for.

    Attributes:
        recipe: Resolved; of the first seed.
        folder: Holds everything.
        seeds: How often everything is run.
        baselines: Whether the baselines of equal cost are run as well.
    """

    recipe: Recipe
    folder: Path
    seeds: int = 1
    baselines: bool = False

    def home(self, seed: int) -> Path:
        """The folder of the main run of a seed."""
        return self.folder if self.seeds == 1 else self.folder / f"seed-{seed}"

    def jobs(self) -> list[Job]:
        """Every run, the longest first, so that none is left over when the others are done."""
        jobs = [job for seed in range(self.seeds) for job in self._jobs(seed)]
        return sorted(jobs, key=lambda job: -sum(stage["epochs"] for stage in _stages(job.recipe)))

    def save(self) -> None:
        """Writes down what was asked for, before anything is trained.

        Raises:
            RunError: The folder holds another study.
        """
        place, text = self.folder / "recipe.yaml", to_yaml(self.recipe)
        self.folder.mkdir(parents=True, exist_ok=True)
        if place.exists() and (changed := _differences(read(place), self.recipe)):
            raise RunError(
                f"{self.folder}: holds a run of another recipe: {changed}. Choose another folder with --out, "
                f"or continue that run with `overtone resume {self.folder}`."
            )
        artifacts.write_text(place, text)
        artifacts.write_json(self.folder / "study.json", {"seeds": self.seeds, "baselines": self.baselines})

    @classmethod
    def load(cls, folder: Path) -> Study:
        """The study that a folder holds.

        Raises:
            RunError: It holds none.
        """
        if not (folder / "study.json").exists():
            raise RunError(
                f"{folder}: holds no run (no study.json); give the folder that `overtone train` wrote."
            )
        return cls(read(folder / "recipe.yaml"), folder, **artifacts.read_json(folder / "study.json"))

    def _jobs(self, seed: int) -> Iterator[Job]:
        name = f"seed {seed}" if self.seeds > 1 else ""
        recipe = self.recipe.model_copy(update={"seed": self.recipe.seed + seed})
        yield Job(name, recipe, self.home(seed))
        if self.baselines:
            for title, baseline in baselines(recipe).items():
                yield Job(
                    f"{name} {title}".strip(), baseline, baseline_folder(self.home(seed), title), quiet=True
                )


def baselines(recipe: Recipe) -> dict[str, Recipe]:
    """What the same cost buys without stages, as recipes: equal in images seen, views and optimiser.

    `random` has random weights; `plain-s` is a plain encoder in the place of stage s, of a seed of its
    own; `long` is one plain encoder trained as long as all stages together.
    """
    stages = _stages(recipe)
    plain = [{**stage, **PLAIN} for stage in stages]
    alone = {"random": _single(recipe, {**plain[0], "epochs": 0}, weights=False)}
    for number in range(1, len(stages)):
        other = recipe.model_copy(update={"seed": rng.derive(recipe.seed, "plain", number) % 2**31})
        alone[f"plain-{number}"] = _single(other, plain[number])
    if len(stages) > 1:
        alone["long"] = _single(recipe, {**plain[-1], "epochs": sum(stage["epochs"] for stage in stages)})
    return alone


def baseline_folder(home: Path, title: str) -> Path:
    """Where a baseline of a run is kept."""
    return home / "baselines" / title


def carry_out(jobs: Sequence[Job], display: Display, processes: int) -> None:
    """Runs every job to its end, continuing what is there, `processes` at a time.

    Raises:
        OvertoneError: The first error of any job; the others are stopped after saving.
    """
    if processes == 1 or len(jobs) == 1:
        for job in jobs:
            with logging_to(display, job.level):
                run_job(job, display)
        return
    context = multiprocessing.get_context("spawn")
    queue, failures = context.Manager().Queue(), context.Manager().Queue()
    with relayed(queue, display), interrupts.catching():
        waiting, running = list(jobs), dict[str, BaseProcess]()
        while waiting or running:
            while waiting and len(running) < processes:
                job = waiting.pop(0)
                running[job.name] = context.Process(target=_worker, args=(job, queue, failures))
                running[job.name].start()
            time.sleep(0.1)
            ended = {name: process for name, process in running.items() if process.exitcode is not None}
            running = {name: process for name, process in running.items() if name not in ended}
            if interrupts.requested() or any(process.exitcode for process in ended.values()):
                _stop(list(running.values()))
                interrupts.raise_if_requested()
                raise _failure(ended, failures)


def run_job(job: Job, display: Display) -> None:
    """Carries out one job in this process."""
    torch.set_num_threads(job.recipe.threads or os.cpu_count() or 1)
    job.folder.mkdir(parents=True, exist_ok=True)
    artifacts.write_text(job.folder / "recipe.yaml", to_yaml(job.recipe))
    dataset, test = open_data(job.recipe, cache_dir=job.folder / "cache")
    multistage.run(build_parts(job.recipe, dataset, test), job.folder, display)


def _worker(job: Job, queue: Queue[Any], failures: Queue[Any]) -> None:
    display = Remote(queue, job.name)
    try:
        with logging_to(display, job.level):
            run_job(job, display)
    except OvertoneError as error:
        failures.put((job.name, str(error), error.exit_code))
        raise SystemExit(error.exit_code) from None


def _stop(processes: Sequence[BaseProcess]) -> None:
    """Asks the others to save and end, as a signal from outside would."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _failure(ended: dict[str, BaseProcess], failures: Queue[Any]) -> OvertoneError:
    if not failures.empty():
        name, message, exit_code = failures.get()
        error = OvertoneError(f"{name}: {message}")
        error.exit_code = exit_code
        return error
    name, process = next((n, p) for n, p in ended.items() if p.exitcode)
    return RunError(
        f"{name}: its process ended with code {process.exitcode} (a negative one is a signal; -9 often means that "
        "memory ran out: try fewer --jobs). Continue with `overtone resume`."
    )


def _single(recipe: Recipe, stage: dict[str, Any], *, weights: bool = True) -> Recipe:
    encoder = recipe.encoder if weights else {**recipe.encoder, "pretrained": False, "weights": None}
    return recipe.model_copy(update={"stages": [stage], "encoder": encoder})


def _stages(recipe: Recipe) -> list[dict[str, Any]]:
    assert isinstance(recipe.stages, list), "the recipe of a study is resolved"
    return recipe.stages


def _differences(old: Recipe, new: Recipe) -> str:
    """The fields in which two recipes differ, in words; empty where they agree."""
    before, after = read_back(old), read_back(new)
    fields = [name for name in after if before.get(name) != after[name]]
    return "; ".join(f"{name} is {before.get(name)!r}, now {after[name]!r}" for name in fields)[:600]


def read_back(recipe: Recipe) -> dict[str, Any]:
    """The values of a recipe as its file gives them back."""
    return resolved(recipe).model_dump()
