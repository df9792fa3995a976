"""The command `overtone`. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from overtone.cli import data, diagnosing, pages, planning, reading, training
from overtone.cli.allocator import keep_freed_memory
from overtone.errors import OvertoneError

_DEBUG = "OVERTONE_DEBUG"  # also of the processes that a command starts

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train contrastive encoders that miss nothing: multistage contrastive learning on your own data.",
)
app.add_typer(training.app)
app.add_typer(planning.app)
app.add_typer(reading.app)
app.add_typer(diagnosing.app)
app.add_typer(pages.app)
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Before a command: show the traceback of an error.")
    ] = False,
) -> None:
    """Overtone."""
    if debug:
        os.environ[_DEBUG] = "1"
    if version:
        from overtone import __version__

        print(f"overtone {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the command; a user's mistake ends in one message and its exit code, never in a traceback."""
    # Threads that spin while they wait for each other make a step 20 to 60 times slower as soon as another
    # program wants a core; read once, when torch loads OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    sys.path.append(os.getcwd())  # where a recipe's package.module:Class is looked for last
    try:
        app(standalone_mode=True)
    except Exception as error:
        if os.environ.get(_DEBUG):
            raise
        from overtone.progress import plain

        text, exit_code = str(error), getattr(error, "exit_code", 1)
        if not isinstance(error, OvertoneError):
            text = (
                f"{type(error).__name__}: {error}. This should not happen: it is a fault of Overtone, or of "
                "code of yours that it called. `overtone --debug ...` shows where."
            )
        message = Text("overtone: ", style="bold red") + Text(plain(text))
        Console(stderr=True).print(message, soft_wrap=True)
        sys.exit(exit_code)
