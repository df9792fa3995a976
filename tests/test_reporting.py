from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Run
from html_page import Parsed, require_inert
from PIL import Image
from scipy import stats
from sklearn.metrics import pairwise_distances

import overtone as package
from overtone import artifacts, exploring, multistage, reporting
from overtone.cli import main
from overtone.comparing import compare, names_of
from overtone.datasets import arrays, tones
from overtone.datasets.captioned import Captioned
from overtone.errors import RunError
from overtone.exploring import drawn, neighbours, rows_of, shares
from overtone.partition import Partition
from overtone.progress import Silent
from overtone.recipe import parse, resolved
from overtone.report.findings import Figures, Findings, Stage, Training
from overtone.report.run_page import group_of, interval, run_page
from overtone.report.table import Comparison
from overtone.reporting import (
    histogram,
    n_stages_embedded,
    report,
    training_kept,
    write_report,
)
from overtone.results import ALL, AS_MANY, LONGER
from overtone.study import Study, carry_out

RECIPE = """
data: {source: trifeature, n: 64, image_size: 16}
test: {source: trifeature, n: 64, start: 64, image_size: 16}
train: {epochs: 1, batch_size: 16}
stages: 2
threads: 1
"""
SECTIONS = [
    "What each stage reads",
    "Nearest neighbours",
    "A map of samples",
    "Cells",
    "How alike the stages are",
    "Curves",
    "Skipped, dropped, approximated",
    "Recipe, versions, cost",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the command with baselines."""
    folder = tmp_path_factory.mktemp("reported")
    (folder / "recipe.yaml").write_text(RECIPE)
    arguments = ["train", folder / "recipe.yaml", "--out", folder / "run", "--baselines", "--jobs", 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["overtone", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def _page(run: Path) -> Parsed:
    return require_inert((run / "report.html").read_text(encoding="utf-8"))


def _headings(page: Parsed) -> list[str]:
    return [text for tag, text in page.texts if tag == "h2"]


def test_training_ends_with_a_page_that_shows_what_the_run_found(finished: Path) -> None:
    page = _page(finished)
    assert _headings(page) == SECTIONS
    text = page.text()
    kept = json.loads((finished / "results.json").read_text())
    for record in kept["linear"]:
        assert f"{record['mean']:.1f}" in text
    for sentence in kept["sentences"]:
        assert sentence in text
    assert "linear CKA" in text or "Linear CKA" in text
    assert len(page.named("img")) > 100
    assert "cells: concat" in text


def test_the_same_run_gives_the_same_bytes(finished: Path) -> None:
    before = (finished / "report.html").read_bytes()
    assert report(finished).read_bytes() == before


def test_the_headline_says_what_rose_and_whether_it_is_a_gain(finished: Path) -> None:
    ((_, headline),) = [(tag, text) for tag, text in _page(finished).texts if tag == "h1"]
    kept = json.loads((finished / "results.json").read_text())
    mean = {(r["attribute"], r["column"]): r["mean"] for r in kept["linear"]}
    attribute = headline.split()[2]
    for column in ("stage 0", "stages 0-1", "2 plain"):
        assert f"{mean[attribute, column]:.1f} %" in headline
    (sentence,) = [s for s in kept["sentences"] if s.startswith(f"{attribute}:")]
    assert ("a gain of" in headline) == sentence.endswith(": a gain.")


def test_an_unfinished_run_says_how_far_it_is_and_why_it_stopped(run: Path) -> None:
    shutil.rmtree(run / "stage-1" / "embeddings")
    shutil.rmtree(run / "encoder")
    artifacts.write_json(run / "error.json", {"message": "the disk is <full>"})
    report(run)
    text = _page(run).text()
    assert "1 of 2 stages are trained." in text
    assert "Not finished: stage 0 trained, stage 1 at epoch 1.0 of 1. Of 4 runs, 3 are finished." in text
    assert "It stopped: the disk is <full>" in text
    assert "A map of samples" not in text


def test_samples_that_became_unreadable_are_counted_once_however_often_they_were_named(run: Path) -> None:
    lines = [json.dumps({"index": row, "id": str(row), "reason": "gone"}) for row in (3, 7, 3)]
    (run / "skipped.jsonl").write_text("\n".join([*lines, "[]", "cut"]))
    report(run)
    assert "2 samples became unreadable" in _page(run).text()


def test_the_page_is_written_after_each_stage_and_when_training_fails(
    overtone: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[int] = []
    monkeypatch.setattr(reporting, "look", lambda home, n, *rest, **_: stages.append(n))

    def fails(*_: object) -> None:
        raise RunError("integration: <b>broken</b>")

    monkeypatch.setattr(multistage, "integrate", fails)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    code, _, _ = overtone("train", tmp_path / "recipe.yaml", "--out", tmp_path / "run", "--jobs", 1)
    assert (code, stages) == (4, [1, 2, 2])
    text = _page(tmp_path / "run").text()
    assert "It stopped: integration: <b>broken</b>" in text


def test_a_page_that_cannot_be_written_ends_no_training(
    overtone: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("no such page")

    monkeypatch.setattr(reporting, "look", fails)
    values = {"data": {"source": "trifeature", "n": 64, "image_size": 16}, "stages": 1, "threads": 1}
    study = Study(resolved(parse({**values, "train": {"epochs": 1, "batch_size": 16}})), tmp_path / "run")
    study.save()
    jobs = [job._replace(on_stage=partial(reporting.update, study)) for job in study.jobs()]
    carry_out(jobs, Silent(), processes=1)
    assert artifacts.is_complete(study.folder / "encoder")


def test_fit_writes_the_page_with_the_pictures_of_its_own_data(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    package.fit(pictures, out=tmp_path / "run", stages=2, epochs=1, batch_size=16, progress=False)
    page = _page(tmp_path / "run")
    assert len(page.named("img")) > 50
    report(tmp_path / "run")
    again = _page(tmp_path / "run")
    assert not again.named("img")
    assert "the data cannot be opened" in again.text()


class Named:
    """Pictures of noise, of which every name begins with the text."""

    modality, fingerprint = "image", "0"

    def __init__(self, n: int, text: str, size: int = 16) -> None:
        self.n, self.size = n, size
        self.ids: Sequence[str] = [f"{text}{row}" for row in range(min(n, 5000))]
        codes = np.arange(n) % 3
        self.labels: Mapping[str, Any] = {text: codes, f"{text}2": np.where(codes == 1, -1, codes)}
        self.label_names = {name: [f"{text}{value}" for value in range(3)] for name in self.labels}
        self.quarantined = [(text, text)]

    def __len__(self) -> int:
        return self.n

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {"image": torch.stack([sample["image"] for sample in samples])}

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = np.random.default_rng(index).integers(0, 256, (3, self.size, self.size), dtype=np.uint8)
        return {"index": index, "image": torch.from_numpy(noise)}


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "]]>\u202e\x1b[31m", "a" * 1_000_000],
    ids=["script", "attribute", "direction", "long"],
)
def test_hostile_names_captions_and_logs_are_inert(run: Path, text: str) -> None:
    name = text[:2000]  # an attribute
    kept = json.loads((run / "results.json").read_text())
    for record in kept["linear"] + kept["knn"]:
        record["attribute"] = name if record["attribute"] == "shape" else record["attribute"]
    kept["n_test"][name] = 64
    kept["sentences"].append(text)
    artifacts.write_json(run / "results.json", kept)
    artifacts.write_json(run / "machine.json", {text: text})
    artifacts.write_json(run / "stage-1" / "coverage.json", {"cells": text, "negatives": [text] * 3})
    with (run / "stage-1" / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 9, f"knn/{name}": 5.0, "alarm": text}) + "\n")
    write_report(Study.load(run), Named(64, text))
    page = _page(run)
    assert len(page.named("img")) > 100
    assert (run / "report.html").stat().st_size < 2_000_000


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("results.json", "{", "results.json: not readable as JSON"),
        ("results.json", "[]", "results.json: "),
        ("results.json", '{"linear": [{"attribute": 1}]}', "linear.0.attribute: .*overtone evaluate"),
        (
            "results.json",
            '{"linear": [{"attribute": "a", "column": "b", "values": [170]}]}',
            "values.0: .*100",
        ),
        ("stage-1/coverage.json", "[]", "coverage.json: damaged"),
        ("machine.json", "3", "machine.json: damaged"),
        ("end.json", '{"stages": 999999999999}', "end.json: damaged: 999999999999 stages, of 2"),
        ("stage-0/embeddings/train.npy", "no array", "train.npy: cannot be read"),
        ("stage-1/partition/offsets.npy", "no array", "offsets.npy"),
        ("erased-1.png", "no picture", "erased-1.png: cannot be shown"),
    ],
)
def test_what_is_damaged_is_named(overtone: Run, run: Path, file: str, content: str, complaint: str) -> None:
    (run / file).write_text(content)
    code, _, said = overtone("report", run)
    assert code in (3, 4)
    assert re.search(complaint, said), said


def test_a_header_that_promises_more_than_the_file_holds_is_refused(overtone: Run, run: Path) -> None:
    place = run / "stage-0" / "embeddings" / "train.npy"
    with place.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 8)}
        )
    code, _, said = overtone("report", run)
    assert (code, "the header says" in said) == (4, True)


def test_a_picture_bomb_and_an_outward_link_are_refused(overtone: Run, run: Path, tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(run / "erased-1.png")
    code, _, said = overtone("report", run)
    assert (code, "9000 x 9000 pixels" in said) == (3, True)
    (run / "erased-1.png").unlink()
    (tmp_path / "mine.txt").write_text("mine")
    (run / "report.html").unlink()
    (run / "report.html").symlink_to(tmp_path / "mine.txt")
    code, _, said = overtone("report", run)
    assert (code, "leads out of the run folder" in said) == (4, True)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_folder_without_a_run_and_wrong_arguments_are_named(
    overtone: Run, run: Path, tmp_path: Path
) -> None:
    assert overtone("report", tmp_path)[0] == 4
    assert overtone("compare", run)[0] == 2
    assert overtone("compare", run, run)[0] == 2
    assert overtone("compare", run, tmp_path)[0] == 4
    code, _, said = overtone("compare", run, tmp_path, "--out", tmp_path / "page.txt")
    assert (code, "named *.html" in said) == (2, True)


def test_data_that_changed_give_a_page_without_pictures_that_says_so(run: Path) -> None:
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("n: 64", "n: 65", 1))
    report(run)
    page = _page(run)
    assert not page.named("img")
    assert "no longer those of the run" in page.text()


def test_runs_are_compared_side_by_side(finished: Path, run: Path, tmp_path: Path) -> None:
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("lr: 0.002", "lr: 0.001", 1))
    out = compare([finished, run], tmp_path / "page.html")
    page = require_inert(out.read_text())
    text = page.text()
    assert "stages.0.lr" in text
    assert "1 field; all others are alike." in text
    cka = [t for tag, t in page.texts if tag == "td" and t.strip() == "1.00"]
    assert len(cka) >= 4  # the same embeddings
    assert sum(given.get("colspan") == "2" for given in page.named("th")) >= 3


def test_runs_of_other_data_are_compared_without_their_embeddings(
    finished: Path, run: Path, tmp_path: Path
) -> None:
    manifest = run / "data" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    out = compare([finished, run], tmp_path / "page.html")
    page = require_inert(out.read_text())
    notes = [given for given in page.named("p") if given.get("class") == "note"]
    assert len(notes) == 1
    assert page.text().count("not of the same data: their accuracies need not be of the same samples") == 2


def test_an_attribute_is_shown_of_the_runs_that_have_it_and_the_headline_is_of_what_all_have(
    finished: Path, run: Path, tmp_path: Path
) -> None:
    def renamed(*names: str) -> Parsed:
        text = (finished / "results.json").read_text()
        for name in names:
            text = text.replace(f'"{name}"', f'"another {name}"')
        (run / "results.json").write_text(text)
        return require_inert(compare([finished, run], tmp_path / "page.html").read_text())

    page = renamed("shape")
    spans = [given["colspan"] for given in page.named("th") if given.get("scope") == "colgroup"]
    assert sorted(map(str, spans)) == ["1", "1", "2", "2"]
    assert "They differ most in" in page.text()
    assert "no attribute was read from all of them" in renamed("shape", "texture", "colour").text()


def test_names_tell_runs_apart() -> None:
    runs = [Path("/a/x/run"), Path("/b/x/run"), Path("/b/y/other")]
    assert names_of(runs) == ["a/x/run", "b/x/run", "b/y/other"]


def test_a_page_does_not_grow_with_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {}
    for n in (4_000, 40_000):
        home = _drawn_run(tmp_path / str(n), n)
        read = _counted(monkeypatch)
        write_report(Study.load(home), Named(n, "a", size=32))
        sizes[n] = (home / "report.html").stat().st_size
        assert max(read) <= exploring.POOL
    assert sizes[40_000] < 1.05 * sizes[4_000] < 5e6


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows of embeddings are asked for at a time."""
    read: list[int] = []
    whole = exploring.rows_of

    def counted(home: Path, stages: Sequence[int], rows: Any, normalise: str) -> Any:
        read.append(len(rows))
        return whole(home, stages, rows, normalise)

    monkeypatch.setattr(exploring, "rows_of", counted)
    return read


def _drawn_run(home: Path, n: int) -> Path:
    """What two stages of a run of n samples leave behind, without training."""
    draws = np.random.default_rng(0)
    data = {"source": "trifeature", "n": n, "image_size": 16}
    Study(resolved(parse({"data": data, "stages": 2, "train": {"epochs": 1}})), home).save()
    for stage in range(2):
        with artifacts.writing(home / f"stage-{stage}" / "embeddings") as place:
            np.save(place / "train.npy", draws.normal(size=(n, 8)).astype(np.float32))
    with artifacts.writing(home / "stage-1" / "partition") as place:
        Partition(draws.integers(0, n // 100, n)).save(place)
    return home


def test_stages_count_up_to_the_first_that_is_not_there(run: Path) -> None:
    study = Study.load(run)
    assert n_stages_embedded(study) == 2
    shutil.rmtree(run / "stage-0" / "embeddings")
    assert n_stages_embedded(study) == 0


def test_neighbours_are_the_nearest_by_cosine_of_all_pairs() -> None:
    x = np.random.default_rng(0).normal(size=(700, 5)).astype(np.float32)
    distances = pairwise_distances(x, metric="cosine")
    np.fill_diagonal(distances, np.inf)
    assert np.array_equal(neighbours(x, 4), np.argsort(distances, axis=1)[:, :4])


def test_shares_count_pairs_with_labels_alone() -> None:
    near = np.array([[1, 2], [0, 2], [0, 3], [2, 0]])
    codes = np.array([1, 1, -1, 2])
    found = shares({"a": near}, {"x": codes, "none": np.full(4, -1)})
    assert found is not None
    # Pairs with labels: 0-1 alike, 1-0 alike, 3-0 unlike. Of all three pairs one is alike.
    assert found.by_column == {"x": {"a": pytest.approx(200 / 3)}}
    assert found.chance == {"x": pytest.approx(100 / 3)}


def test_rows_are_read_in_the_order_asked_for(finished: Path) -> None:
    rows = np.array([9, 2, 40])
    kept = np.load(finished / "stage-0" / "embeddings" / "train.npy")[rows]
    unit = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    assert np.allclose(rows_of(finished, [0], rows, "each"), unit, atol=1e-6)


def test_a_draw_has_each_sample_once_and_is_always_the_same() -> None:
    assert len(set(drawn(10_000, 3000).tolist())) == 3000
    assert np.array_equal(drawn(10_000, 3000)[:50], drawn(10_000, 50))


def test_no_sentence_on_the_cells_of_a_stage_is_cut() -> None:
    said = [f"{letter * 300}." for letter in "abc"]
    stage = Stage(1, "trained", Training({}, 0), {}, [("2", 9)], said)
    page = run_page(Findings("run", True, [], 1, None, [stage], [], [], [], {}, []), None)
    assert all(f"<p>{sentence}</p>" in page for sentence in said)


def test_each_column_stands_with_those_of_its_kind() -> None:
    even = Figures([], [], Comparison("stages 0-1", "2 plain", LONGER), {}, [])
    uneven = Figures([], [], Comparison(ALL, AS_MANY, LONGER), {}, [])
    assert {group_of(column, even) for column in ("2 plain", LONGER)} == {"The same cost without stages"}
    assert {group_of(column, uneven) for column in (AS_MANY, LONGER)} == {"The same cost without stages"}
    assert {group_of(column, uneven) for column in (ALL, "stages 0-1")} == {"Stages side by side"}
    assert group_of("stage 0", uneven) == "Each stage alone"


def test_intervals_are_students_over_seeds_and_wilsons_of_one() -> None:
    values = [41.0, 44.5, 43.0, 47.0]
    wanted = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert interval(values, 100) == pytest.approx(wanted)
    exact = stats.binomtest(430, 1000).proportion_ci(method="wilson")
    assert interval([43.0], 1000) == pytest.approx((100 * exact.low, 100 * exact.high), abs=0.01)


def test_a_log_of_any_length_is_thinned_and_its_samples_are_counted_once(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": s, "loss": float(s), "samples": 2}) for s in range(1, 10_001)]
    again = [json.dumps({"step": s, "loss": float(s), "samples": 2}) for s in range(9_000, 10_001)]
    bad = ["nonsense", '{"step": "x"}', '{"step": 1, "loss": NaN}', "[" * 100_000, '{"step": true']
    log.write_text("\n".join(lines + again + bad) + "\n")
    found = training_kept(log)
    assert found.samples == 20_000
    assert found.unread >= len(bad)
    points = found.curves["loss"]
    warm = "\n".join(json.dumps({"step": s, "loss": 1.0, "samples": 2}) for s in range(-4, 1))
    log.write_text(warm + "\n" + log.read_text())
    assert training_kept(log).samples == 20_010
    assert len(points) <= 2049
    assert points == sorted(points)
    assert points[-1] == (10_000, 10_000)
    assert all(step == value for step, value in points)


def test_a_histogram_counts_every_cell_once() -> None:
    sizes = np.random.default_rng(0).integers(2, 5000, 1000)
    bars = histogram(sizes)
    assert sum(count for _, count in bars) == 1000
    for name, count in bars:
        low, high = (int(end.replace(",", "")) for end in (name.split("–") * 2)[:2])
        assert count == ((sizes >= low) & (sizes <= high)).sum()


def test_captions_stand_below_pictures_and_series_are_shown_in_words(run: Path) -> None:
    pairs = Captioned(arrays(np.zeros((64, 8, 8, 3), np.uint8)), [f"a <b>{i}</b>" for i in range(64)])
    write_report(Study.load(run), pairs)
    assert any("a <b>" in text for tag, text in _page(run).texts if tag == "figcaption")
    write_report(Study.load(run), tones(64))
    page = _page(run)
    assert not page.named("img")
    assert any(given.get("class") == "nothing" for given in page.named("span"))


def test_a_sample_that_cannot_be_read_any_more_is_named_in_words(run: Path) -> None:
    class Gone(Named):
        def __getitem__(self, index: int) -> dict[str, Any]:
            raise OSError("gone")

    write_report(Study.load(run), Gone(64, "thing"))
    page = _page(run)
    assert not page.named("img")
    assert "thing" in page.text()
