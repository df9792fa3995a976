"""The command diagnose: what an encoder ignores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from overtone.cli.output import Trust, bars, say

app = typer.Typer()


@app.command()
def diagnose(
    encoder: Annotated[
        str,
        typer.Argument(
            help="A run folder, timm:MODEL, torchvision:MODEL, open_clip:MODEL:TAG, hf:MODEL, small_cnn or "
            "package.module:Class of yours; with random: before a model, its random weights."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Pictures, any source that `train --data` takes. Default: those of the run."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="With --data FOLDER: a CSV with file_name and a column an attribute.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="The column of captions, whose words become attributes.")
    ] = None,
    statistics: Annotated[
        bool,
        typer.Option(
            "--statistics", help="Ask about brightness, colour, detail, ... also where there are labels."
        ),
    ] = False,
    against: Annotated[
        str | None, typer.Option(help="A second encoder to compare with, named as the first.")
    ] = None,
    stage: Annotated[int | None, typer.Option(help="Of a run, one stage alone.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Of a model: a .safetensors or .pt file instead of published weights.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=8, help="Of a model: height and width that pictures are brought to.")
    ] = None,
    most: Annotated[int, typer.Option(min=20, help="Of more pictures, so many are drawn.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", "-o", help="A .html page or a .json file to write; may be given twice."),
    ] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Take links that leave the data's folder.")
    ] = False,
    trust: Trust = False,
) -> None:
    """See what a frozen encoder ignores, on your own pictures, with or without labels."""
    from overtone.diagnosing import diagnose_named
    from overtone.errors import RecipeError
    from overtone.progress import logging_to

    for path in out or ():
        if path.suffix not in (".html", ".json") or not path.parent.is_dir():
            raise RecipeError(f"--out {path}: expected a file in an existing folder, named *.html or *.json.")
    where: dict[str, Any] = {"labels": labels, "text": text, "follow_links": follow_links or None}
    where = {name: value for name, value in where.items() if value is not None}
    if where and data is None:
        raise RecipeError(f"--{next(iter(where)).replace('_', '-')}: goes with --data.")
    if labels is not None and data is not None and not data.is_dir():
        raise RecipeError(f"--labels {labels}: goes with a folder of images, but --data {data} is none.")
    with bars() as display, logging_to(display):
        found = diagnose_named(
            encoder,
            data,
            display,
            where=where,
            against=against,
            stage=stage,
            weights=weights,
            image_size=image_size,
            statistics=statistics or None,
            most=most,
            seed=seed,
            trust=trust,
        )
    for sentence in found.sentences:
        say(sentence)
    if found.attributes:
        Console().print(found.terminal_table())
    for path in out or ():
        found.save(path)
        say(f"{path}: the page." if path.suffix == ".html" else f"{path}: everything but the pictures.")
