"""The commands that train: demo, train, resume."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from overtone.cli.output import Trust, bars, say, show

if TYPE_CHECKING:
    from overtone.recipe import Recipe
    from overtone.study import Study

app = typer.Typer()

Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder; one run, one folder.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many times to run everything, each with its own seed.")]
Baselines = Annotated[
    bool,
    typer.Option("--baselines/--no-baselines", help="Also train what the same cost buys without stages."),
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Runs at the same time. Default: one a core for several runs on CPUs, else 1."),
]


@app.command()
def demo(
    out: Out = Path("demo-run"),
    seeds: Seeds = 1,
    jobs: Jobs = None,
) -> None:
    """Watch stages learn what one plain encoder ignores: planted features, no download, about 2 minutes."""
    from overtone.demo import RECIPE
    from overtone.recipe import parse

    say("Pictures of a digit beside a coloured, textured shape. The digit alone tells pictures apart,")
    say("so a plain encoder stops there; later stages have to learn the rest.")
    _carry_out(parse(RECIPE), out, seeds=seeds, baselines=True, jobs=jobs)


@app.command()
def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(help="A recipe (YAML); or give --data or --strategy.", show_default=False),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Values to set in the recipe: key.path=value", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A folder of images or tars, .parquet, .npy, .npz or .csv, instead of a recipe."),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="The small recipe of a strategy; see `overtone strategies`.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="With --data: about how long everything may take.")
    ] = None,
    out: Out = Path("run"),
    seeds: Seeds = 1,
    baselines: Baselines = False,
    jobs: Jobs = None,
) -> None:
    """Train in stages: from a recipe, or on a folder of images with everything chosen for you."""
    from overtone.errors import RecipeError
    from overtone.recipe import read
    from overtone.strategies import recipe_of

    given = list(overrides or [])
    if recipe is not None and "=" in str(recipe) and not recipe.exists():
        given, recipe = [str(recipe), *given], None
    if sum(one is not None for one in (recipe, data, strategy)) != 1:
        raise RecipeError("train: give a recipe, or --data FOLDER, or --strategy NAME: one of them.")
    if strategy is not None:
        recipe = recipe_of(strategy)
    if recipe is not None:
        if minutes is not None:
            raise RecipeError("--minutes goes with --data; a recipe says train.epochs.")
        chosen = read(recipe, given)
    else:
        from overtone.auto import recipe_for

        assert data is not None
        chosen = recipe_for(data, given, minutes, seeds=seeds, baselines=baselines, line=say)
    _carry_out(chosen, out, seeds=seeds, baselines=baselines, jobs=jobs)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    jobs: Jobs = None,
    trust: Trust = False,
) -> None:
    """Continue a run after any interruption; a finished one is only checked."""
    from overtone.study import Study

    _finish(Study.load(run, trust=trust), jobs)


@app.command()
def strategies() -> None:
    """List the contrastive strategies of the literature that a stage can train with."""
    from overtone.strategies import STRATEGIES

    for one in STRATEGIES.values():
        say(f"{one.name:12} {one.line}")
        say(f"{'':12} {one.modality}; {one.source}.")
    say("overtone train --strategy NAME runs one; in a recipe: `method: {name: NAME}`.")


def _carry_out(recipe: Recipe, out: Path, *, seeds: int, baselines: bool, jobs: int | None) -> None:
    from overtone.recipe import resolved
    from overtone.study import Study, settled

    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that torchrun started on this machine
    processes = max(beside, _processes(jobs, seeds * (4 if baselines else 1)) if beside == 1 else 1)
    threads = recipe.threads or max(1, (os.cpu_count() or 1) // processes)
    recipe = settled(recipe.model_copy(update={"threads": threads}), out, say)
    study = Study(resolved(recipe), out, seeds, baselines)
    _finish(study, processes)


def _finish(study: Study, jobs: int | None) -> None:
    from contextlib import ExitStack
    from functools import partial

    from overtone import distributed, failures
    from overtone.progress import Silent, logging_to
    from overtone.reporting import told, update
    from overtone.results import evaluate_study, why_ended
    from overtone.study import carry_out, working_in

    all_jobs = [job if job.quiet else job._replace(on_stage=partial(update, study)) for job in study.jobs()]
    with distributed.joined(), ExitStack() as stack:
        stack.enter_context(distributed.by_first(lambda: working_in(study.folder)))
        display = stack.enter_context(bars()) if distributed.is_first() else Silent()
        with distributed.together():
            if distributed.is_first():
                study.save()
        stack.enter_context(distributed.by_first(lambda: told(study)))
        stack.enter_context(distributed.by_first(lambda: failures.kept(study.folder)))
        carry_out(all_jobs, display, _processes(jobs, len(all_jobs)))
        if study.recipe.stop == "auto":  # what it has to be compared with depends on where it stopped
            left = [job for job in study.jobs() if job.folder not in {done.folder for done in all_jobs}]
            carry_out(left, display, _processes(jobs, len(left)))
        with logging_to(display):
            results = evaluate_study(study)
            first = distributed.is_first()
            page = update(study) if first else None
    if not first:
        return
    show(study.folder, results, written=True)
    for sentence in why_ended(study) if results is None else []:
        say(sentence)
    if page is not None:
        say(f"Look at it: {page}, in a browser.")
    say(f"Use it: `overtone embed {study.folder} --data ... --out embeddings.npy`, or in Python")
    say(f"overtone.load({str(study.home(0))!r}).encode(...)")


def _processes(jobs: int | None, n_jobs: int) -> int:
    """Small networks train nearly twice as fast one a core as over two threads; a GPU takes one at a time."""
    import torch

    return jobs or (1 if torch.cuda.is_available() else min(n_jobs, os.cpu_count() or 1))
