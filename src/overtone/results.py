"""What a study found: every attribute read from every stage, from all together, and from the baselines."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import nn

from overtone import artifacts, distributed
from overtone.contracts import Dataset
from overtone.embedding import embed
from overtone.errors import RunError
from overtone.evaluation import Score, evaluate_attributes, split_labelled
from overtone.identities import Copies, counted
from overtone.integrating import TAKES, encoder_of, integrated, is_integrated
from overtone.integration import concatenated, load
from overtone.levers.hiding import hidden_stages, kept_erasing, kept_saliency
from overtone.levers.identities import identities_kept
from overtone.partition import Partition
from overtone.progress import Display
from overtone.recipe import device_name, open_data, own_module
from overtone.report.erased import erased_sheet
from overtone.report.gallery import cell_gallery, cell_purity, purity_sentence
from overtone.report.table import Comparison, Row, kept, markdown_table, table_records, verdict
from overtone.run_folder import embeddings_of, ended, stage_folder
from overtone.study import Study, baseline_folder
from overtone.text import utf8

logger = logging.getLogger(__name__)

Codes = dict[str, NDArray[np.int64]]
Scores = dict[str, dict[tuple[str, str], Score]]
"""Column -> (attribute, probe) -> what the probe reads from it."""
Columns = dict[str, list[tuple[Path, int]]]
"""Column -> the encoders it reads side by side, each a run and the number of its stage."""

LONGER = "1 plain, as long"
ALL, AS_MANY = "all stages", "as many plain"  # where seeds have stopped at different stages


class ProbeSets(NamedTuple):
    """Which embeddings the probes learn from and which they are asked about, with their labels."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    has_test_set: bool
    train_labels: Codes
    test_labels: Codes

    def __str__(self) -> str:
        origin = "the test set" if self.has_test_set else "a fifth of them all, kept back from the probes"
        return f"{len(self.test):,} samples: {origin}"


class Results(NamedTuple):
    """The closing tables, one a probe, and what can be said of the first."""

    linear: list[Row]
    knn: list[Row]
    comparison: Comparison
    sentences: list[str]
    n_test: dict[str, int]


def evaluate(encoder: nn.Module, dataset: Dataset, test: Dataset | None = None) -> list[Score]:
    """Reads every attribute of a data set from the embeddings of an encoder, by a linear probe and by kNN.

    Args:
        encoder: Takes a batch, gives (B, D): what `overtone.load` returns, a stage of it, or your own.
        dataset: The probes learn from it; it needs labels.
        test: The probes are asked about it; without one, about a fifth of `dataset` kept back.

    >>> from overtone.datasets import trifeature
    >>> from overtone.encoders import build_encoder
    >>> scores = evaluate(build_encoder("small_cnn"), trifeature(200, image_size=16))
    >>> sorted({score["attribute"] for score in scores})
    ['colour', 'shape', 'texture']
    """
    sets = probe_sets(dataset, test)
    train = embed(encoder, dataset)
    asked = train if test is None else embed(encoder, test)
    return evaluate_attributes(train[sets.train], sets.train_labels, asked[sets.test], sets.test_labels)


Reader = Callable[[Path, int], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""The embeddings that the probes learn from and are asked about, of a run and one of its stages."""


def evaluate_study(study: Study) -> Results | None:
    """Probes everything that a study trained; writes `results.json`, `table.md` and pictures of the levers.

    Of several processes, each reads some of the columns, and the first gives the results.

    Returns:
        None where no attribute has labels.

    Raises:
        RunError: A run of it is not finished.
    """
    with distributed.together():
        _require_finished(study)
    dataset, test = distributed.in_turn(partial(open_data, study.recipe, cache_dir=study.cache))
    with distributed.together():
        sets = probe_sets(dataset, test)
        if distributed.is_first():
            write_pictures(study.home(0), dataset, study.n_stages(0), study.recipe.seed)
    results = _read(study, sets, partial(embeddings_kept, sets))
    with distributed.together():
        if results is not None:
            results.sentences.extend(why_ended(study))
            copies = counted(identities_kept(study.home(0)), getattr(dataset, "texts", None))
            if copies.copies:
                results.sentences.append(f"Never negatives of each other: {copies}.")
            _write(study, results, copies)
    return results


def evaluate_elsewhere(study: Study, dataset: Dataset, display: Display) -> Results | None:
    """Probes other data with the encoders of a study; writes nothing.

    Returns:
        None where no attribute has labels.
    """
    _require_finished(study)
    sets = probe_sets(dataset, None)

    def made(home: Path, stage: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        encoder = encoder_of(home, stage, own_module(study.recipe))
        embeddings = embed(
            encoder, dataset, device=device_name("auto"), progress=partial(display.advance, "embeds")
        )
        return embeddings[sets.train], embeddings[sets.test]

    return _read(study, sets, cache(made))


def why_ended(study: Study) -> list[str]:
    """One sentence a seed, where the run was to decide it: why it has trained no more stages."""
    if study.recipe.stop != "auto":
        return []
    ends = {seed: ended(study.home(seed)) for seed in range(study.seeds)}
    named = "Seed {}: {}" if study.seeds > 1 else "{1}"
    return [named.format(seed, end[1]) for seed, end in ends.items() if end is not None]


def _require_finished(study: Study) -> None:
    for job in study.jobs():
        if not artifacts.is_complete(job.folder / "encoder"):
            raise RunError(
                f"{job.folder}: this run is not finished; finish it with `overtone resume {study.folder}`."
            )


def embeddings_kept(
    sets: ProbeSets, home: Path, stage: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a stage of a run left behind, for the probes to learn from and to be asked about."""
    train = embeddings_of(home, stage)
    return train[sets.train], (embeddings_of(home, stage, "test") if sets.has_test_set else train)[sets.test]


def levers_kept(home: Path, n_stages: int) -> list[dict[str, Any]]:
    """What each stage was trained with: `coverage` of its batches, and how `cells` and `erasing` were chosen.

    Coverage names the cells of a batch, the negatives of an anchor and the samples that an epoch uses; see
    `overtone.sampling.Coverage`. A stage that was given and not trained has none.
    """
    places = {
        "coverage": "coverage.json",
        "cells": "partition/choice.json",
        "erasing": "erasing/choice.json",
    }
    stages = [stage_folder(home, stage) for stage in range(n_stages)]
    return [
        {key: artifacts.read_json(stage / place) for key, place in places.items() if (stage / place).exists()}
        for stage in stages
    ]


def write_parquet(path: Path, ids: Sequence[str], embeddings: NDArray[np.float32]) -> None:
    """Writes embeddings (N, D) as a table of `id` and `embedding`, whole or not at all.

    Bytes of an id that are no UTF-8, which a table cannot hold, are written as backslash and code.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(map(utf8, ids))
    values = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), embeddings.shape[1])
    beside = path.with_name(f".{path.name}.writing")
    with artifacts.disk_errors(path):
        beside.unlink(missing_ok=True)  # it might be a link
        pq.write_table(pa.table({"id": pa.array(names), "embedding": values}), beside)
        beside.replace(path)


def columns(home: Path, n_stages: int, baselines: bool, even: bool = True) -> Columns:
    """The columns of the table of a run of so many stages; not `even`: other seeds have other numbers."""
    stages = [(home, stage) for stage in range(n_stages)]
    shown: Columns = {}
    if baselines:
        shown["random weights"] = [(baseline_folder(home, "random"), 0)]
    shown |= {f"stage {stage}": [stages[stage]] for stage in range(n_stages)}
    shown |= {f"stages 0-{last}": stages[: last + 1] for last in range(1, n_stages)}
    if not even:
        shown[ALL] = stages
    if baselines and (n_stages > 1 or not even):
        plain = [(baseline_folder(home, f"plain-{number}"), 0) for number in range(1, n_stages)]
        shown[f"{n_stages} plain" if even else AS_MANY] = [stages[0], *plain]
        shown[LONGER] = [(baseline_folder(home, "long"), 0)] if n_stages > 1 else stages
    return shown


def columns_of_seeds(study: Study) -> list[Columns]:
    """The columns that all seeds of a study have; they may have stopped at different stages."""
    counts = [study.n_stages(seed) for seed in range(study.seeds)]
    even = len(set(counts)) == 1
    shown = [columns(study.home(seed), n, study.baselines, even) for seed, n in enumerate(counts)]
    common = [name for name in shown[0] if all(name in own for own in shown)]
    return [{name: own[name] for name in common} for own in shown]


def comparison_of(study: Study) -> Comparison:
    """Which of its columns hold the result and the baselines."""
    counts = [study.n_stages(seed) for seed in range(study.seeds)]
    last, even = counts[0] - 1, len(set(counts)) == 1
    compared = study.baselines and max(counts) > 1
    return Comparison(
        ALL if not even else f"stages 0-{last}" if last else "stage 0",
        ensemble=(f"{counts[0]} plain" if even else AS_MANY) if compared else None,
        longer=LONGER if compared else None,
    )


def read_columns(
    columns: Mapping[str, Sequence[tuple[Path, int]]], sets: ProbeSets, reader: Reader, normalise: str
) -> Scores:
    """What the probes read from the encoders of each column side by side."""
    read: Scores = {}
    for column, parts in columns.items():
        train, test = (
            concatenated(side, normalise) for side in zip(*(reader(*part) for part in parts), strict=True)
        )
        read[column] = _scores(train, test, sets)
    return read


def read_integrated(
    home: Path, method: str, n_stages: int, sets: ProbeSets, reader: Reader, module: nn.Module | None
) -> Scores:
    """What the probes read from the encoder that a method made of the stages of a run, as a column."""
    place = integrated(home, method)
    if method == "distilled":
        return {method: _scores(*reader(place, 0), sets)}
    encoder = load(place, encoder=module)
    sides = zip(*(reader(home, stage) for stage in range(n_stages)), strict=True)
    with torch.inference_mode():
        train, test = (encoder.join([torch.from_numpy(np.array(e)) for e in side]).numpy() for side in sides)
    return {method: _scores(train, test, sets)}


def _scores(
    train: NDArray[np.float32], test: NDArray[np.float32], sets: ProbeSets
) -> dict[tuple[str, str], Score]:
    scores = evaluate_attributes(train, sets.train_labels, test, sets.test_labels)
    return {(score["attribute"], score["probe"]): score for score in scores}


def probe_sets(dataset: Dataset, test: Dataset | None) -> ProbeSets:
    """Where the probes learn and are asked; without a test set, a fifth of the samples is kept back."""
    if test is None:
        train_ids, test_ids = split_labelled(len(dataset), seed=0)
        train_labels = {name: codes[train_ids] for name, codes in dataset.labels.items()}
        test_labels = {name: codes[test_ids] for name, codes in dataset.labels.items()}
    else:
        train_ids, test_ids = np.arange(len(dataset)), np.arange(len(test))
        train_labels = dict(dataset.labels)
        test_labels = {
            name: _recoded(test.labels[name], test.label_names[name], dataset.label_names[name])
            for name in dataset.labels
            if name in test.labels
        }
    usable = [name for name in test_labels if _usable(name, train_labels[name], test_labels[name])]
    return ProbeSets(
        train_ids,
        test_ids,
        test is not None,
        {name: train_labels[name] for name in usable},
        {name: _known(name, test_labels[name], train_labels[name]) for name in usable},
    )


def write_pictures(home: Path, dataset: Dataset, n_stages: int, seed: int) -> None:
    """Writes what later stages were given: `cells.png`, the first cells; `erased-K.png` where K erases."""
    stages = range(1, n_stages)
    with_cells = [stage for stage in stages if (stage_folder(home, stage) / "partition").exists()]
    if dataset.modality != "image" and stages:
        logger.info("no pictures of cells and evidence: the samples are not images.")
    for stage in with_cells[:1]:
        partition = Partition.load(stage_folder(home, stage) / "partition", len(dataset))
        logger.info(purity_sentence(stage - 1, cell_purity(partition, dataset.labels)))
        if dataset.modality == "image":
            title = f"Cells of stage {stage - 1}: a row shows samples that it cannot tell apart"
            _save(cell_gallery(dataset, partition, title=title), home / "cells.png")
            logger.info("%s: what the cells have in common, in pictures.", home / "cells.png")
    for stage in stages:
        if dataset.modality == "image" and hidden_stages(home, stage):
            _write_erased(home, stage, dataset, seed)


def _write_erased(home: Path, stage: int, dataset: Dataset, seed: int) -> None:
    hides = hidden_stages(home, stage)
    place = home / f"erased-{stage}.png"
    looked_at = np.mean([kept_saliency(home, earlier) for earlier in hides], axis=0)
    named = " and ".join(map(str, hides))
    title = f"What stage {named} looks at, and what the views of stage {stage} hide of it"
    erasing = kept_erasing(home, stage, lambda batch, address: [batch, batch], dataset, seed)
    _save(erased_sheet(dataset, looked_at, erasing, title=title), place)
    logger.info("%s: what was hidden from stage %d, in pictures.", place, stage)


def _save(picture: Image, place: Path) -> None:
    with artifacts.disk_errors(place):
        picture.save(place)


def _results(
    scores: Sequence[Scores],
    comparison: Comparison,
    sets: ProbeSets,
) -> Results:
    first = scores[0]
    probed = next(iter(first.values()))
    tables: dict[str, list[Row]] = {"linear": [], "knn": []}
    for (attribute, probe), score in probed.items():
        figures = {"chance": [score["chance"]]}
        figures |= {c: [seed[c][attribute, probe]["accuracy"] for seed in scores] for c in first}
        tables[probe].append((attribute, figures))
    counts = {score["attribute"]: score["n_test"] for score in probed.values()}
    sentences = verdict(tables["linear"], comparison, counts)
    sentences += [kept(tables["linear"], comparison, name, counts) for name in TAKES if name in first]
    sentences += [f"Probes were asked about {sets}."]
    if comparison.ensemble is not None and len(scores) == 1:
        sentences.append("One seed: how far the figures scatter, --seeds 3 would show.")
    return Results(**tables, comparison=comparison, sentences=sentences, n_test=counts)


def _read(study: Study, sets: ProbeSets, reader: Reader) -> Results | None:
    if not sets.train_labels:
        return None
    homes = [study.home(seed) for seed in range(study.seeds)]
    methods = [name for name in TAKES if all(is_integrated(home, name) for home in homes)]
    module = own_module(study.recipe)
    normalise = study.recipe.normalise or "each"
    tasks: list[Callable[[], Scores]] = []
    for seed, (home, its_columns) in enumerate(zip(homes, columns_of_seeds(study), strict=True)):
        tasks += [
            partial(read_columns, {name: its_columns[name]}, sets, reader, normalise) for name in its_columns
        ]
        tasks += [
            partial(read_integrated, home, name, study.n_stages(seed), sets, reader, module)
            for name in methods
        ]
    read = distributed.dealt(tasks)
    if not distributed.is_first():
        return None
    of_each = len(tasks) // len(homes)
    scores = [
        {name: found for part in read[begin : begin + of_each] for name, found in part.items()}
        for begin in range(0, len(read), of_each)
    ]
    return _results(scores, comparison_of(study), sets)


def _write(study: Study, results: Results, copies: Copies) -> None:
    (linear, knn, comparison, sentences, n_test), folder = results, study.folder
    lines = [
        "Linear probe",
        "",
        markdown_table(linear, comparison),
        "",
        *(f"- {said}" for said in sentences),
        "",
    ]
    lines += ["k nearest neighbours", "", markdown_table(knn, comparison), ""]
    artifacts.write_text(folder / "table.md", "\n".join(lines))
    records = {"linear": table_records(linear, comparison), "knn": table_records(knn, comparison)}
    artifacts.write_json(
        folder / "results.json",
        {
            **records,
            "comparison": comparison._asdict(),
            "n_test": n_test,
            "sentences": sentences,
            "identities": copies._asdict(),
            "stages": levers_kept(study.home(0), study.n_stages(0)),
        },
    )


def _recoded(codes: NDArray[np.int64], names: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """The codes of a test set in the numbering of the training set; -1 for values it does not know."""
    number = {name: code for code, name in enumerate(wanted)}
    table = np.array([number.get(name, -1) for name in names] + [-1])
    recoded: NDArray[np.int64] = table[codes]
    return recoded


def _usable(name: str, train: NDArray[np.int64], test: NDArray[np.int64]) -> bool:
    usable = len(np.unique(train[train >= 0])) > 1 and bool(np.isin(test[test >= 0], train).any())
    if not usable:
        logger.warning("%s: left out of the table: too few labelled samples or a single value.", name)
    return usable


def _known(name: str, test: NDArray[np.int64], train: NDArray[np.int64]) -> NDArray[np.int64]:
    """Test labels without the values that no training sample has, which no probe could give."""
    known = np.where(np.isin(test, train), test, -1)
    if dropped := int((known != test).sum()):
        logger.warning("%s: %d test samples left out: no training sample has their value.", name, dropped)
    return known
