"""A stage 0 that is given, not trained, so that what it knows is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

from overtone import artifacts
from overtone.contracts import Address
from overtone.datasets import arrays, tones
from overtone.encoders import SeriesEncoder, as_encoder
from overtone.errors import RecipeError
from overtone.levers import hiding, levers_of
from overtone.multistage import run
from overtone.progress import Silent
from overtone.run_folder import Parts
from overtone.stages import StageSpec
from overtone.views import ImageViews, SeriesViews
from overtone.views.erasing import ErasingViews

N = 240
GIVEN = dataclasses.replace(tiny.FIRST, epochs=0)


class Left(nn.Module):
    """Sees the left half of a picture, as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, :, :8].flatten(1) * self.scale


def _pictures(different: int) -> np.ndarray:
    """8 x 16 pixels; the left halves are `different` pictures, the right halves all differ."""
    draw = np.random.default_rng(0)
    left = draw.integers(0, 256, (different, 3, 8, 8), dtype=np.uint8)[np.arange(N) % different]
    return np.concatenate([left, draw.integers(0, 256, (N, 3, 8, 8), dtype=np.uint8)], axis=3)


def _parts(different: int, **second: Any) -> Parts:
    dataset = arrays(_pictures(different))
    example = dataset.collate([dataset[0], dataset[1]])
    spec = StageSpec(**{"epochs": 0, "batch_size": 32, "erase": "auto", "cell_size": "fine", **second})
    return tiny.parts(
        dataset=dataset,
        views=ImageViews(region=(0, 8, 8, 8)),  # the left half is the same in both views
        encoder=lambda stage: as_encoder(Left(), "image", example=example),
        stages=[GIVEN, spec],
    )


def test_what_names_every_sample_inside_fine_cells_is_hidden(tmp_path: Path) -> None:
    parts = _parts(N)
    run(parts, tmp_path)
    levers = levers_of(parts, tmp_path, 1, Silent())
    assert isinstance(levers.views, ErasingViews)
    marked = levers.views.marked.reshape(N, 2, 4)
    assert marked[:, :, 2:].sum() == 0
    assert marked[:, :, :2].mean() > 0.9
    choice = artifacts.read_json(tmp_path / "stage-1" / "erasing" / "choice.json")
    assert choice["hides"] == [0]
    assert choice["known"] == [[pytest.approx(1, abs=0.1)]]
    assert list(choice["shares"].values())[-1] < 0.05


def test_what_few_values_share_is_answered_by_cells_and_nothing_is_hidden(tmp_path: Path) -> None:
    parts = _parts(6)
    run(parts, tmp_path)
    levers = levers_of(parts, tmp_path, 1, Silent())
    assert levers.views is parts.views
    left = np.arange(N) % 6
    cells = levers.partition.pseudo_labels
    assert all(len(np.unique(left[cells == cell])) == 1 for cell in np.unique(cells))
    assert not (tmp_path / "stage-0" / "saliency").exists()


def test_coarse_cells_are_as_large_as_what_is_known_allows(tmp_path: Path) -> None:
    """Six pictures of 40 samples: larger cells would leave them to be told apart."""
    parts = _parts(6, cell_size="coarse")
    run(parts, tmp_path)
    choice = artifacts.read_json(tmp_path / "stage-1" / "partition" / "choice.json")
    assert choice["cell_size"] == 30
    assert choice["known"]["30"] < 0.12


def test_what_is_spread_over_the_whole_sample_is_not_hidden(tmp_path: Path) -> None:
    """An encoder that sees everything, of views that change nothing: hiding it would leave nothing."""
    parts = dataclasses.replace(_parts(N), views=lambda batch, address: [batch, batch])
    example = parts.dataset.collate([parts.dataset[0]])
    parts = dataclasses.replace(
        parts, encoder=lambda stage: as_encoder(nn.Flatten(), "image", example=example)
    )
    run(parts, tmp_path)
    assert levers_of(parts, tmp_path, 1, Silent()).views is parts.views
    choice = artifacts.read_json(tmp_path / "stage-1" / "erasing" / "choice.json")
    assert choice["hides"] == []
    assert choice["known"][0][0] > 0.5


def test_what_could_not_be_hidden_once_is_not_searched_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = dataclasses.replace(_parts(N), views=lambda batch, address: [batch, batch])
    example = parts.dataset.collate([parts.dataset[0]])
    parts = dataclasses.replace(
        parts,
        encoder=lambda stage: as_encoder(nn.Flatten(), "image", example=example),
        stages=[GIVEN, parts.stages[1], parts.stages[1]],
    )
    searched: list[int] = []
    sufficient = hiding._sufficient

    def counted(parts: Parts, encoders: Any, maps: Any) -> Any:
        searched.append(len(maps))
        return sufficient(parts, encoders, maps)

    monkeypatch.setattr(hiding, "_sufficient", counted)
    with caplog.at_level("INFO"):
        run(parts, tmp_path)
    assert searched == [1]
    assert "stage 1: nothing of what stage 0 looks at is hidden: it is spread over" in caplog.text
    assert "stage 2: nothing of what stage 0 looks at is hidden, as in stage 1" in caplog.text
    choices = [artifacts.read_json(tmp_path / f"stage-{s}/erasing/choice.json") for s in (1, 2)]
    assert [choice["refused"] for choice in choices] == [[0], [0]]
    assert "shares" not in choices[1]


def test_where_it_cannot_be_told_what_is_looked_at_nothing_is_hidden_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RecipeError("erase: no parts that could be hidden")

    monkeypatch.setattr(hiding, "saliency", refuse)
    with caplog.at_level("INFO"):
        run(_parts(N), tmp_path)
    assert "no parts that could be hidden" in caplog.text
    assert "nothing of what stage 0 looks at is hidden" in caplog.text
    with pytest.raises(RecipeError, match="no parts"):
        run(_parts(N, erase=0.3), tmp_path / "asked for")


def test_a_fraction_hides_as_much_of_every_sample_and_goes_together_with_cells(tmp_path: Path) -> None:
    parts = _parts(6, erase=0.25, cell_size=20)
    run(parts, tmp_path)
    levers = levers_of(parts, tmp_path, 1, Silent())
    assert isinstance(levers.views, ErasingViews)
    assert np.all(levers.views.marked.sum(1) == 2)
    assert len(levers.partition.sizes) > 1


def test_whole_cells_and_a_fraction_are_erasing_alone(tmp_path: Path) -> None:
    parts = _parts(6, erase=0.25, cell_size=None, cells="whole")
    run(parts, tmp_path)
    assert len(levers_of(parts, tmp_path, 1, Silent()).partition.sizes) == 1


def test_series_of_different_lengths_hide_stretches_and_keep_their_length(tmp_path: Path) -> None:
    dataset = tones(80)
    spec = StageSpec(epochs=1, batch_size=16)
    parts = tiny.parts(
        dataset=dataset,
        views=SeriesViews(),
        encoder=lambda stage: SeriesEncoder(channels=dataset[0]["series"].shape[-1]),
        stages=[spec, dataclasses.replace(spec, erase=0.3, cell_size=10)],
    )
    run(parts, tmp_path)
    views = levers_of(parts, tmp_path, 1, Silent()).views
    assert isinstance(views, ErasingViews)
    batch = dataset.collate([dataset[row] for row in range(16)])
    erased = views.erased(batch, Address(0, 1, 0), 0)
    changed = (erased["series"] != batch["series"]).any(-1)
    past = torch.arange(changed.shape[1]) >= batch["length"][:, None]
    assert changed.any(1).all()
    assert not changed[past].any()
    assert torch.equal(erased["length"], batch["length"])


def test_a_run_that_erases_comes_out_the_same_twice_and_resumes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(_parts(N, epochs=1), tmp_path / name)
    assert tiny.artifacts_of(tmp_path / "one") == tiny.artifacts_of(tmp_path / "two")
    before = tiny.contents(tmp_path / "one")
    run(_parts(N, epochs=1), tmp_path / "one")
    assert tiny.contents(tmp_path / "one") == before


def test_what_a_stage_was_given_is_sealed(tmp_path: Path) -> None:
    run(_parts(N), tmp_path)
    sealed = {str(place.parent.relative_to(tmp_path)) for place in tmp_path.glob("stage-*/*/manifest.json")}
    assert {"stage-0/saliency", "stage-1/erasing", "stage-1/partition"} <= sealed


def test_several_stages_are_hidden_one_after_the_other_until_none_knows_much(tmp_path: Path) -> None:
    """Stages 0 and 1 are the same encoder: hiding what the one looks at hides the other's as well."""
    parts = _parts(N)
    parts = dataclasses.replace(parts, stages=[GIVEN, parts.stages[1], parts.stages[1]])
    run(parts, tmp_path)
    choice = artifacts.read_json(tmp_path / "stage-2" / "erasing" / "choice.json")
    assert choice["hides"] == [0]
    first, second = choice["known"]
    assert min(first) > 0.9
    assert max(second) < 0.12


def test_stages_that_were_never_clustered_are_no_hindrance(tmp_path: Path) -> None:
    parts = _parts(6, erase="off", cell_size=None, cells="whole")
    last = StageSpec(epochs=0, batch_size=32, cells="intersect", n_clusters=4)
    run(dataclasses.replace(parts, stages=[GIVEN, parts.stages[1], last]), tmp_path)
    assert not (tmp_path / "stage-1" / "partition").exists()
