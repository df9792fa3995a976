"""The page of a run: gathered from its folder, and from its data where they can be opened."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from overtone import artifacts, distributed, failures, skipping
from overtone.artifacts import MANIFEST
from overtone.contracts import Dataset
from overtone.errors import OvertoneError, RunError
from overtone.exploring import look
from overtone.identities import counted
from overtone.levers.hiding import hidden_stages
from overtone.levers.identities import identities_kept
from overtone.machine import FILE as MACHINE
from overtone.partition import Partition
from overtone.recipe import open_data, to_yaml
from overtone.report.findings import Cost, Figures, Findings, Points, Seen, Stage, Training
from overtone.report.run_page import run_page
from overtone.report.table import Comparison, Row
from overtone.results import LONGER, columns, why_ended
from overtone.run_folder import stage_folder
from overtone.stopping import Gain
from overtone.study import Study, fields

logger = logging.getLogger(__name__)

FILE = "report.html"
_LARGEST = 16 << 20  # bytes of a JSON file that a run folder brings along
_LONGEST_LINE = 1 << 16
_POINTS = 2048  # of a curve, held while it is read
_BARS = 12


class _Record(BaseModel):
    attribute: str
    column: str
    values: list[Annotated[float, Field(ge=0, le=100)]]


class _Comparison(BaseModel):
    result: str
    ensemble: str | None
    longer: str | None


class _Kept(BaseModel):
    """What is needed of `results.json`."""

    linear: list[_Record]
    knn: list[_Record]
    comparison: _Comparison
    n_test: dict[str, int]
    sentences: list[str]


def report(run: Path, *, trust: bool = False) -> Path:
    """Writes the page of a run, finished or not, into its folder.

    Raises:
        RunError: The folder holds no run, or something in it is damaged.
    """
    study = Study.load(run, trust=trust)
    return write_report(study)


def write_report(study: Study, dataset: Dataset | None = None, remarks: Sequence[str] = ()) -> Path:
    """Writes `report.html` of a study.

    Args:
        study: Finished or not.
        dataset: Its training set; opened by its recipe where it is not given.
        remarks: Instead of opening it, why it is not.

    Raises:
        RunError: Something in its folder is damaged.
        DiskError: The disk is full or cannot be written.
    """
    if dataset is None and not remarks:
        dataset, remarks = _opened(study)
    found = findings(study)
    remarks = [*found.remarks, *remarks, *left_out(dataset)]
    page = run_page(found._replace(remarks=remarks), _look(study, found.finished, dataset))
    place = study.folder / FILE
    artifacts.write_text(place, page)
    return place


def update(study: Study, dataset: Dataset | None = None, remarks: Sequence[str] = ()) -> Path | None:
    """Writes the page beside a training, which nothing about it may end; None where it could not."""
    try:
        return write_report(study, dataset, remarks)
    except Exception as error:
        logger.warning("%s: not written (%s); `overtone report` tries again.", study.folder / FILE, error)
        return None


@contextmanager
def told(study: Study) -> Iterator[None]:
    """Where the block fails, the page says how far the study was and why it stopped."""
    try:
        yield
    except Exception:
        if distributed.is_first():
            update(
                study, remarks=["Pictures are left out: the run ended early; `overtone report` draws them."]
            )
        raise


def n_stages_embedded(study: Study) -> int:
    """How many of its stages can be looked at: the first ones, up to the first without embeddings."""
    places = (stage_folder(study.home(0), stage) / "embeddings" for stage in range(study.n_stages(0)))
    there = (place / MANIFEST for place in places)
    return sum(1 for _ in itertools.takewhile(Path.is_file, there))


def findings(study: Study) -> Findings:
    """What the folder of a study tells without its data.

    Raises:
        RunError: Something in it is damaged.
    """
    home, n_stages = study.home(0), study.n_stages(0)
    jobs = sorted(study.jobs(), key=lambda job: job.name)
    done = [(job.folder / "encoder" / MANIFEST).is_file() for job in jobs]
    specs = study.recipe.stage_specs()[:n_stages]
    stages = [_stage(home, number, spec.epochs) for number, spec in enumerate(specs)]
    figures = figures_kept(study.folder) if all(done) else None
    ends = why_ended(study) if figures is None else []  # else they are among its sentences
    return Findings(
        name=study.folder.resolve().name,
        finished=all(done),
        state=_state(study, stages, sum(done), len(done)),
        seeds=study.seeds,
        figures=figures,
        stages=stages,
        costs=[_cost(job.name or "stages", job.folder, len(job.recipe.stage_specs())) for job in jobs],
        remarks=[*ends, *_remarks(study, stages)],
        recipe=to_yaml(study.recipe).splitlines(),
        fields=fields(study.recipe.model_dump()),
        machine=_machine(home),
    )


def figures_kept(folder: Path) -> Figures | None:
    """What `results.json` of a study holds; None where there is none.

    Raises:
        RunError: It is damaged.
    """
    place = folder / "results.json"
    if not place.exists():
        return None
    try:
        kept = _Kept.model_validate(json_in(place))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RunError(
            f"{place}: {where}: {first['msg'][0].lower()}{first['msg'][1:]}; write it again with "
            f"`overtone evaluate {folder}`."
        ) from None
    linear, knn = (_rows(records) for records in (kept.linear, kept.knn))
    comparison = Comparison(**kept.comparison.model_dump())
    for attribute, row in (*linear, *knn):
        lacking = [column[:40] for column in comparison if column is not None and column not in row]
        if lacking or kept.n_test.get(attribute, 0) < 1:
            what = f"the columns {lacking}" if lacking else "`n_test`"
            raise RunError(
                f"{place}: {attribute[:40]!r} lacks {what}; write it again with `overtone evaluate {folder}`."
            )
    return Figures(linear, knn, comparison, kept.n_test, kept.sentences)


def _rows(records: Sequence[_Record]) -> list[Row]:
    rows: dict[str, dict[str, list[float]]] = {}
    for record in records:
        if record.values:
            rows.setdefault(record.attribute, {})[record.column] = record.values
    return list(rows.items())


def _opened(study: Study) -> tuple[Dataset | None, list[str]]:
    """The training set as the run knows it, or why there is none."""
    try:
        dataset, _ = open_data(study.recipe, cache_dir=study.cache)
    except OvertoneError as error:
        return None, [f"Pictures and labels are left out, because the data cannot be opened: {error}"]
    manifest = study.home(0) / "data" / MANIFEST
    kept = json_in(manifest) if manifest.is_file() else {}
    inputs = kept.get("inputs") if isinstance(kept, dict) else None
    if isinstance(inputs, dict) and inputs.get("fingerprint") not in (None, dataset.fingerprint):
        return None, ["Pictures and labels are left out: the data are no longer those of the run."]
    return dataset, []


def _look(study: Study, finished: bool, dataset: Dataset | None) -> Seen | None:
    home, embedded = study.home(0), n_stages_embedded(study)
    if not embedded:
        return None
    baselines = {}
    if finished and study.baselines:
        named = columns(home, embedded, True)
        kept = (f"{embedded} plain", LONGER, "random weights")
        baselines = {name: named[name] for name in kept if name in named}
    normalise = study.recipe.normalise or "each"
    return look(home, embedded, baselines, normalise, dataset, with_map=finished)


def _state(study: Study, stages: Sequence[Stage], done: int, jobs: int) -> list[str]:
    if done == jobs:
        return []
    runs = f" Of {jobs} runs, {done} are finished." if jobs > 1 else ""
    states = ", ".join(f"stage {stage.number} {stage.state}" for stage in stages)
    said = [f"Not finished: {states}.{runs}"]
    place = study.folder / failures.FILE
    if place.is_file():
        failure = json_in(place)
        message = failure.get("message") if isinstance(failure, dict) else None
        said.append(f"It stopped: {message or 'error.json does not say why.'}")
    return said


def _stage(home: Path, number: int, epochs: int) -> Stage:
    folder = stage_folder(home, number)
    training = training_kept(folder / "metrics.jsonl")
    if (folder / "embeddings" / MANIFEST).is_file():
        state = "trained" if epochs else "given"
    elif training.samples:
        epoch = training.curves["epoch"][-1][1] if training.curves.get("epoch") else 0
        state = f"at epoch {epoch:.1f} of {epochs}"
    else:
        state = "not begun"
    sizes, said = _cells(home, number)
    coverage = json_in(folder / "coverage.json") if (folder / "coverage.json").is_file() else {}
    if not isinstance(coverage, dict):
        raise RunError(f"{folder / 'coverage.json'}: damaged: expected names and values.")
    return Stage(number, state, training, coverage, sizes, [*said, *_gain(home, number)])


def training_kept(place: Path) -> Training:
    """The curves in the log of a training, thinned out while it is read; lines that are none are counted.

    >>> import tempfile
    >>> log = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> _ = log.write_text('{"step": 1, "loss": 2.5, "samples": 64}\\nnonsense\\n')
    >>> training_kept(log)
    Training(curves={'loss': [(1.0, 2.5)]}, samples=64, unread=1, alarms=[])
    """
    curves: dict[str, _Thinned] = {}
    samples, unread, newest = 0, 0, -math.inf
    alarms: list[str] = []
    if not place.is_file():
        return Training({}, 0)
    with place.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            record = _record(line)
            if record is None:
                unread += 1
                continue
            step = float(record["step"])
            if "samples" in record and step > newest:  # after an interruption some steps stand there twice
                samples, newest = samples + int(record["samples"]), step
            for name, value in record.items():
                if name in ("loss", "epoch", "effective_rank") or name.startswith("knn/"):
                    curves.setdefault(name, _Thinned()).add(step, float(value))
            if isinstance(alarm := record.get("alarm"), str) and len(alarms) < 3 and alarm not in alarms:
                alarms.append(alarm)
    return Training({name: curve.points() for name, curve in curves.items()}, samples, unread, alarms)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    numbers = ["step", *(name for name in record if name in ("loss", "epoch", "samples", "effective_rank"))]
    numbers += [name for name in record if name.startswith("knn/")]
    usable = all(
        isinstance(record.get(name), (int, float)) and math.isfinite(record[name]) for name in numbers
    )
    return record if usable else None


class _Thinned:
    """Points of a curve of any length, evenly thinned out; of a step that comes twice the later."""

    def __init__(self) -> None:
        self._points: dict[float, float] = {}
        self._every, self._last = 1, (0.0, 0.0)
        self._seen = 0

    def add(self, step: float, value: float) -> None:
        self._last = (step, value)
        self._seen += 1
        if self._seen % self._every == 0:
            self._points[step] = value
        if len(self._points) > _POINTS:
            self._every *= 2
            self._points = dict(list(self._points.items())[1::2])

    def points(self) -> Points:
        return sorted({**self._points, self._last[0]: self._last[1]}.items())


def _cells(home: Path, stage: int) -> tuple[list[tuple[str, int]], list[str]]:
    """How large the cells of a stage are, and how they and what it hides were chosen."""
    place, said = stage_folder(home, stage) / "partition", []
    sizes: list[tuple[str, int]] = []
    if (place / MANIFEST).is_file():
        partition = Partition.load(place)
        sizes = histogram(partition.sizes)
        said.append(f"{partition.describe()}.")
        said += _tried(place / "choice.json")
    if stage and (stage_folder(home, stage) / "erasing" / MANIFEST).is_file():
        hides = hidden_stages(home, stage)
        what = " and ".join(map(str, hides))
        said.append(f"Its views hide what stage {what} looks at." if hides else "Its views hide nothing.")
    return sizes, said


def _tried(place: Path) -> list[str]:
    choice = json_in(place) if place.is_file() else {}
    known = choice.get("known") if isinstance(choice, dict) else None
    if not isinstance(known, dict):
        return []
    tried = [
        f"{share:.0%} in cells of about {size}"
        for size, share in known.items()
        if isinstance(share, (int, float)) and math.isfinite(share)
    ]
    return [f"Chosen by what earlier stages still know inside: {', '.join(tried)}."] if tried else []


def _gain(home: Path, stage: int) -> list[str]:
    """What a stage has added to those before it, where that was measured."""
    place = stage_folder(home, stage) / "gain"
    if not (place / MANIFEST).is_file():
        return []
    gain = Gain.kept(place)
    return [
        f"Inside cells of {gain.cell_size} that the stages before cannot tell apart, {gain}. Its embeddings "
        f"and theirs: CKA {gain.cka:.2f}; together they spread over {gain.rank_after:.0f} directions "
        f"instead of {gain.rank_before:.0f}, {gain.rank_per_second:.2f} more a second of training."
    ]


def histogram(sizes: np.ndarray[Any, np.dtype[np.integer[Any]]]) -> list[tuple[str, int]]:
    """How many cells have how many samples, in at most `_BARS` ranges of equal ratio.

    >>> histogram(np.array([1, 2, 2, 3]))
    [('1', 1), ('2', 2), ('3', 1)]
    """
    low, high = int(sizes.min()), int(sizes.max())
    edges = np.unique(np.geomspace(low, high + 1, _BARS + 1).round().astype(int))
    edges[-1] = high + 1
    counts, _ = np.histogram(sizes, edges)
    ranges = zip(edges[:-1].tolist(), (edges[1:] - 1).tolist(), strict=True)
    return [
        (f"{a:,}" if a == b else f"{a:,}–{b:,}", int(count))
        for (a, b), count in zip(ranges, counts, strict=True)
    ]


def _cost(name: str, folder: Path, n_stages: int) -> Cost:
    place = folder / "seconds.json"
    seconds = json_in(place) if place.is_file() else None
    number = float(seconds) if isinstance(seconds, (int, float)) and math.isfinite(seconds) else None
    logs = (stage_folder(folder, stage) / "metrics.jsonl" for stage in range(n_stages))
    return Cost(name, number, sum(training_kept(log).samples for log in logs))


def _unreadable(place: Path) -> int:
    """How many samples a log of skips names; each process, and each resume, may name one again."""
    named = set()
    with place.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                named.add(json.loads(line)["index"])
    return len(named)


def _remarks(study: Study, stages: Sequence[Stage]) -> list[str]:
    """What a run skipped, dropped or found to be one."""
    home, said = study.home(0), []
    if (home / "identities" / MANIFEST).is_file():
        said.append(f"Copies, never negatives of each other: {counted(identities_kept(home))}.")
    if (home / skipping.FILE).is_file():
        count = _unreadable(home / skipping.FILE)
        said.append(f"{count:,} samples became unreadable during training; others took their place.")
    of_stages: dict[str, list[int]] = {}
    for stage in stages:
        for remark in _remarks_on(stage):
            of_stages.setdefault(remark, []).append(stage.number)
    said += [f"Stage {' and '.join(map(str, numbers))}: {text}" for text, numbers in of_stages.items()]
    if study.seeds > 1:
        said.append("Pictures, curves and cells are those of the first seed; accuracies are of all.")
    return said


def _remarks_on(stage: Stage) -> Iterator[str]:
    used, of = stage.coverage.get("samples_used"), stage.coverage.get("samples")
    never = stage.coverage.get("samples_never_used")
    if isinstance(used, int) and isinstance(of, int) and of > used:
        yield f"an epoch leaves out {of - used:,} of {of:,} samples, each time others."
    if isinstance(never, int) and never:
        yield f"{never:,} samples lie in cells too small for any batch."
    yield from stage.training.alarms
    if stage.training.unread:
        yield f"{stage.training.unread:,} lines of its log cannot be read."


def left_out(dataset: Dataset | None) -> list[str]:
    """What reading the data left out, by reason."""
    left: Sequence[tuple[str, str]] = getattr(dataset, "quarantined", ())
    cut: Sequence[str] = getattr(dataset, "truncated", ())
    reasons = Counter(reason for _, reason in left)
    said = [f"Left out of the data: {count:,} × {reason}." for reason, count in reasons.most_common(5)]
    if others := sum(count for _, count in reasons.most_common()[5:]):
        said.append(f"Left out of the data for other reasons: {others:,}.")
    return said + ([f"{len(cut):,} texts were cut."] if cut else [])


def _machine(home: Path) -> list[tuple[str, str]]:
    place = home / MACHINE
    kept = json_in(place) if place.is_file() else {}
    if not isinstance(kept, dict):
        raise RunError(f"{place}: damaged: expected names and values.")
    return [(str(name), str(value)) for name, value in itertools.islice(kept.items(), 20)]


def json_in(place: Path) -> Any:
    """A JSON file of a run folder, which may come from elsewhere.

    Raises:
        RunError: It is larger than any that Overtone writes, or no JSON.
    """
    if place.stat().st_size > _LARGEST:
        raise RunError(f"{place}: {place.stat().st_size:,} bytes; expected at most {_LARGEST:,}: damaged.")
    return artifacts.read_json(place)
