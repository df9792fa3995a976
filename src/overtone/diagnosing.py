"""What a frozen encoder ignores, seen on pictures of one's own: `overtone diagnose`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from overtone import rng
from overtone.clustering import next_partition
from overtone.contracts import Dataset, Views
from overtone.datasets.opening import open_some
from overtone.datasets.subset import drawn, subset
from overtone.discrimination import discrimination, some_cells, two_views
from overtone.embedding import embed
from overtone.encoders import as_encoder, with_random_weights
from overtone.errors import DataError, NumericalError, RecipeError
from overtone.evaluation.asked import Asked, asked_of
from overtone.evaluation.blind_spots import DIFFERENT, blind_spots
from overtone.evaluation.collapse import alignment, collapse_alarm, effective_rank, uniformity
from overtone.evaluation.labelled import folds
from overtone.evaluation.verdict import VERDICTS, Attribute, Readings, Verdict, asked_about, read, verdict
from overtone.integration import JointEncoder
from overtone.partition import Partition
from overtone.progress import Display, Silent
from overtone.readers import Pixels, Reader, reader_of
from overtone.recipe import build_parts, open_data
from overtone.recipe.schema import device_name
from overtone.report.diagnosis import Diagnosis
from overtone.report.diagnosis_parts import BlindPair, Geometry, Inside, Shown, Told
from overtone.report.gallery import cell_purity, gallery_cells, gallery_samples
from overtone.report.sheet import picture
from overtone.reporting import left_out
from overtone.study import Study
from overtone.text import utf8
from overtone.views import ImageTextViews, ImageViews

MOST = 10_000
FEWEST = 20
CELL_SIZE = 30
_BATCH = 128  # pictures of 224 pixels at a time, in the memory of a laptop
_VIEWED = 2048  # samples whose views are looked at, in whole cells
_SPREAD = 2048  # embeddings whose rank and uniformity are taken
_COMPARED = 5000  # pictures of which all pairs are compared
_ALIKE = 0.999  # a pair is alike whose cosine is above that of so many random pairs
_ROUNDING = 1e-4  # of a cosine: what lies on one point is alike
_PAIRS, _CELLS, _PICTURES = 6, 5, 10

THIS, SECOND = "this encoder", "the second encoder"
RANDOM_WEIGHTS, RAW_PIXELS = "random weights", "raw pixels"


class Subject(NamedTuple):
    """An encoder and the samples as it takes them; row i is the same sample for all subjects."""

    module: nn.Module
    dataset: Dataset


def diagnose(
    encoder: nn.Module,
    dataset: Dataset,
    *,
    against: nn.Module | None = None,
    views: Views | None = None,
    statistics: bool | None = None,
    most: int = MOST,
    seed: int = 0,
    display: Display | None = None,
) -> Diagnosis:
    """Says what a frozen encoder ignores of some samples, by their labels or without any.

    Args:
        encoder: What `overtone.load` returns, a stage of it, any `Encoder`, or a module of your own as for
            `overtone.fit`: for pictures it takes (B, C, H, W) floats less 0.5, divided by 0.25.
        dataset: N samples; its attributes, and words of its texts where it has some, are asked about.
        against: A second encoder to compare with, likewise.
        views: Makes two views of a sample; by default those of SimCLR for pictures, and none for other data.
        statistics: Whether image statistics are asked about besides; by default where nothing else can be.
        most: Of more samples so many are drawn.
        seed: Address of every draw.
        display: Shows how far it is.

    Raises:
        DataError: Too few samples.
        RecipeError: An encoder does not give (B, D).
        NumericalError: An embedding is not finite.

    >>> from overtone.datasets import trifeature
    >>> from overtone.encoders import build_encoder
    >>> found = diagnose(build_encoder("small_cnn"), trifeature(200, image_size=16))
    >>> sorted(attribute.name for attribute in found.attributes)
    ['colour', 'shape', 'texture']
    """
    total = len(dataset)
    looked = _enough(dataset if total <= most else subset(dataset, drawn(total, most, seed)))
    module = _as_encoder(encoder, looked)
    subjects = {THIS: Subject(module, looked)}
    if against is not None:
        subjects[SECOND] = Subject(_as_encoder(against, looked), looked)
    return _diagnosis(
        type(encoder).__name__,
        subjects,
        with_random_weights(module),
        views,
        total=total,
        notes=_notes(dataset, len(looked), total, most),
        statistics=statistics,
        seed=seed,
        display=display or Silent(),
    )


def diagnose_named(
    name: str,
    data: Path | None,
    display: Display,
    *,
    where: Mapping[str, Any] | None = None,
    against: str | None = None,
    stage: int | None = None,
    weights: Path | None = None,
    image_size: int | None = None,
    statistics: bool | None = None,
    most: int = MOST,
    seed: int = 0,
    trust: bool = False,
) -> Diagnosis:
    """As `diagnose`, of what a command names.

    Args:
        name: See `reader_of`.
        data: Pictures, any source of `open_dataset`; without it, those of a run, and its views.
        display: Shows how far it is.
        where: Options that say what lies where in the data: `labels`, `text`, `follow_links`.
        against: A second encoder, see `reader_of`.
        stage: See `reader_of`.
        weights: See `reader_of`.
        image_size: See `reader_of`.
        statistics: See `diagnose`.
        most: See `diagnose`.
        seed: See `diagnose`.
        trust: Whether code that a run's recipe names may be imported.

    Raises:
        RecipeError: An encoder is unknown, or options do not go together.
        RunError, DataError, NumericalError: As `reader_of`, `open_some` and `diagnose`.
    """
    reader = reader_of(name, trust, stage=stage, weights=weights, image_size=image_size)
    other = None if against is None else reader_of(against, trust)
    views: Views | None = None
    if data is None:
        dataset, views = _of_the_run(Path(name), trust)
        total = len(dataset)
        looked: Dataset = dataset if total <= most else subset(dataset, drawn(total, most, seed))
    else:
        looked, total = open_some(data, most, where=where or {}, seed=seed, **reader.options)
        dataset = looked
    subjects = {THIS: Subject(reader.module, _enough(looked))}
    if other is not None and against is not None:
        subjects[utf8(against)] = Subject(other.module, _seen_by(other, looked, data, most, where, seed))
    shown = utf8(name) + ("" if stage is None else f", stage {stage}")
    return _diagnosis(
        shown,
        subjects,
        reader.untrained(),
        views,
        total=total,
        notes=_notes(dataset, len(looked), total, most),
        statistics=statistics,
        seed=seed,
        display=display,
        device=torch.device(device_name("auto")),
    )


def _enough(dataset: Dataset) -> Dataset:
    if len(dataset) < FEWEST:
        raise DataError(f"{len(dataset)} samples; expected at least {FEWEST} to say anything of an encoder.")
    return dataset


def _notes(dataset: Dataset, looked: int, total: int, most: int) -> list[str]:
    """What was drawn of the samples, and what reading them left out."""
    draw = [f"{looked:,} of {total:,} samples were looked at: a keyed draw."] * (most < total)
    return draw + left_out(dataset)


def _as_encoder(module: nn.Module, dataset: Dataset) -> nn.Module:
    if isinstance(module, JointEncoder):
        return module
    example = dataset.collate([dataset[0], dataset[min(1, len(dataset) - 1)]])
    return as_encoder(module, dataset.modality, example=example)


def _of_the_run(folder: Path, trust: bool) -> tuple[Dataset, Views | None]:
    if not folder.is_dir():
        raise RecipeError(f"{folder}: on which pictures? Give them by --data; only a run knows its own.")
    study = Study.load(folder, trust=trust)
    dataset, test = open_data(study.recipe, cache_dir=study.cache)
    views = build_parts(study.recipe, dataset, test).views
    return dataset, None if isinstance(views, ImageTextViews) else views  # one of these holds no picture


def _seen_by(
    reader: Reader, looked: Dataset, data: Path | None, most: int, where: Mapping[str, Any] | None, seed: int
) -> Dataset:
    """The same samples, brought to what a second encoder takes."""
    if data is None:
        channels, *size = looked[0]["image"].shape
        if tuple(size) != reader.options["image_size"] or channels != reader.options["channels"]:
            raise RecipeError(
                f"--against: takes pictures of {reader.options['image_size']} pixels, but the run's own data "
                f"have {tuple(size)}; give pictures by --data."
            )
        return looked
    again, _ = open_some(data, most, where=where or {}, seed=seed, **reader.options)
    if list(again.ids) != list(looked.ids):
        raise DataError(f"{data}: its pictures changed while they were read; try again.")
    return again


def _diagnosis(
    name: str,
    subjects: dict[str, Subject],
    untrained: nn.Module | None,
    views: Views | None,
    *,
    total: int,
    notes: list[str],
    statistics: bool | None,
    seed: int,
    display: Display,
    device: torch.device | None = None,
) -> Diagnosis:
    dataset = subjects[THIS].dataset
    subjects = dict(subjects)
    pictured = dataset.modality == "image"
    if untrained is None:
        notes.append("Random weights are not shown: this architecture could not be built without its own.")
    else:
        subjects[RANDOM_WEIGHTS] = Subject(untrained, dataset)
    if pictured:
        subjects[RAW_PIXELS] = Subject(Pixels(centred=False), dataset)
    embeddings = {
        who: embed(
            each.module,
            each.dataset,
            batch_size=_BATCH,
            device=device,
            progress=partial(display.advance, f"embeds: {who}"),
        )
        for who, each in subjects.items()
    }
    asked = asked_of(dataset, statistics, notes)
    attributes = _attributes(asked, embeddings, notes, seed, display)
    if pictured:
        subjects[RAW_PIXELS] = Subject(Pixels(centred=True), dataset)
        views = views or ImageViews()
    cells = _cells(embeddings[THIS], notes, seed)
    inside, aligned = _inside(subjects, cells, views, notes, seed, device)
    if inside is not None and cells is not None:
        inside = inside._replace(agree=cell_purity(cells, {each.name: each.codes for each in asked}))
    others = [who for who in subjects if who not in (THIS, RANDOM_WEIGHTS)]
    return Diagnosis(
        encoder=name,
        n_samples=len(dataset),
        n_total=total,
        geometry=_geometry(embeddings[THIS], aligned, seed),
        attributes=attributes,
        inside=inside,
        cells=_shown_cells(dataset, cells) if pictured and cells is not None else (),
        pairs=_pairs(embeddings[THIS], subjects[others[0]], dataset, device, seed) if pictured else (),
        sees=others[0] if others else "",
        notes=notes,
    )


def _attributes(
    asked: list[Asked],
    embeddings: Mapping[str, NDArray[np.float32]],
    notes: list[str],
    seed: int,
    display: Display,
) -> list[Attribute]:
    splits = folds(len(embeddings[THIS]), seed)
    found = []
    for done, (name, codes) in enumerate(asked, 1):
        display.advance("reads attributes", done - 1, len(asked), name)
        known = codes[np.concatenate([asked_about(codes, *split) for split in splits])]
        if (classes := len(np.unique(known))) < 2:
            notes.append(f"{name} was not asked about: fewer than two classes among the samples kept back.")
            continue
        readings = {
            who: read(rows, codes, splits, attribute=name, seed=seed) for who, rows in embeddings.items()
        }
        chance = 100 / classes
        found.append(Attribute(name, _judged(readings, chance), chance, classes, len(known), readings))
    display.advance("reads attributes", len(asked), len(asked))
    return sorted(found, key=lambda each: VERDICTS.index(each.verdict))


def _judged(readings: Mapping[str, Readings], chance: float) -> Verdict:
    linear = {who: found.linear for who, found in readings.items()}
    untrained = [linear[who] for who in (RANDOM_WEIGHTS, RAW_PIXELS) if who in linear]
    second = [found for who, found in linear.items() if who not in (THIS, RANDOM_WEIGHTS, RAW_PIXELS)]
    return verdict(linear[THIS], chance, untrained, second[0] if second else None)


def _cells(embeddings: NDArray[np.float32], notes: list[str], seed: int) -> Partition | None:
    try:
        size = min(CELL_SIZE, len(embeddings) // 2)
        return next_partition("concat", [embeddings], cell_size=size, seed=seed)[0]
    except NumericalError as error:
        notes.append(f"There are no cells to look into: {error}")
        return None


def _inside(
    subjects: Mapping[str, Subject],
    cells: Partition | None,
    views: Views | None,
    notes: list[str],
    seed: int,
    device: torch.device | None,
) -> tuple[Inside | None, float | None]:
    """What is told apart in the cells of the encoder, and how well its own views agree."""
    if views is None:
        notes.append("Views were not looked at: none are known of these data; give `views`.")
        return None, None
    if cells is None:
        return None, None
    rows = some_cells(cells, seed, _VIEWED)
    own = cells.pseudo_labels[rows]
    # As many negatives as in its own cell, drawn from anywhere.
    anywhere = own[rng.permuted(np.arange(len(own)), len(own), rng.derive(seed, "anywhere"))]
    told: dict[str, Told] = {}
    for who, (module, dataset) in subjects.items():
        place = device or next((p.device for p in module.parameters()), torch.device("cpu"))
        ((first, second),) = two_views([module], dataset, views, rows, seed=seed, device=place)
        told[who] = Told(*(100 * discrimination(first, second, cell).accuracy for cell in (anywhere, own)))
        if who == THIS:
            aligned = alignment(first, second)
    return Inside(len(rows), len(rows) / len(np.unique(own)), told, {}), aligned


def _geometry(embeddings: NDArray[np.float32], aligned: float | None, seed: int) -> Geometry:
    some = torch.from_numpy(embeddings[drawn(len(embeddings), _SPREAD, seed)])
    return Geometry(
        embeddings.shape[1], effective_rank(some), uniformity(some), aligned, collapse_alarm(some)
    )


def _pairs(
    embeddings: NDArray[np.float32],
    other: Subject,
    dataset: Dataset,
    device: torch.device | None,
    seed: int,
) -> list[BlindPair]:
    """The clearest pairs, alike and different beyond what random pairs are."""
    rows = drawn(len(dataset), _COMPARED, seed)
    few = subset(other.dataset, rows)
    others = embed(other.module, few, device=device)
    found = blind_spots(
        embeddings[rows],
        others,
        alike=_alike(embeddings[rows], seed),
        different=DIFFERENT,
        most=_PAIRS,
        device=device or "cpu",
    )
    return [
        BlindPair(
            (_shown(dataset, int(rows[pair.first])), _shown(dataset, int(rows[pair.second]))),
            pair.cosine,
            pair.other_cosine,
        )
        for pair in found
    ]


def _alike(embeddings: NDArray[np.float32], seed: int) -> float:
    """The cosine that one of 1,000 random pairs exceeds."""
    draws = rng.numpy_generator(seed, "alike")
    first, second = draws.integers(0, len(embeddings), (2, 20_000))
    sides = [torch.nn.functional.normalize(torch.from_numpy(embeddings[side])) for side in (first, second)]
    cosines = (sides[0] * sides[1]).sum(dim=1)[torch.from_numpy(first != second)]
    return min(float(cosines.quantile(_ALIKE)), 1 - _ROUNDING)


def _shown_cells(dataset: Dataset, cells: Partition) -> list[list[Shown]]:
    return [
        [_shown(dataset, row) for row in gallery_samples(cells, cell, _PICTURES)]
        for cell in gallery_cells(cells, _CELLS)
    ]


def _shown(dataset: Dataset, row: int) -> Shown:
    return Shown(utf8(dataset.ids[row]), picture(dataset[row]["image"]))
