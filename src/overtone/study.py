"""A run and what it must be compared with: seeds, and the baselines of equal cost, each a run of its own.

Everything here is a `Job`: a recipe and a folder. A baseline is the same recipe with its stages
replaced; random weights are a stage of no epochs. Jobs are independent, so they share the cores.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from overtone import artifacts, distributed, interrupts, machine, multistage, rng
from overtone.calibrating import calibrated
from overtone.contracts import Dataset
from overtone.errors import OvertoneError, RunError
from overtone.links import leaving
from overtone.progress import Display, Remote, logging_to
from overtone.recipe import Recipe, build_parts, open_data, read, resolved, to_yaml
from overtone.roster import require_same
from overtone.run_folder import Parts, ended

PLAIN = {
    "n_clusters": None,
    "cell_size": None,
    "cells_per_batch": None,
    "min_batch_size": None,
    "erase": "off",
    "init": "scratch",
    "lora": None,
    "optimizer_warm_start_steps": 0,
    "drift": None,
}

# Fields that may change while a run goes on.
FREE = ("threads", "num_workers", "loggers", "shard", "checkpoint_seconds", "checkpoints_kept")
FAILED = "failed"  # the message of a process that ended with an error, beside those of a display


class Job(NamedTuple):
    """One run: its name beside the others, its resolved recipe, its folder; of a quiet one only warnings.

    `on_stage` is called after each of its stages with the data set; it may have to travel to a process.
    """

    name: str
    recipe: Recipe
    folder: Path
    quiet: bool = False
    cache: Path | None = None
    on_stage: Callable[[Dataset], object] | None = None

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

    @property
    def cache(self) -> Path:
        """Where its runs share decoded pictures that do not fit into memory."""
        return self.folder / "cache"

    def jobs(self) -> list[Job]:
        """Every run, the longest first, so that none is left over when the others are done."""
        jobs = [job for seed in range(self.seeds) for job in self._jobs(seed)]
        return sorted(jobs, key=lambda job: -sum(stage["epochs"] for stage in _stages(job.recipe)))

    def n_stages(self, seed: int) -> int:
        """How many stages the main run of a seed has, or may have if it has not ended.

        Raises:
            RunError: It says that it has more than its recipe, or nothing that can be read.
        """
        end, most = ended(self.home(seed)), len(_stages(self.recipe))
        if end is not None and end[0] > most:
            place = self.home(seed) / "end.json"
            raise RunError(f"{place}: damaged: {end[0]} stages, of {most}; remove it and resume the run.")
        return most if end is None else end[0]

    def main_runs(self) -> list[tuple[Path, Recipe]]:
        """The folder and the recipe of the main run of each seed."""
        homes = [self.home(seed) for seed in range(self.seeds)]
        recipes = {job.folder: job.recipe for job in self.jobs()}
        return [(home, recipes[home]) for home in homes]

    def save(self) -> None:
        """Writes down what was asked for, before anything is trained.

        Raises:
            RunError: The folder holds another study, of which something is trained, or cannot be one.
        """
        place, text = self.folder / "recipe.yaml", to_yaml(self.recipe)
        artifacts.make_folder(self.folder)
        begun = place.exists() and any(place.is_dir() for place in self.folder.glob("**/stage-0/*"))
        own_code = [value for value in fields(self.recipe.model_dump()).values() if isinstance(value, str)]
        if begun and (changed := differences(read(place, trusted=own_code), self.recipe)):
            raise RunError(
                f"{self.folder}: holds a run of another recipe: {changed}. Choose another folder with --out, "
                f"or continue that run with `overtone resume {self.folder}`."
            )
        if begun and (self._kept()["seeds"] == 1) != (self.seeds == 1):
            raise RunError(
                f"{self.folder}: holds a study of {self._kept()['seeds']} seed(s), now {self.seeds}; one run "
                "and several lie differently in a folder. Choose another folder with --out."
            )
        artifacts.write_text(place, text)
        artifacts.write_json(self.folder / "study.json", {"seeds": self.seeds, "baselines": self.baselines})

    @classmethod
    def load(cls, folder: Path, *, trust: bool = False) -> Study:
        """The study that a folder holds.

        Args:
            folder: May have come from elsewhere, so
            trust: only if this is True, code that its recipe names is imported.

        Raises:
            RunError: It holds none, or links that lead out of it.
            RecipeError: Its recipe names code.
        """
        for name in ("study.json", "recipe.yaml"):
            if not (folder / name).is_file():
                raise RunError(
                    f"{folder}: holds no run (no {name}); give the folder that `overtone train` wrote."
                )
        refuse_links(folder)
        recipe = read(folder / "recipe.yaml", trusted=None if trust else ())
        return cls(resolved(recipe), folder, **_asked_for(folder))

    def _kept(self) -> dict[str, Any]:
        return _asked_for(self.folder)

    def _jobs(self, seed: int) -> Iterator[Job]:
        name = f"seed {seed}" if self.seeds > 1 else ""
        recipe = self.recipe.model_copy(update={"seed": self.recipe.seed + seed})
        home = self.home(seed)
        yield Job(name, recipe, home, cache=self.cache)
        if self.baselines:
            end = ended(home)
            if recipe.stop == "auto" and end is None:
                return  # how many stages they have to equal is not known yet
            if end is not None:
                recipe = recipe.model_copy(update={"stages": _stages(recipe)[: end[0]]})
            for title, baseline in baselines(recipe).items():
                place = baseline_folder(home, title)
                yield Job(f"{name} {title}".strip(), baseline, place, quiet=True, cache=self.cache)


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Holds the lock of a study's folder, through which nothing outside can be written.

    Raises:
        RunError: Another process holds it, or a link leads out of the folder.
    """
    refuse_links(folder)
    with artifacts.locked(folder, "study.lock"):
        yield


def refuse_links(folder: Path) -> None:
    """Refuses a folder in which writing might overwrite what lies elsewhere.

    Raises:
        RunError: A link leads out of it.
    """
    if outward := next(leaving(folder), None):
        raise RunError(
            f"{outward}: is a link that leads out of the run folder, to {os.path.realpath(outward)}; what is "
            "written there would change files elsewhere. Put the file itself there, or remove the link."
        )


def _asked_for(folder: Path) -> dict[str, Any]:
    place = folder / "study.json"
    kept = artifacts.read_json(place)
    if not isinstance(kept, dict) or kept.keys() != {"seeds", "baselines"}:
        raise RunError(f"{place}: damaged: expected `seeds` and `baselines`.")
    if type(kept["seeds"]) is not int or kept["seeds"] < 1 or type(kept["baselines"]) is not bool:
        raise RunError(f"{place}: damaged: {kept}; expected a number of seeds from 1, and true or false.")
    return kept


def settled(
    recipe: Recipe, folder: Path, line: Callable[[str], None], make: Callable[[], Parts] | None = None
) -> Recipe:
    """A recipe whose `precision: auto` is decided: as the run in the folder was begun, else by measuring.

    Args:
        recipe: Any; comes back as it is where it says its precision.
        folder: Of the run.
        line: Takes what was measured.
        make: Makes the objects of the recipe, where it alone does not.

    Raises:
        OvertoneError: The data cannot be read, or several processes would have to agree.
    """
    if recipe.precision != "auto":
        return recipe
    place = folder / "recipe.yaml"
    if place.exists():
        own_code = [value for value in fields(recipe.model_dump()).values() if isinstance(value, str)]
        begun = read(place, trusted=own_code)
        return recipe.model_copy(update={"precision": begun.precision, "layout": begun.layout})
    with threads(recipe.threads or os.cpu_count() or 1):
        parts = make() if make else build_parts(recipe, open_data(recipe, folder / "cache")[0], None)
        way = calibrated(parts, line)
    return recipe.model_copy(update=way._asdict())


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

    Under `torchrun` one run after the other takes all processes.

    Raises:
        OvertoneError: The first error of any job; the others are stopped after saving.
    """
    finished = all(artifacts.is_complete(job.folder / "encoder") for job in jobs)  # checked in a moment
    if processes == 1 or len(jobs) == 1 or finished or distributed.world_size() > 1:
        for job in jobs:
            with logging_to(display, job.level):
                run_job(job, display)
        return
    waiting, failure, stopping = list(jobs), None, False
    running: dict[Connection, tuple[Job, BaseProcess]] = {}
    with interrupts.catching():
        while waiting or running:
            while waiting and len(running) < processes:
                running |= [_started(waiting.pop(0))]
            for line in cast("list[Connection]", wait(list(running), timeout=0.2)):
                error = _heard(line, running, display)
                failure = failure or error
            if (interrupts.received() or failure) and not stopping:
                stopping = True
                waiting.clear()
                _stop(running)
        interrupts.raise_if_requested()
    if failure:
        raise failure


def run_job(job: Job, display: Display) -> None:
    """Carries out one job in this process."""
    with distributed.together():
        if distributed.is_first():
            artifacts.make_folder(job.folder)
            artifacts.write_text(job.folder / "recipe.yaml", to_yaml(job.recipe))
    with interrupts.catching(), threads(job.recipe.threads or os.cpu_count() or 1):
        opened = partial(open_data, job.recipe, cache_dir=job.cache or job.folder / "cache")
        dataset, test = distributed.in_turn(opened)
        with distributed.together():
            interrupts.raise_if_requested()
            parts = build_parts(job.recipe, dataset, test)
            if distributed.is_first():
                require_same(dataset, job.folder)
                machine.keep(job.folder, str(parts.device))
        on_stage = None if job.on_stage is None else partial(job.on_stage, dataset)
        with distributed.by_first(lambda: artifacts.timed(job.folder / "seconds.json")):
            multistage.run(parts, job.folder, display, on_stage)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Computes on so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _started(job: Job) -> tuple[Connection, tuple[Job, BaseProcess]]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_worker, args=(job, there))
    process.start()
    there.close()  # so that the end of the process is the end of the line
    return here, (job, process)


def _worker(job: Job, line: Connection) -> None:
    threading.Thread(target=_obey, args=(line,), daemon=True).start()
    display = Remote(line, job.name)
    try:
        with logging_to(display, job.level):
            run_job(job, display)
    except OvertoneError as error:
        line.send((FAILED, (str(error), error.exit_code)))
        raise SystemExit(error.exit_code) from None


def _obey(line: Connection) -> None:
    """Stops this process, after saving, when the one that started it says so or is gone.

    By a message: the signal of a whole group has often come already, and a second one does not save.
    """
    with suppress(EOFError, OSError):
        line.recv()
    if not interrupts.received():
        os.kill(os.getpid(), signal.SIGTERM)


def _heard(
    line: Connection, running: dict[Connection, tuple[Job, BaseProcess]], display: Display
) -> OvertoneError | None:
    """Shows one message of a process; gives the error if it was one, or if the process ended with one."""
    job, process = running[line]
    try:
        kind, arguments = line.recv()
    except (EOFError, OSError):
        process.join()
        del running[line]
        return _ended(job, process.exitcode or 0)
    if kind != FAILED:
        getattr(display, kind)(*arguments)
        return None
    message, exit_code = arguments
    error = OvertoneError(f"{job.name}: {message}" if job.name else message)
    error.exit_code = exit_code
    return error


def _stop(running: Iterable[Connection]) -> None:
    """Asks the processes to save and end."""
    for line in running:
        with suppress(OSError):  # it has just ended
            line.send("stop")


def _ended(job: Job, exit_code: int) -> OvertoneError | None:
    if exit_code == 0:
        return None
    return RunError(
        f"{job.name or job.folder}: its process ended with code {exit_code} (a negative one is a signal; -9 "
        "often means that memory ran out: try fewer --jobs). Continue with `overtone resume`."
    )


def _single(recipe: Recipe, stage: dict[str, Any], *, weights: bool = True) -> Recipe:
    encoder = recipe.encoder if weights else {**recipe.encoder, "pretrained": False, "weights": None}
    return recipe.model_copy(update={"stages": [stage], "encoder": encoder})


def _stages(recipe: Recipe) -> list[dict[str, Any]]:
    assert isinstance(recipe.stages, list), "the recipe of a study is resolved"
    return recipe.stages


def differences(old: Recipe, new: Recipe) -> str:
    """The fields in which two recipes differ, in words; empty where they agree but for what may change.

    >>> from overtone.recipe import parse
    >>> recipe = parse({"data": {"source": "tones", "n": 100}, "stages": [{"epochs": 2}]})
    >>> differences(recipe, parse({**recipe.model_dump(), "stages": [{"epochs": 3}], "threads": 1}))
    'stages.0.epochs is 2, now 3'
    """
    before, after = (fields(resolved(recipe).model_dump(exclude=set(FREE))) for recipe in (old, new))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    shown = [f"{name} is {before.get(name)!r}, now {after.get(name)!r}" for name in names[:5]]
    return "; ".join(shown) + (f"; and {len(names) - 5} more" if len(names) > 5 else "")


def fields(value: Any, place: str = "") -> dict[str, Any]:
    """Dotted place -> plain value, for everything inside."""
    if not isinstance(value, (dict, list)):
        return {place: value}
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return {n: v for key, item in inner for n, v in fields(item, f"{place}.{key}".strip(".")).items()}
