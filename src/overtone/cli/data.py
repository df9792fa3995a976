"""The commands that look through data: data index, data check, data blind-pairs."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from overtone.cli.output import Trust, bars, say

app = typer.Typer(no_args_is_help=True, help="Look through data before training on them.")

FollowLinks = Annotated[bool, typer.Option("--follow-links", help="Take links that leave the data's folder.")]


@app.command("index")
def data_index(
    path: Annotated[
        Path, typer.Argument(help="A folder of .tar files, one, or a pattern as '{000..099}.tar'.")
    ],
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where to keep the index. Default: beside the tars.")
    ] = None,
    follow_links: FollowLinks = False,
) -> None:
    """Find where in tar shards each picture and text lies, once, and print what there is."""
    from overtone.datasets.tar_index import tar_index
    from overtone.datasets.webdataset import shards_of
    from overtone.progress import logging_to

    with bars() as display, logging_to(display):
        index = tar_index(
            shards_of(path, follow_links), cache_dir, partial(display.advance, "looks for members")
        )
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in index.kinds().items())
    say(f"{path}: {len(index.paths):,} tars, {len(index.ids):,} keys: {kinds or 'nothing known'}.")
    if index.ignored:
        say(f"{index.ignored:,} members of other kinds are not read.")
    for what, why in index.remarks:
        say(f"left out: {what}: {why}")


@app.command("check")
def data_check(
    path: Annotated[Path, typer.Argument(help="Any source that `train --data` takes.")],
    text: Annotated[
        str | None, typer.Option(help="The column of texts; of tars and folders txt, or json:FIELD.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="The column of pictures, or of their paths.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Of a table of paths: the folder they start from.")
    ] = None,
    max_bad_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="More than this ends with exit code 3.")
    ] = 0.01,
    listed: Annotated[
        Path | None, typer.Option("--list", help="A CSV file to write: what cannot be used, and why.")
    ] = None,
    follow_links: FollowLinks = False,
) -> None:
    """Read everything once: what is unpaired, unreadable, empty or double, and how large it is."""
    from overtone.datasets.checking import check
    from overtone.errors import RecipeError
    from overtone.progress import logging_to

    if listed is not None and (listed.is_dir() or not listed.parent.is_dir()):
        raise RecipeError(f"--list {listed}: expected a file in an existing folder, such as bad.csv.")
    given = {"text": text, "image": image, "root": root, "follow_links": follow_links or None}
    with bars() as display, logging_to(display, logging.WARNING):
        found = check(
            path,
            partial(display.advance, "reads pictures"),
            **{name: value for name, value in given.items() if value is not None},
        )
    for line in found.lines:
        say(line)
    if listed is not None:
        found.write(listed)
        say(f"{listed}: each of them with the reason.")
    found.require(max_bad_fraction)


@app.command("blind-pairs")
def data_blind_pairs(
    path: Annotated[Path, typer.Argument(help="Pictures, any source that `train --data` takes.")],
    encoder: Annotated[
        str,
        typer.Option(
            help="May be blind: a run folder, open_clip:MODEL:TAG, hf:MODEL, timm:MODEL, torchvision:MODEL "
            "or a .npy file with a row a picture."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new .csv file.")],
    other: Annotated[str, typer.Option(help="Sees the difference: the same, or pixels.")] = "pixels",
    alike: Annotated[float, typer.Option(help="For --encoder the cosine of a pair is above.")] = 0.95,
    different: Annotated[float, typer.Option(help="For --other the cosine is below.")] = 0.6,
    most: Annotated[int, typer.Option(min=1, help="Pairs at most, the clearest first.")] = 300,
    per_picture: Annotated[int, typer.Option(min=1, help="Pairs at most with the same picture.")] = 1,
    trust: Trust = False,
) -> None:
    """Find pictures that are alike for one encoder and different for another: candidates for blind pairs."""
    from overtone.finding_pairs import find_pairs
    from overtone.progress import logging_to

    with bars() as display, logging_to(display):
        found = find_pairs(
            path,
            encoder,
            out,
            display,
            other=other,
            alike=alike,
            different=different,
            most=most,
            per_picture=per_picture,
            trust=trust,
        )
    if not found.pairs:
        say(
            f"{found.n:,} pictures: no two are alike for {encoder} (cosine above {alike:g}) and different "
            f"for {other} (below {different:g}); nothing is written. Try a lower --alike."
        )
        return
    say(f"{out}: {len(found.pairs):,} pairs of {found.n:,} pictures; {found.sheet} shows the first.")
    say(
        "Look at each: write what is true of one picture alone into text_1 and text_2, what they differ in "
        f"into pattern, and remove the other rows; then `overtone evaluate RUN --task pairs --data {out}`."
    )
