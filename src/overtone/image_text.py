"""What an encoder of pictures and texts is asked when it is trained: `overtone evaluate RUN --task ...`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from rich.table import Table

from overtone.contracts import Dataset, TwoTowers
from overtone.datasets import Pair, open_dataset
from overtone.errors import DataError, RecipeError
from overtone.evaluation.mmvp import read_mmvp
from overtone.evaluation.pairs import PairScores, Read, corrected, image_reader, pair_accuracy
from overtone.evaluation.pairs_csv import read_pairs
from overtone.evaluation.retrieval import retrieval
from overtone.evaluation.zero_shot import TEMPLATES, zero_shot_accuracy
from overtone.integrating import load_integrated
from overtone.progress import Display
from overtone.recipe import open_data, own_module
from overtone.report.pairs import Share, pairs_note, pairs_table, retrieval_table, shares_table
from overtone.study import Study

logger = logging.getLogger(__name__)

PAIRS: dict[str, Callable[[Path], list[Pair]]] = {"mmvp": read_mmvp, "pairs": read_pairs}
TASKS = (*PAIRS, "retrieval", "zero-shot")
PROMPT = "a photo of "


class Answer(NamedTuple):
    """What a task found: tables and sentences for a person, and a record for JSON."""

    tables: list[Table]
    sentences: list[str]
    record: dict[str, Any]


class Towers(NamedTuple):
    """A two-tower encoder, and how pictures in files are brought to what it was trained on."""

    encoder: TwoTowers
    shape: tuple[int, int, int]
    fit: Any


def two_tower_encoder(run: Path, method: str = "concatenated", *, trust: bool = False) -> Towers:
    """The encoder that a method made of a finished run; of a run with several seeds, that of the first.

    Raises:
        RunError: There is no finished run, or the method was not carried out.
        RecipeError: Its encoder reads no texts.
    """
    study = Study.load(run, trust=trust)
    if study.seeds > 1:
        logger.info("%s: of %d runs with a seed each, the first is asked.", run, study.seeds)
    encoder = load_integrated(study.home(0), method, own_module(study.recipe))
    if not encoder.has_two_towers:
        raise RecipeError(
            f"{run}: this run's encoder ({method}) reads `{encoder.modality}` alone, it has no encode_text; "
            "--task needs one trained on pictures with captions, concatenated or weighted."
        )
    channels, height, width = encoder.content["shape"]
    fit = encoder.content.get("fit", "crop")
    return Towers(cast(TwoTowers, encoder), (channels, height, width), fit)


def ask(
    run: Path,
    task: str,
    data: Path | None,
    display: Display,
    *,
    prompt: str | None = None,
    errata: Path | None = None,
    method: str = "concatenated",
    trust: bool = False,
) -> Answer:
    """Carries out a task.

    Args:
        run: A finished run of an encoder of pictures and texts.
        task: "mmvp": MMVP-VLM, a folder as published. "pairs": blind pairs of one's own, a CSV file.
            "retrieval": pictures with a text each; "zero-shot": labelled pictures, each given the class whose
            name is nearest. Without `data`, of both those that the run is tested on.
        data: Where they lie.
        display: Shows how far it is.
        prompt: Of pairs, what stands before each statement, `PROMPT` by default; of zero-shot classes,
            around each name, which takes the place of `{}`.
        method: Which encoder of all stages is asked, see `overtone.integrating.integrate`.
        errata: Of pairs, corrections: see `read_errata`. The score is then given without and with them.
        trust: Import the code that the run's recipe names, if it does; the folder may come from elsewhere.

    Raises:
        RecipeError: The task is unknown or lacks what it needs, or the encoder reads no texts.
        DataError: The data are not what the task takes.
    """
    if task not in TASKS:
        raise RecipeError(f"--task {task}: unknown; expected one of {', '.join(TASKS)}.")
    if task in PAIRS:
        if data is None:
            raise RecipeError(f"--task {task}: which pairs? Give them by --data.")
        pairs, wrong = PAIRS[task](data), None if errata is None else read_errata(errata)
        towers = two_tower_encoder(run, method, trust=trust)
        read = image_reader(towers.shape[1:], towers.shape[0], towers.fit)
        return asked_pairs(towers.encoder, pairs, PROMPT if prompt is None else prompt, read, wrong)
    towers = two_tower_encoder(run, method, trust=trust)
    dataset = _tested_on(run, trust) if data is None else _opened(data, towers)
    if task == "zero-shot":
        return _zero_shot(towers.encoder, dataset, TEMPLATES if prompt is None else (prompt,))
    found = retrieval(towers.encoder, dataset, progress=partial(display.advance, "embeds"))
    said = (
        f"Recall in percent, {found.n:,} pictures and {found.n_texts:,} different texts; equal texts are "
        "right for each other's pictures."
    )
    return Answer([retrieval_table(found, "Retrieval")], [said], found._asdict())


def _zero_shot(encoder: TwoTowers, dataset: Dataset, templates: Sequence[str]) -> Answer:
    if not dataset.labels:
        raise DataError("zero-shot: the data have no labels; expected class folders, or columns of labels.")
    found = {
        name: Share(
            zero_shot_accuracy(encoder, dataset, name, templates=templates),
            100 / len(dataset.label_names[name]),
            int((codes >= 0).sum()),
        )
        for name, codes in dataset.labels.items()
    }
    said = f"The nearest of the names of the classes, each as {templates[0]!r}."
    return Answer(
        [shares_table(found, "Zero-shot classes")],
        [said],
        {"templates": list(templates), "attributes": {name: each._asdict() for name, each in found.items()}},
    )


def asked_pairs(
    encoder: TwoTowers,
    pairs: list[Pair],
    prompt: str,
    read: Read,
    errata: Mapping[str, str | None] | None = None,
) -> Answer:
    """Scores pairs as they are and, where there are corrections, also with them."""
    official = pair_accuracy(encoder, pairs, prompt, read=read)
    if errata is None:
        return Answer(
            [pairs_table(official, "Blind pairs")],
            [pairs_note(official)],
            {"prompt": prompt, "official": _record(official)},
        )
    mended = corrected(pairs, errata)
    again = pair_accuracy(encoder, mended.pairs, prompt, read=read)
    said = (
        f"Corrected: {mended.changed} statements changed, {mended.left_out} pairs left out; {mended.unused} "
        f"of {len(errata)} corrections are of pictures that are not among these."
    )
    counts = {name: getattr(mended, name) for name in ("changed", "left_out", "unused")}
    return Answer(
        [pairs_table(official, "Blind pairs, official"), pairs_table(again, "Blind pairs, corrected")],
        [pairs_note(official), said, pairs_note(again)],
        {"prompt": prompt, "official": _record(official), "corrected": {**_record(again), **counts}},
    )


def read_errata(path: Path) -> dict[str, str | None]:
    """Corrections of pairs, a JSON object: SHA-256 of an image file -> its right statement, or null.

    Null leaves the pair out.

    Raises:
        DataError: The file is not of this kind.

    >>> read_errata(Path("nowhere.json"))
    Traceback (most recent call last):
    overtone.errors.DataError: nowhere.json: cannot be read: No such file or directory.
    """
    try:
        errata = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{path}: no JSON in UTF-8: {error}.") from None
    if not isinstance(errata, dict):
        raise DataError(f"{path}: expected an object, digest -> statement or null.")
    for digest, text in errata.items():
        is_digest = len(digest) == 64 and set(digest) <= set("0123456789abcdef")
        if not is_digest or not (text is None or (isinstance(text, str) and text.strip())):
            raise DataError(
                f"{path}: {digest!r}: {text!r}; expected the SHA-256 of an image file in lower-case hex, and "
                "its right statement or null."
            )
    return errata


def _record(scores: PairScores) -> dict[str, Any]:
    return {
        "mean": scores.mean,
        "all": scores.all._asdict(),
        "patterns": {name: score._asdict() for name, score in scores.patterns.items()},
    }


def _tested_on(run: Path, trust: bool) -> Dataset:
    study = Study.load(run, trust=trust)
    dataset, test = open_data(study.recipe, cache_dir=study.cache)
    return dataset if test is None else test


def _opened(data: Path, towers: Towers) -> Dataset:
    channels, height, width = towers.shape
    return open_dataset(data, image_size=(height, width), channels=channels, fit=towers.fit)
