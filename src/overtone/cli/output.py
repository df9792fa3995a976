"""What the commands print, and the options that several of them take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from overtone.progress import Bars
    from overtone.results import Results

Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Import the code that the run's recipe names; it may have come from elsewhere."
    ),
]


def show(folder: Path, results: Results | None, *, written: bool) -> None:
    """Prints the closing tables and sentences; `written` says where they lie in full."""
    from overtone.report.table import note, terminal_tables

    if results is None:
        say("No attribute has labels that can be probed, so there is no table.")
        say(f"`overtone evaluate {folder} --data LABELLED` reads labelled data with this run;")
        say(f"`overtone evaluate {folder} --task retrieval` asks which pictures and texts belong together.")
        return
    console = Console()
    for table in terminal_tables(results.linear, results.comparison, "Linear probe", console.width):
        console.print(table)
    say(note(results.linear))
    for sentence in results.sentences:
        say(sentence)
    if written:
        say(f"With kNN beside the linear probe: {folder / 'table.md'} and {folder / 'results.json'}.")


def bars() -> Bars:
    """Progress bars on the terminal."""
    from overtone.progress import Bars

    return Bars(Console())


def say(text: str) -> None:
    """Prints one line, whatever it holds, without breaking it."""
    from overtone.progress import plain

    Console().print(Text(plain(text)), soft_wrap=True)
