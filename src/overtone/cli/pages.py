"""The commands that write pages to look at: report, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from overtone.cli.output import Trust, say

app = typer.Typer()


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder, of a finished run or not.")],
    trust: Trust = False,
) -> None:
    """Write the page of a run: what each stage learned, in pictures and figures."""
    from overtone.reporting import report as write

    say(f"Look at {write(run, trust=trust)} in a browser.")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, two or more.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("compare.html"),
    trust: Trust = False,
) -> None:
    """Write a page that shows runs side by side."""
    from overtone.comparing import compare as write

    say(f"Look at {write(runs, out, trust=trust)} in a browser.")
