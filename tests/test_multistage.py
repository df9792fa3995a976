from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

from overtone import rng
from overtone.contracts import Ids
from overtone.datasets import tones, trifeature
from overtone.encoders import Encoder, build_encoder, load_encoder
from overtone.errors import RecipeError
from overtone.evaluation import knn
from overtone.integration import concatenated, load
from overtone.methods import SimCLR
from overtone.multistage import initial_encoder, run
from overtone.objectives import NTXent
from overtone.partition import Partition
from overtone.run_folder import embeddings_of
from overtone.stages import StageSpec, check_stages
from overtone.views import SeriesViews

UNTRAINED = dataclasses.replace(tiny.FIRST, epochs=0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; nobody writes into it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(tiny.parts(), folder)
    return folder


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(v, states[1][k]) for k, v in states[0].items()
    )


def test_a_finished_run_holds_encoder_embeddings_and_cells_of_every_stage(finished: Path) -> None:
    whole = [p.parent.relative_to(finished).as_posix() for p in sorted(finished.rglob("manifest.json"))]
    assert whole == [
        "encoder",
        "identities",
        "stage-0/embeddings",
        "stage-0/encoder",
        "stage-1/embeddings",
        "stage-1/encoder",
        "stage-1/partition",
    ]
    assert not list(finished.rglob("checkpoints"))
    assert [embeddings_of(finished, s).shape for s in (0, 1)] == [(200, 128), (200, 128)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(finished: Path, tmp_path: Path) -> None:
    run(tiny.parts(), tmp_path / "again")
    run(tiny.parts(seed=1), tmp_path / "other")
    assert tiny.artifacts_of(tmp_path / "again") == tiny.artifacts_of(finished)
    other, mine = tiny.artifacts_of(tmp_path / "other"), tiny.artifacts_of(finished)
    alike = {name for name in mine if name.endswith((".safetensors", ".npy")) and other[name] == mine[name]}
    assert alike == {"identities/identities.npy"}  # of the data alone


class Spy(NTXent):
    """Keeps the ids it was called with."""

    def __init__(self, seen: list[Ids]) -> None:
        super().__init__()
        self.seen = seen

    def __call__(
        self, rows: Tensor, columns: Tensor, positive: Tensor, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        self.seen.append(column_ids)
        return super().__call__(rows, columns, positive, row_ids, column_ids)


@pytest.mark.parametrize("cells_per_batch", [None, 1])
def test_negatives_of_a_later_stage_come_from_the_anchors_own_cell(
    tmp_path: Path, cells_per_batch: Any
) -> None:
    calls: list[list[Ids]] = []

    def method(encoder: Encoder) -> SimCLR:
        made = SimCLR(encoder, out_dim=16)
        calls.append([])
        made.objective = Spy(calls[-1])
        return made

    spec = StageSpec(1, 32, cells="intersect", n_clusters=3, cells_per_batch=cells_per_batch)
    run(tiny.parts(method=method, stages=[tiny.FIRST, spec]), tmp_path)
    first, second = calls
    assert all(len(set(ids.cell.tolist())) == 1 for ids in first)
    labels = np.load(tmp_path / "stage-1" / "partition" / "pseudo_labels.npy")
    assert len(set(labels)) == 3
    negatives = 0
    for ids in second:
        index = ids.identity.numpy()  # a sample is its own identity here
        allowed = (ids.cell[:, None] == ids.cell) & (ids.identity[:, None] != ids.identity)
        assert (labels[index][:, None] == labels[index])[allowed.numpy()].all()
        negatives += int(allowed.sum())
        assert cells_per_batch is None or len(set(ids.cell.tolist())) == 1
    assert negatives > 0


def test_a_stage_starts_from_scratch_from_the_previous_or_from_the_base(finished: Path) -> None:
    trained = [load_encoder(finished / f"stage-{s}" / "encoder") for s in (0, 1)]

    def start(init: Any) -> nn.Module:
        stages = [tiny.FIRST, tiny.SECOND, dataclasses.replace(tiny.SECOND, init=init)]
        return initial_encoder(tiny.parts(stages=stages), finished, 2)

    assert _same_weights(start("base"), trained[0])
    assert _same_weights(start("previous"), trained[1])
    with rng.seeded(0, "encoder", 2):
        fresh = build_encoder("small_cnn")
    assert _same_weights(start("scratch"), fresh)
    with rng.seeded(0, "encoder", 1):
        assert not _same_weights(build_encoder("small_cnn"), fresh)


def test_a_method_that_copies_the_encoder_copies_what_is_frozen_of_it(tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []

    def method(encoder: Encoder) -> SimCLR:
        seen.append(copy.deepcopy(encoder).frozen)
        return SimCLR(encoder, out_dim=16)

    run(tiny.parts(method=method, stages=[dataclasses.replace(tiny.FIRST, trainable="last:1")]), tmp_path)
    assert len(seen) == 1
    assert seen[0]


def test_no_epochs_keep_a_given_encoder_as_it_is(tmp_path: Path) -> None:
    given = build_encoder("small_cnn")
    run(tiny.parts(encoder=lambda _: copy.deepcopy(given), stages=[UNTRAINED, tiny.SECOND]), tmp_path)
    assert _same_weights(load_encoder(tmp_path / "stage-0" / "encoder"), given)
    assert not _same_weights(load_encoder(tmp_path / "stage-1" / "encoder"), given)


@pytest.mark.parametrize("cells", ["concat", "intersect", "nested", "last"])
def test_cells_of_all_kinds_run_over_three_stages(tmp_path: Path, cells: Any) -> None:
    later = StageSpec(1, 32, cells=cells, n_clusters=4)
    run(tiny.parts(stages=[UNTRAINED, dataclasses.replace(later, epochs=0), later]), tmp_path)
    kept = [tmp_path / f"stage-{s}" / "partition" for s in (1, 2)]
    first, second = (Partition.load(place) for place in kept)
    assert second.sizes.min() >= (1 if cells == "last" else 2)
    if cells == "nested":
        assert all(
            len(set(first.pseudo_labels[second.pseudo_labels == c])) == 1 for c in range(second.n_cells)
        )
    if cells == "intersect":
        labels = [np.load(place / "cluster_labels.npy") for place in kept]
        joint = dict.fromkeys(zip(*(some.tolist() for some in labels), strict=True))
        assert first.n_cells < second.n_cells <= len(joint)


def test_the_test_set_is_embedded_beside_and_changes_nothing_else(finished: Path, tmp_path: Path) -> None:
    run(tiny.parts(test=trifeature(30, image_size=16, start=200)), tmp_path)
    assert embeddings_of(tmp_path, 1, "test").shape == (30, 128)
    assert (embeddings_of(tmp_path, 1) == embeddings_of(finished, 1)).all()


def test_the_joint_encoder_gives_the_concatenation_of_what_the_stages_kept(finished: Path) -> None:
    data = tiny.parts().dataset
    images = torch.stack([data[i]["image"] for i in range(20)])
    expected = concatenated([embeddings_of(finished, s)[:20] for s in (0, 1)])
    np.testing.assert_allclose(load(finished).encode(images.numpy()), expected, atol=1e-6)


def test_a_set_that_is_not_images_goes_the_whole_way(tmp_path: Path) -> None:
    data, test = tones(400), tones(200, start=400)
    stages = [StageSpec(3, 64), StageSpec(3, 64, cell_size=20)]
    parts = tiny.parts(
        dataset=data,
        test=test,
        views=SeriesViews(),
        encoder=lambda _: build_encoder("series_cnn", channels=1, widths=[32, 64]),
        stages=stages,
    )
    run(parts, tmp_path)
    train, asked = (
        concatenated([embeddings_of(tmp_path, s, of) for s in (0, 1)]) for of in ("train", "test")
    )
    assert train.shape == (400, 128)
    assert np.isfinite(train).all()
    assert knn(train, data.labels["pitch"], asked, test.labels["pitch"]) > 3 * 100 / 8
    batch = test.collate([test[i] for i in range(10)])
    assert len(set(batch["length"].tolist())) > 1
    np.testing.assert_allclose(load(tmp_path).encode(batch), asked[:10], atol=1e-5)


def test_a_run_leaves_the_global_stream_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run(tiny.parts(stages=[UNTRAINED, tiny.SECOND]), tmp_path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (StageSpec(-1), "epochs: -1"),
        (StageSpec(1, batch_size=1), "batch_size: 1, expected 2 to 100"),
        (StageSpec(1, batch_size=101, cell_size=20), "batch_size: 101, expected 2 to 100"),
        (StageSpec(1, lr=0.0), "lr: 0.0"),
        (StageSpec(1, lr=float("nan")), "lr: nan"),
        (StageSpec(1, weight_decay=-1.0), "weight_decay"),
        (StageSpec(1, warmup_epochs=2.0), "warmup_epochs: 2.0, expected 0 to epochs"),
        (StageSpec(1, encoder_lr_scale=0.0), "encoder_lr_scale"),
        (StageSpec(1), "n_clusters or cell_size"),
        (StageSpec(1, n_clusters=3, cell_size=3), "not both"),
        (StageSpec(1, n_clusters=101), "n_clusters: 101, expected 2 to 100"),
        (StageSpec(1, cell_size=51), "cell_size: 51, expected 2 to 50"),
    ],
)
def test_values_that_cannot_train_are_refused_with_stage_and_field(spec: StageSpec, complaint: str) -> None:
    spec = dataclasses.replace(spec, batch_size=32) if spec.batch_size == 256 else spec
    with pytest.raises(RecipeError, match=complaint) as caught:
        check_stages([tiny.FIRST, spec], 100)
    assert "stages[1]" in str(caught.value)
