"""The command `overtone`. Heavy imports happen inside the commands, so that `--help` is instant."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from overtone.errors import OvertoneError

_DEBUG = "OVERTONE_DEBUG"  # also of the processes that a command starts

if TYPE_CHECKING:
    from overtone.contracts import Dataset
    from overtone.integration import JointEncoder
    from overtone.progress import Bars
    from overtone.recipe import Recipe
    from overtone.results import Results
    from overtone.study import Study

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train contrastive encoders that miss nothing: multistage contrastive learning on your own data.",
)

data_app = typer.Typer(no_args_is_help=True, help="Look through data before training on them.")
app.add_typer(data_app, name="data")

Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder; one run, one folder.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many times to run everything, each with its own seed.")]
Baselines = Annotated[
    bool,
    typer.Option("--baselines/--no-baselines", help="Also train what the same cost buys without stages."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Import the code that the run's recipe names; it may have come from elsewhere."
    ),
]
FollowLinks = Annotated[bool, typer.Option("--follow-links", help="Take links that leave the data's folder.")]
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

    _line("Pictures of a digit beside a coloured, textured shape. The digit alone tells pictures apart,")
    _line("so a plain encoder stops there; later stages have to learn the rest.")
    _carry_out(parse(RECIPE), out, seeds=seeds, baselines=True, jobs=jobs)


@app.command()
def train(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe (YAML); or give --data.", show_default=False)
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Values to set in the recipe: key.path=value", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A folder of images or tars, .parquet, .npy, .npz or .csv, instead of a recipe."),
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

    given = list(overrides or [])
    if recipe is not None and "=" in str(recipe) and not recipe.exists():
        given, recipe = [str(recipe), *given], None
    if (recipe is None) == (data is None):
        raise RecipeError("train: give either a recipe or --data FOLDER (one of them, not both).")
    if recipe is not None:
        if minutes is not None:
            raise RecipeError("--minutes goes with --data; a recipe says train.epochs.")
        chosen = read(recipe, given)
    else:
        from overtone.auto import recipe_for

        assert data is not None
        chosen = recipe_for(data, given, minutes, seeds=seeds, baselines=baselines, line=_line)
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
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Other labelled data; a fifth of it is kept back to test on. Or a task's."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="With --data FOLDER: a CSV with file_name and a column an attribute.")
    ] = None,
    trust: Trust = False,
    task: Annotated[
        str | None,
        typer.Option(
            help="Of pictures and texts: mmvp (--data: the folder as published), pairs (--data: a CSV with "
            "image_1, image_2, text_1, text_2, pattern), retrieval, zero-shot (--data: labelled pictures).",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="With mmvp and pairs: stands before each statement. Default: 'a photo of '. With zero-shot: "
            "around each class. Default: 'a photo of a {}.'"
        ),
    ] = None,
    errata: Annotated[
        Path | None,
        typer.Option(
            help="With mmvp and pairs: JSON, SHA-256 of an image -> its right statement, or null to leave "
            "its pair out."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="With --task: which encoder of all stages; see `overtone integrate`."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="With --task: a .json file.")] = None,
) -> None:
    """Print the table attribute x stage of a run, or read other data with its encoders."""
    from overtone.errors import RecipeError
    from overtone.integration import load
    from overtone.progress import logging_to
    from overtone.recipe import own_module
    from overtone.results import evaluate_elsewhere, evaluate_study
    from overtone.study import Study

    if task is not None:
        _ask(run, task, data, labels=labels, prompt=prompt, errata=errata, method=method, out=out)
        return
    for name, value in (("--prompt", prompt), ("--errata", errata), ("--method", method), ("--out", out)):
        if value is not None:
            raise RecipeError(f"{name} {value}: goes with --task.")
    if labels is not None and data is None:
        raise RecipeError(f"--labels {labels}: goes with --data FOLDER, whose images it names.")
    study = Study.load(run, trust=trust)
    with _bars() as display, logging_to(display):
        if data is None:
            results = evaluate_study(study)
        else:
            encoder = load(study.home(0), encoder=own_module(study.recipe))
            results = evaluate_elsewhere(study, _opened(encoder, data, labels), display)
    _show(study.folder, results, written=data is None)


@app.command()
def embed(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[Path, typer.Option(help="Images to embed; any source that `train --data` takes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A .npy file, or a .parquet file with the ids.")],
    stage: Annotated[int | None, typer.Option(help="One stage alone, instead of all together.")] = None,
    method: Annotated[
        str, typer.Option(help="Which encoder of all stages; see `overtone integrate`.")
    ] = "concatenated",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 512,
    trust: Trust = False,
) -> None:
    """Embed data with the encoder of a run: one row a sample, in the order of the ids."""
    from overtone.embedding import embed as embed_dataset
    from overtone.errors import RecipeError
    from overtone.integrating import load_integrated
    from overtone.progress import logging_to
    from overtone.recipe import own_module
    from overtone.results import write_parquet
    from overtone.study import Study

    if out.suffix not in (".npy", ".parquet") or not out.parent.is_dir():
        raise RecipeError(f"--out {out}: expected a file in an existing folder, named *.npy or *.parquet.")
    study = Study.load(run, trust=trust)
    encoder = load_integrated(study.home(0), method, own_module(study.recipe))
    if stage is not None and not 0 <= stage < len(encoder.stages):
        raise RecipeError(f"--stage {stage}: the run has stages 0 to {len(encoder.stages) - 1}.")
    dataset = _opened(encoder, data, None)
    chosen = encoder if stage is None else encoder.stages[stage]
    with _bars() as display, logging_to(display):
        advance, device = partial(display.advance, "embeds"), study.recipe.device
        place = out if out.suffix == ".npy" else None
        made = embed_dataset(
            chosen, dataset, batch_size=batch_size, device=device, out=place, progress=advance
        )
        if place is None:
            write_parquet(out, dataset.ids, made)
    _line(f"{out}: {len(dataset):,} embeddings of {chosen.dim} values.")


@app.command()
def integrate(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    method: Annotated[
        str, typer.Option(help="concatenated, weighted, projected, whitened or distilled.")
    ] = "distilled",
    dim: Annotated[int | None, typer.Option(help="Of projected and whitened: the width.")] = None,
    weights: Annotated[str | None, typer.Option(help="Of weighted: one a stage, such as 1,2,1.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of distilled; default: twice those of all stages.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Make one encoder of all stages, and print the table with it beside them."""
    from overtone.integrating import integrate as integrate_run
    from overtone.integrating import integrated
    from overtone.progress import logging_to
    from overtone.results import evaluate_study
    from overtone.study import Study

    study, given = Study.load(run, trust=trust), _numbers(weights)
    with _bars() as display, logging_to(display):
        options: dict[str, Any] = {"dim": dim, "weights": given, "epochs": epochs}
        made = integrate_run(run, method, **options, trust=trust, display=display)
        results = evaluate_study(study)
    _show(study.folder, results, written=True)
    _line(f"overtone.load({str(integrated(study.home(0), method))!r}) gives {made.dim} values a sample.")


@data_app.command("index")
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

    with _bars() as display, logging_to(display):
        index = tar_index(
            shards_of(path, follow_links), cache_dir, partial(display.advance, "looks for members")
        )
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in index.kinds().items())
    _line(f"{path}: {len(index.paths):,} tars, {len(index.ids):,} keys: {kinds or 'nothing known'}.")
    if index.ignored:
        _line(f"{index.ignored:,} members of other kinds are not read.")
    for what, why in index.remarks:
        _line(f"left out: {what}: {why}")


@data_app.command("check")
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
    from overtone.progress import logging_to

    given = {"text": text, "image": image, "root": root, "follow_links": follow_links or None}
    with _bars() as display, logging_to(display, logging.WARNING):
        found = check(
            path,
            partial(display.advance, "reads pictures"),
            **{name: value for name, value in given.items() if value is not None},
        )
    for line in found.lines:
        _line(line)
    if listed is not None:
        found.write(listed)
        _line(f"{listed}: each of them with the reason.")
    found.require(max_bad_fraction)


@data_app.command("blind-pairs")
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

    with _bars() as display, logging_to(display):
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
        _line(
            f"{found.n:,} pictures: no two are alike for {encoder} (cosine above {alike:g}) and different "
            f"for {other} (below {different:g}); nothing is written. Try a lower --alike."
        )
        return
    _line(f"{out}: {len(found.pairs):,} pairs of {found.n:,} pictures; {found.sheet} shows the first.")
    _line(
        "Look at each: write what is true of one picture alone into text_1 and text_2, what they differ in "
        f"into pattern, and remove the other rows; then `overtone evaluate RUN --task pairs --data {out}`."
    )


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


def _carry_out(recipe: Recipe, out: Path, *, seeds: int, baselines: bool, jobs: int | None) -> None:
    from overtone.recipe import resolved
    from overtone.study import Study

    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that torchrun started on this machine
    processes = max(beside, _processes(jobs, seeds * (4 if baselines else 1)) if beside == 1 else 1)
    threads = recipe.threads or max(1, (os.cpu_count() or 1) // processes)
    study = Study(resolved(recipe.model_copy(update={"threads": threads})), out, seeds, baselines)
    _finish(study, processes)


def _finish(study: Study, jobs: int | None) -> None:
    from contextlib import ExitStack

    from overtone import distributed, failures
    from overtone.progress import Silent, logging_to
    from overtone.results import evaluate_study
    from overtone.study import carry_out, working_in

    all_jobs = study.jobs()
    with distributed.joined(), ExitStack() as stack:
        stack.enter_context(distributed.by_first(lambda: working_in(study.folder)))
        display = stack.enter_context(_bars()) if distributed.is_first() else Silent()
        with distributed.together():
            if distributed.is_first():
                study.save()
        stack.enter_context(distributed.by_first(lambda: failures.kept(study.folder)))
        carry_out(all_jobs, display, _processes(jobs, len(all_jobs)))
        with logging_to(display):
            results = evaluate_study(study)
        first = distributed.is_first()
    if not first:
        return
    _show(study.folder, results, written=True)
    _line(f"Use it: `overtone embed {study.folder} --data ... --out embeddings.npy`, or in Python")
    _line(f"overtone.load({str(study.home(0))!r}).encode(...)")


def _ask(
    run: Path,
    task: str,
    data: Path | None,
    *,
    labels: Path | None,
    prompt: str | None,
    errata: Path | None,
    method: str | None,
    out: Path | None,
) -> None:
    from overtone import artifacts
    from overtone.errors import RecipeError
    from overtone.image_text import ask
    from overtone.progress import logging_to

    unused: dict[str, object] = {"--labels": labels}
    if task in ("retrieval", "zero-shot"):
        unused["--errata"] = errata
    if task == "retrieval":
        unused["--prompt"] = prompt
    for name, value in unused.items():
        if value is not None:
            raise RecipeError(f"{name} {value}: does not go with --task {task}.")
    if out is not None and (out.suffix != ".json" or not out.parent.is_dir()):
        raise RecipeError(f"--out {out}: expected a file in an existing folder, named *.json.")
    with _bars() as display, logging_to(display):
        made = method or "concatenated"
        answer = ask(run, task, data, display, prompt=prompt, errata=errata, method=made)
    for table in answer.tables:
        Console().print(table)
    for sentence in answer.sentences:
        _line(sentence)
    if out is not None:
        given_data = None if data is None else str(data)
        artifacts.write_json(
            out, {"task": task, "run": str(run), "method": made, "data": given_data, **answer.record}
        )
        _line(f"In full: {out}.")


def _processes(jobs: int | None, n_jobs: int) -> int:
    """Small networks train nearly twice as fast one a core as over two threads; a GPU takes one at a time."""
    import torch

    return jobs or (1 if torch.cuda.is_available() else min(n_jobs, os.cpu_count() or 1))


def _opened(encoder: JointEncoder, data: Path, labels: Path | None) -> Dataset:
    """Other data, brought to the size and the channels that the run was trained on."""
    from overtone.datasets import open_dataset
    from overtone.errors import RecipeError

    if encoder.modality != "image":
        raise RecipeError(
            f"--data: this run was trained on `{encoder.modality}`, and files are read as images alone; "
            "in Python, overtone.load(RUN).encode(batch) takes a batch of yours."
        )
    if labels is not None and not data.is_dir():
        raise RecipeError(f"--labels {labels}: goes with a folder of images, but --data {data} is none.")
    shape = encoder.content["shape"]
    options: dict[str, Any] = {} if labels is None else {"labels": labels}
    fit = encoder.content.get("fit", "crop")
    dataset: Dataset = open_dataset(data, image_size=tuple(shape[1:]), channels=shape[0], fit=fit, **options)
    return dataset


def _show(folder: Path, results: Results | None, *, written: bool) -> None:
    from overtone.report.table import note, terminal_tables

    if results is None:
        _line("No attribute has labels that can be probed, so there is no table.")
        _line(f"`overtone evaluate {folder} --data LABELLED` reads labelled data with this run;")
        _line(f"`overtone evaluate {folder} --task retrieval` asks which pictures and texts belong together.")
        return
    console = Console()
    for table in terminal_tables(results.linear, results.comparison, "Linear probe", console.width):
        console.print(table)
    _line(note(results.linear))
    for sentence in results.sentences:
        _line(sentence)
    if written:
        _line(f"With kNN beside the linear probe: {folder / 'table.md'} and {folder / 'results.json'}.")


def _numbers(given: str | None) -> list[float] | None:
    from overtone.errors import RecipeError

    try:
        return None if given is None else [float(number) for number in given.split(",")]
    except ValueError:
        raise RecipeError(f"--weights {given}: expected numbers with commas between them.") from None


def _bars() -> Bars:
    from overtone.progress import Bars

    return Bars(Console())


def _line(text: str) -> None:
    from overtone.progress import plain

    Console().print(Text(plain(text)), soft_wrap=True)
