"""The commands that ask what was trained: evaluate, embed, integrate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from overtone.cli.output import Trust, bars, say, show

if TYPE_CHECKING:
    from overtone.contracts import Dataset
    from overtone.integration import JointEncoder

app = typer.Typer()

Image = Annotated[
    str | None, typer.Option(help="Of --data: the column of pictures, or of their paths, as `data check`.")
]
Text = Annotated[
    str | None,
    typer.Option(help="Of --data: the column of texts; of tars and folders txt, or json:FIELD."),
]


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
    image: Image = None,
    text: Text = None,
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

    where = {"image": image, "text": text}
    if task is not None:
        unused: dict[str, object] = {"--labels": labels, "--image": image, "--text": text}
        _ask(run, task, data, unused, prompt=prompt, errata=errata, method=method, out=out, trust=trust)
        return
    for name, value in (("--prompt", prompt), ("--errata", errata), ("--method", method), ("--out", out)):
        if value is not None:
            raise RecipeError(f"{name} {value}: goes with --task.")
    if labels is not None and data is None:
        raise RecipeError(f"--labels {labels}: goes with --data FOLDER, whose images it names.")
    for name, column in where.items():
        if column is not None and data is None:
            raise RecipeError(f"--{name} {column}: goes with --data, where it says what lies where.")
    study = Study.load(run, trust=trust)
    with bars() as display, logging_to(display):
        if data is None:
            results = evaluate_study(study)
        else:
            encoder = load(study.home(0), encoder=own_module(study.recipe))
            results = evaluate_elsewhere(study, _opened(encoder, data, labels=labels, **where), display)
    show(study.folder, results, written=data is None)


@app.command()
def embed(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[Path, typer.Option(help="Images to embed; any source that `train --data` takes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A .npy file, or a .parquet file with the ids.")],
    stage: Annotated[int | None, typer.Option(help="One stage alone, instead of all together.")] = None,
    method: Annotated[
        str, typer.Option(help="Which encoder of all stages; see `overtone integrate`.")
    ] = "concatenated",
    image: Image = None,
    text: Text = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 512,
    trust: Trust = False,
) -> None:
    """Embed data with the encoder of a run: one row a sample, in the order of the ids."""
    from overtone.embedding import embed as embed_dataset
    from overtone.errors import RecipeError
    from overtone.integrating import load_integrated
    from overtone.progress import logging_to
    from overtone.recipe import device_name, own_module
    from overtone.results import write_parquet
    from overtone.study import Study

    if out.suffix not in (".npy", ".parquet") or not out.parent.is_dir():
        raise RecipeError(f"--out {out}: expected a file in an existing folder, named *.npy or *.parquet.")
    study = Study.load(run, trust=trust)
    encoder = load_integrated(study.home(0), method, own_module(study.recipe))
    if stage is not None and not 0 <= stage < len(encoder.stages):
        raise RecipeError(f"--stage {stage}: the run has stages 0 to {len(encoder.stages) - 1}.")
    dataset = _opened(encoder, data, image=image, text=text)
    chosen = encoder if stage is None else encoder.stages[stage]
    with bars() as display, logging_to(display):
        advance, device = partial(display.advance, "embeds"), device_name("auto")
        place = out if out.suffix == ".npy" else None
        made = embed_dataset(
            chosen, dataset, batch_size=batch_size, device=device, out=place, progress=advance
        )
        if place is None:
            write_parquet(out, dataset.ids, made)
    say(f"{out}: {len(dataset):,} embeddings of {chosen.dim} values.")


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
    from overtone.integrating import integrated, is_named
    from overtone.progress import logging_to
    from overtone.results import evaluate_study
    from overtone.study import Study

    study, given = Study.load(run, trust=trust), _numbers(weights)
    with bars() as display, logging_to(display):
        options: dict[str, Any] = {"dim": dim, "weights": given, "epochs": epochs}
        made = integrate_run(run, method, **options, trust=trust, display=display)
        results = evaluate_study(study) if is_named(study.recipe, "data") else None
    if is_named(study.recipe, "data"):
        show(study.folder, results, written=True)
    else:
        say("No table: the data of this run were given from Python, and its folder does not hold them.")
    say(f"overtone.load({str(integrated(study.home(0), method))!r}) gives {made.dim} values a sample.")


def _ask(
    run: Path,
    task: str,
    data: Path | None,
    unused: dict[str, object],
    *,
    prompt: str | None,
    errata: Path | None,
    method: str | None,
    out: Path | None,
    trust: bool,
) -> None:
    from overtone import artifacts
    from overtone.errors import RecipeError
    from overtone.image_text import ask
    from overtone.progress import logging_to

    if task in ("retrieval", "zero-shot"):
        unused = {**unused, "--errata": errata}
    if task == "retrieval":
        unused = {**unused, "--prompt": prompt}
    for name, value in unused.items():
        if value is not None:
            raise RecipeError(f"{name} {value}: does not go with --task {task}.")
    if out is not None and (out.suffix != ".json" or not out.parent.is_dir()):
        raise RecipeError(f"--out {out}: expected a file in an existing folder, named *.json.")
    with bars() as display, logging_to(display):
        made = method or "concatenated"
        answer = ask(run, task, data, display, prompt=prompt, errata=errata, method=made, trust=trust)
    for table in answer.tables:
        Console().print(table)
    for sentence in answer.sentences:
        say(sentence)
    if out is not None:
        given_data = None if data is None else str(data)
        artifacts.write_json(
            out, {"task": task, "run": str(run), "method": made, "data": given_data, **answer.record}
        )
        say(f"In full: {out}.")


def _opened(
    encoder: JointEncoder,
    data: Path,
    *,
    labels: Path | None = None,
    image: str | None = None,
    text: str | None = None,
) -> Dataset:
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
    given = {"labels": labels, "image": image, "text": text}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    fit = encoder.content.get("fit", "crop")
    dataset: Dataset = open_dataset(data, image_size=tuple(shape[1:]), channels=shape[0], fit=fit, **options)
    return dataset


def _numbers(given: str | None) -> list[float] | None:
    from overtone.errors import RecipeError

    try:
        return None if given is None else [float(number) for number in given.split(",")]
    except ValueError:
        raise RecipeError(f"--weights {given}: expected numbers with commas between them.") from None
