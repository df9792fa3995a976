from __future__ import annotations

import itertools
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from overtone import sampling
from overtone.errors import RecipeError
from overtone.partition import Partition
from overtone.sampling import CellBatchSampler

Ints = NDArray[np.int64]
quickly = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def cells_of(sizes: list[int]) -> Partition:
    """Cells of these sizes, whose samples lie scattered over the dataset."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return Partition(np.random.default_rng(0).permutation(labels))


@st.composite
def packed_samplers(draw: st.DrawFn) -> CellBatchSampler:
    cells = cells_of(draw(st.lists(st.integers(1, 12), min_size=1, max_size=25).filter(lambda s: sum(s) > 1)))
    batch_size = draw(st.integers(2, len(cells)))
    return CellBatchSampler(cells, batch_size, seed=draw(st.integers(0, 99)), stage=draw(st.integers(0, 3)))


@st.composite
def single_cell_samplers(draw: st.DrawFn) -> CellBatchSampler:
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=12).filter(lambda s: max(s) >= 8))
    batch_size = draw(st.integers(2, 8))
    return CellBatchSampler(cells_of(sizes), batch_size, seed=draw(st.integers(0, 99)), cells_per_batch=1)


any_sampler = packed_samplers() | single_cell_samplers()


def epoch_of(sampler: CellBatchSampler, epoch: int = 0) -> list[Ints]:
    return [sampler.batch(epoch, position) for position in range(len(sampler))]


@quickly
@given(any_sampler, st.integers(0, 5))
def test_no_sample_comes_twice_in_an_epoch(sampler: CellBatchSampler, epoch: int) -> None:
    samples = np.concatenate(epoch_of(sampler, epoch))
    assert len(np.unique(samples)) == len(samples)


@quickly
@given(packed_samplers(), st.integers(0, 5))
def test_packed_batches_are_full_and_leave_out_only_the_remainder(
    sampler: CellBatchSampler, epoch: int
) -> None:
    batches = epoch_of(sampler, epoch)
    n = len(sampler.partition)
    assert {len(b) for b in batches} == {sampler.batch_size}
    assert sum(len(b) for b in batches) == n - n % sampler.batch_size


@quickly
@given(packed_samplers(), st.integers(0, 5))
def test_at_most_two_cells_of_a_packed_batch_are_cut(sampler: CellBatchSampler, epoch: int) -> None:
    cells = sampler.partition
    for batch in epoch_of(sampler, epoch):
        inside = np.bincount(cells.pseudo_labels[batch], minlength=cells.n_cells)
        assert ((inside > 0) & (inside < cells.sizes)).sum() <= 2


@quickly
@given(single_cell_samplers(), st.integers(0, 5))
def test_batches_cut_at_cell_borders_come_from_one_cell(sampler: CellBatchSampler, epoch: int) -> None:
    cells, batch_size = sampler.partition, sampler.batch_size
    lengths: dict[int, list[int]] = {}
    for batch in epoch_of(sampler, epoch):
        (cell,) = np.unique(cells.pseudo_labels[batch])
        lengths.setdefault(int(cell), []).append(len(batch))
    for cell, size in enumerate(cells.sizes):
        full, rest = divmod(int(size), batch_size)
        short = [rest] if rest >= max(2, batch_size // 4) else []
        assert sorted(lengths.get(cell, [])) == sorted([batch_size] * full + short)


@quickly
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=20).filter(lambda s: max(s) >= 12),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([None, 1]),
    st.integers(0, 99),
)
def test_ranks_partition_the_global_batch(
    sizes: list[int], world_size: int, per_rank: int, cells_per_batch: None, seed: int
) -> None:
    batch_size = max(2 * world_size, per_rank * world_size)
    cells = cells_of(sizes)
    ranks = [
        CellBatchSampler(
            cells,
            batch_size,
            seed=seed,
            cells_per_batch=cells_per_batch,
            min_batch_size=None if cells_per_batch is None else max(2, world_size),
            rank=rank,
            world_size=world_size,
        )
        for rank in range(world_size)
    ]
    alone = CellBatchSampler(cells, batch_size, seed=seed)
    for position in range(len(ranks[0])):
        slices = [sampler.batch(3, position) for sampler in ranks]
        joined = np.concatenate(slices)
        assert len({len(s) for s in slices}) == 1
        assert len(np.unique(joined)) == len(joined)
        if cells_per_batch is None:
            assert joined.tolist() == alone.batch(3, position).tolist()
        else:
            assert len(np.unique(cells.pseudo_labels[joined])) == 1


@quickly
@given(packed_samplers(), st.integers(0, 5))
def test_for_every_world_size_the_slices_of_the_ranks_are_the_global_batch(
    alone: CellBatchSampler, epoch: int
) -> None:
    cells, size, (seed, _, stage) = alone.partition, alone.batch_size, alone._address
    for world_size in (w for w in range(1, size + 1) if size % w == 0):
        ranks = [
            CellBatchSampler(cells, size, seed=seed, stage=stage, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        joined = np.concatenate([rank.batch(epoch, len(alone) - 1) for rank in ranks])
        assert joined.tolist() == alone.batch(epoch, len(alone) - 1).tolist()


@quickly
@given(any_sampler, st.integers(0, 5))
def test_mapped_cells_give_the_batches_of_cells_in_memory(sampler: CellBatchSampler, epoch: int) -> None:
    mapped = copy(sampler)
    with TemporaryDirectory() as folder:
        mapped.partition = Partition.build(sampler.partition.pseudo_labels, Path(folder))
        batches = epoch_of(mapped, epoch)
    assert [b.tolist() for b in batches] == [b.tolist() for b in epoch_of(sampler, epoch)]
    assert {b.dtype for b in batches} == {np.dtype(np.int64)}


def test_a_seed_gives_the_batches_that_it_always_gave() -> None:
    packed = CellBatchSampler(Partition(np.arange(40) % 13), 8, seed=3, stage=1)
    assert packed.batch(2, 1).tolist() == [35, 1, 14, 27, 20, 33, 7, 39]
    assert packed.batch(90_000, 3).tolist() == [12, 25, 38, 32, 19, 6, 8, 21]
    single = CellBatchSampler(Partition(np.arange(40) % 4), 4, seed=3, stage=1, cells_per_batch=1)
    assert single.batch(2, 1).tolist() == [19, 23, 31, 11]


@quickly
@given(any_sampler, st.integers(0, 40))
def test_resuming_at_any_step_continues_as_the_run_would_have(sampler: CellBatchSampler, step: int) -> None:
    epoch, position = divmod(step, len(sampler))
    sampler.load_state_dict({"step": step})
    assert sampler.state_dict() == {"step": step}
    assert list(sampler) == [b.tolist() for b in epoch_of(sampler, epoch)[position:]]


@quickly
@given(any_sampler, st.sampled_from([1, 3, 100]))
def test_coverage_equals_a_count_over_the_batches(sampler: CellBatchSampler, block: int) -> None:
    with patch.object(sampling, "_BLOCK", block):
        cells, coverage = sampler.partition, sampler.coverage(epoch=1)
    batches = epoch_of(sampler, 1)
    inside = np.array([np.bincount(cells.pseudo_labels[b], minlength=cells.n_cells) for b in batches])
    negatives = np.sort([inside[i, cells.pseudo_labels[s]] - 1 for i, b in enumerate(batches) for s in b])
    assert coverage.batches == len(batches)
    assert coverage.samples_used == len(negatives)
    assert coverage.cells_cut == ((inside.max(axis=0) > 0) & (inside.max(axis=0) < cells.sizes)).sum()
    assert coverage.cells_per_batch == pytest.approx((inside > 0).sum() / len(batches))
    assert coverage.negatives == (negatives[0], negatives[(len(negatives) - 1) // 2], negatives[-1])


@pytest.mark.parametrize("cells_per_batch", [None, 1])
def test_epochs_seeds_and_stages_differ(cells_per_batch: None) -> None:
    cells = cells_of([8] * 10)

    def first(seed: int, stage: int, epoch: int) -> tuple[int, ...]:
        sampler = CellBatchSampler(cells, 16, seed=seed, stage=stage, cells_per_batch=cells_per_batch)
        return tuple(sampler.batch(epoch, 0).tolist())

    addresses = list(itertools.product(range(3), repeat=3))
    assert len({first(*address) for address in addresses}) == len(addresses)


@pytest.mark.parametrize("cells_per_batch", [None, 1])
def test_every_sample_is_used_in_some_epoch(cells_per_batch: None) -> None:
    sampler = CellBatchSampler(
        cells_of([7, 9, 5, 6]), 4, cells_per_batch=cells_per_batch, min_batch_size=None
    )
    used = np.concatenate([b for epoch in range(30) for b in epoch_of(sampler, epoch)])
    assert len(np.unique(used)) == 27


def test_one_cell_is_a_uniform_permutation() -> None:
    sampler = CellBatchSampler(Partition.whole(10), 10)
    orders = np.array([sampler.batch(epoch, 0) for epoch in range(4000)])
    counts = np.array([np.bincount(orders[:, place], minlength=10) for place in range(10)])
    follows = np.bincount(orders[:, 0] * 10 + orders[:, 1], minlength=100).reshape(10, 10)
    # Chi-square of 81 and 89 degrees of freedom: below 126 and 136 with probability 0.999.
    assert ((counts - 400) ** 2 / 400).sum() < 126
    assert ((follows[~np.eye(10, dtype=bool)] - 4000 / 90) ** 2 / (4000 / 90)).sum() < 136


def test_iterating_does_not_move_the_step() -> None:
    sampler = CellBatchSampler(cells_of([5] * 6), 4)
    sampler.seek(10)
    assert list(sampler) == list(sampler)
    assert sampler.step == 10


def test_trainers_that_set_the_epoch_of_a_batch_samplers_sampler_reach_it() -> None:
    sampler = CellBatchSampler(cells_of([5] * 6), 4)
    sampler.sampler.set_epoch(3)
    assert sampler.state_dict() == {"step": 3 * len(sampler)}


def test_set_epoch_runs_the_whole_epoch() -> None:
    sampler = CellBatchSampler(cells_of([5] * 6), 4)
    sampler.set_epoch(3)
    assert list(sampler) == [b.tolist() for b in epoch_of(sampler, 3)]


def test_a_data_loader_with_a_worker_yields_the_same_batches() -> None:
    sampler = CellBatchSampler(cells_of([5] * 6), 8, seed=4)
    loader: DataLoader[int] = DataLoader(list(range(30)), batch_sampler=sampler, num_workers=1)  # type: ignore[arg-type]
    sampler.seek(4)
    assert [b.tolist() for b in loader] == [b.tolist() for b in epoch_of(sampler, 1)[1:]]


def test_coverage_describes_itself_in_a_line() -> None:
    coverage = CellBatchSampler(Partition(np.arange(61) // 3), 30, seed=1).coverage()
    assert str(coverage) == (
        "21 cells of 1-3, 11 a batch (2 cut), 98.4% of samples used, 0-2 (median 2) negatives per anchor"
    )


def test_coverage_of_a_single_cell_has_no_ranges() -> None:
    coverage = CellBatchSampler(Partition.whole(61), 30).coverage()
    assert str(coverage) == "one cell of 61, 98.4% of samples used, 29 negatives per anchor"


def test_samples_of_cells_below_the_floor_are_counted_as_never_used() -> None:
    coverage = CellBatchSampler(cells_of([1, 2, 3, 8, 9]), 8, cells_per_batch=1, min_batch_size=3).coverage()
    assert coverage.samples_never_used == 3
    assert "82.6% of samples used, 3 samples never used" in str(coverage)


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([4], {"batch_size": 1}, "batch_size=1: a contrastive loss needs at least 2"),
        (
            [4, 3],
            {"batch_size": 8},
            "batch_size=8 but the dataset has 7 samples; the largest legal batch_size is 7",
        ),
        ([9], {"batch_size": 12, "world_size": 2}, "12 but the dataset has 9 .* is 8"),
        ([40], {"batch_size": 10, "world_size": 4}, "world_size=4: expected a multiple, such as 8 or 12"),
        ([40], {"batch_size": 4, "rank": 2, "world_size": 2}, "rank=2: expected 0 to world_size - 1 = 1"),
        ([40], {"batch_size": 4, "cells_per_batch": 2}, "cells_per_batch=2: expected 1 .* or None"),
        ([40], {"batch_size": 4, "min_batch_size": 2}, "min_batch_size=2 needs cells_per_batch=1"),
        ([40], {"batch_size": 4, "cells_per_batch": 1, "min_batch_size": 5}, "expected 2 to batch_size=4"),
        (
            [2, 3, 4],
            {"batch_size": 9, "cells_per_batch": 1, "min_batch_size": 8},
            "2-3: 2, 4-7: 1; take fewer",
        ),
    ],
)
def test_an_impossible_size_is_an_error_that_names_a_possible_one(
    sizes: list[int], options: dict[str, int], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        CellBatchSampler(cells_of(sizes), **options)  # type: ignore[arg-type]


def test_a_position_beyond_the_epoch_is_an_error() -> None:
    with pytest.raises(RecipeError, match="epochs have batches 0 to 1"):
        CellBatchSampler(Partition.whole(8), 4).batch(0, 2)
