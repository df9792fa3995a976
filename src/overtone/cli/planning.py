"""The command that says what a run will take: plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from overtone.cli.output import say

if TYPE_CHECKING:
    from overtone.planning import Figure, Figures, Plan

app = typer.Typer()

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Values to set in the recipe: key.path=value", show_default=False),
    ] = None,
    world_size: Annotated[int, typer.Option(min=1, help="How many processes train.")] = 1,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Plan for so many samples, of data that are not here.")
    ] = None,
    samples_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="Of one process in training; gives the time.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure that on this machine, in a few steps.")
    ] = False,
    bytes_per_second: Annotated[
        float | None, typer.Option(min=1, help="Of the disk that all share; adds reading and writing.")
    ] = None,
    bytes_per_sample: Annotated[
        float | None, typer.Option(min=1, help="What a sample takes where it is stored, on average.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what a run will take before it begins: steps, bytes, memory of each process, and time."""
    from overtone.errors import RecipeError
    from overtone.planning import Given
    from overtone.planning import plan as planned
    from overtone.recipe import read

    if calibrate and samples_per_second is not None:
        raise RecipeError("plan: give either --calibrate or --samples-per-second (one of them, not both).")
    given = Given(samples, bytes_per_sample, samples_per_second, bytes_per_second, calibrate)
    found = planned(read(recipe, overrides or []), world_size, given)
    if as_json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        _show(found, recipe.name)


def _show(found: Plan, name: str) -> None:
    processes = f"{found.world_size} process{'es' if found.world_size > 1 else ''}"
    say(f"{name}: {found.samples:,} samples, {len(found.stages)} stages, {processes}.")
    console = Console()
    console.print(_table(found))
    of, number = max((_most(stage.memory()[1]), number) for number, stage in enumerate(found.stages))
    part, figures = found.stages[number].memory()
    say(f"Memory of each process, at most {_bytes(of)}, in stage {number} while {part}:")
    for what, figure in figures.items():
        say(f"  {what}: {_said(figure, _bytes)}")
    say(
        f"On the disk at once: {_said(found.at_once, _bytes)}; a checkpoint takes {_bytes(found.checkpoint)}."
    )
    for sentence in ("~ is an estimate, ≤ the most of what the run itself decides.", *found.said):
        say(sentence)


def _table(found: Plan) -> Table:
    from overtone.planning import Figure

    totals = found.totals()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    timed = "seconds" in totals
    columns = ["", "steps", "samples", "read", "written", "memory", *(["time"] if timed else [])]
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for number, stage in enumerate(found.stages):
        read, written, memory, seconds = (
            Figure.total(figures.values())
            for figures in (stage.read, stage.written, stage.memory()[1], stage.seconds)
        )
        table.add_row(
            f"stage {number}",
            _said(stage.steps, _count),
            _said(stage.samples, _samples),
            *(_said(figure, _bytes) for figure in (read, written, memory)),
            *([_said(seconds, _duration)] if timed else []),
        )
    table.add_row(
        "in all",
        _said(totals["steps"], _count),
        _said(totals["samples"], _samples),
        *(_said(totals[what], _bytes) for what in ("read", "written")),
        "",
        *([_said(totals["seconds"], _duration)] if timed else []),
    )
    return table


def _most(figures: Figures) -> float:
    return sum(figure.most for figure in figures.values())


def _said(figure: Figure, text: Callable[[float], str]) -> str:
    """The most that it can be, with what is to be known of that."""
    certain = text(figure.least) == text(figure.most)
    return ("" if certain else "≤") + ("~" if figure.estimated else "") + text(figure.most)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _samples(value: float) -> str:
    return f"{value:,.0f}" if value < 1e7 else f"{value / 1e6:,.1f} M"


def _bytes(value: float) -> str:
    """Three digits in a fitting unit; 1 kB is 1,000 bytes."""
    power = 0
    while value >= 999.5 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {_UNITS[power]}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
