from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from overtone import cell_files, rng
from overtone.errors import DataError
from overtone.partition import Partition
from overtone.sampling import CellBatchSampler

Ints = NDArray[np.int64]
quickly = settings(max_examples=60, deadline=None, derandomize=True, database=None)
labels_of = st.lists(st.integers(0, 8), min_size=1, max_size=40).map(np.array)


@contextmanager
def built(labels: NDArray[np.integer], chunk: int = 7, *, from_file: bool = False) -> Iterator[Partition]:
    """Cells that were sorted in stretches of a few labels, and are mapped."""
    with TemporaryDirectory() as place, patch.object(cell_files, "_CHUNK", chunk):
        file = Path(place) / "labels.npy"
        np.save(file, labels)
        yield Partition.build(file if from_file else labels, Path(place) / "cells")


def contents(cells: Partition) -> list[list[int]]:
    return [v.tolist() for v in (cells.pseudo_labels, cells.order, cells.offsets, cells.sizes)]


@quickly
@given(labels_of)
def test_labels_are_compacted_and_cells_list_their_samples(labels: Ints) -> None:
    cells = Partition(labels)
    values, compact = np.unique(labels, return_inverse=True)
    assert cells.pseudo_labels.tolist() == compact.tolist()
    assert cells.n_cells == len(values)
    for cell in range(cells.n_cells):
        samples = cells.order[cells.offsets[cell] : cells.offsets[cell + 1]]
        assert samples.tolist() == [i for i, c in enumerate(compact) if c == cell]
        assert cells.sizes[cell] == len(samples)


def test_the_whole_is_one_cell() -> None:
    cells = Partition.whole(5)
    assert (cells.n_cells, len(cells), cells.sizes.tolist()) == (1, 5, [5])


@quickly
@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 99))
def test_intersection_joins_samples_that_share_the_tuple_of_labels(n: int, stages: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    labels = [draws.integers(0, 3, n) for _ in range(stages)]
    assert Partition.intersect(labels).pseudo_labels.tolist() == oracles.joint_labels(labels).tolist()


def test_intersection_of_many_stages_and_clusters_does_not_overflow() -> None:
    # Mixed radix without compaction would need 1000 ** 12 = 10 ** 36 ids.
    labels = [np.random.default_rng(stage).integers(0, 1000, 500) * 10**15 for stage in range(12)]
    assert Partition.intersect(labels).n_cells == len(set(zip(*(x.tolist() for x in labels), strict=True)))


def test_ten_clusters_of_two_stages_make_a_hundred_cells_not_ten() -> None:
    # The published code loads the newest labels for every stage and gets ten.
    i = np.arange(100)
    assert Partition.intersect([i % 10, i // 10]).n_cells == 100


@quickly
@given(labels_of, st.integers(1, 6))
def test_merging_lifts_every_cell_to_the_floor_and_only_joins(labels: Ints, floor: int) -> None:
    cells = Partition(labels)
    merged = cells.merged(floor)
    assert merged.sizes.min() >= min(floor, len(labels))
    assert Partition.intersect([cells.pseudo_labels, merged.pseudo_labels]).n_cells == cells.n_cells


@quickly
@given(labels_of)
def test_merging_leaves_large_cells_alone_but_for_the_smallest(labels: Ints) -> None:
    cells = Partition(labels)
    merged = cells.merged(2)
    together = Counter(merged.pseudo_labels[cells.order[cells.offsets[:-1]]].tolist())
    grown = [
        size
        for size, cell in zip(cells.sizes, cells.order[cells.offsets[:-1]], strict=True)
        if size > 1 and together[int(merged.pseudo_labels[cell])] > 1
    ]
    assert len(grown) <= 1
    assert all(size == min(s for s in cells.sizes if s > 1) for size in grown)


@quickly
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=8, max_size=40))
def test_cells_merge_within_their_parent_where_it_reaches_the_floor(pairs: list[tuple[int, int]]) -> None:
    parents = np.array([p for p, _ in pairs])
    merged = Partition.intersect([parents, np.array([c for _, c in pairs])]).merged(2, parents)
    assert merged.sizes.min() >= 2
    lonely = {p for p, count in Counter(parents.tolist()).items() if count < 2}
    for cell in range(merged.n_cells):
        samples = merged.order[merged.offsets[cell] : merged.offsets[cell + 1]]
        assert len(set(parents[samples].tolist()) - lonely) <= 1


def test_parents_that_tear_a_cell_are_an_error() -> None:
    with pytest.raises(DataError, match="sample 1 of cell 0 has parent 5, but the cell's first sample 4"):
        Partition(np.array([0, 0, 1])).merged(parents=np.array([4, 5, 5]))


def test_saved_cells_load_as_they_were(tmp_path: Path) -> None:
    cells = Partition(np.array([3, 1, 3, 2]))
    cells.save(tmp_path / "cells")
    loaded = Partition.load(tmp_path / "cells", n_samples=4)
    assert loaded.pseudo_labels.tolist() == cells.pseudo_labels.tolist()
    assert loaded.order.tolist() == cells.order.tolist()


def test_cells_of_another_dataset_are_refused_with_both_numbers(tmp_path: Path) -> None:
    Partition.whole(812).save(tmp_path)
    with pytest.raises(DataError, match=r"has 812 labels but the dataset has 1,000"):
        Partition.load(tmp_path, n_samples=1000)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0, 1.0]), "float64 of shape"),
        (np.array([[0, 1]]), r"shape \(1, 2\)"),
        (np.array([], dtype=np.int64), r"shape \(0,\)"),
        (np.array(7), r"shape \(\)"),
        (np.array([True, False]), "bool"),
        (np.array([0, -1, -1]), r"2 of 3 labels are negative \(first: -1 of sample 1\)"),
    ],
)
def test_what_is_not_a_vector_of_labels_is_refused(
    labels: NDArray[np.int64], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        Partition(labels)
    with pytest.raises(DataError, match=r"expected (a vector of )?integers"):
        Partition.build(labels, tmp_path / "built")
    np.save(tmp_path / "pseudo_labels.npy", labels)
    with pytest.raises(DataError, match=message):
        Partition.load(tmp_path)


def test_stages_of_different_lengths_are_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"cluster_labels\[1\] has 3 labels but cluster_labels\[0\] has 2"):
        Partition.intersect([np.array([0, 1]), np.array([0, 1, 2])])
    with pytest.raises(DataError, match="at least one stage"):
        Partition.intersect([])


def test_a_file_that_lies_about_its_size_or_holds_objects_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pseudo_labels.npy"
    header = str({"descr": "<i8", "fortran_order": False, "shape": (2**40,)}).encode().ljust(117) + b"\n"
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 8)
    with pytest.raises(DataError, match="cannot be read as labels"):
        Partition.load(tmp_path)
    np.save(file, np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as labels"):
        Partition.load(tmp_path)
    file.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read as labels"):
        Partition.load(tmp_path)


@quickly
@given(
    labels_of,
    st.integers(1, 45),
    st.sampled_from(["u1", "i2", "i4", ">i4", "u8", "i8"]),
    st.sampled_from([1, 3, 2**40]),
    st.booleans(),
)
def test_cells_sorted_in_chunks_are_those_sorted_in_memory(
    labels: Ints, chunk: int, dtype: str, step: int, from_file: bool
) -> None:
    labels = labels * (step if np.dtype(dtype).itemsize == 8 else 1)  # far apart: not all can be counted
    with built(labels.astype(dtype), chunk, from_file=from_file) as cells:
        assert contents(cells) == contents(Partition(labels))
        assert {v.dtype for v in (cells.pseudo_labels, cells.order, cells.offsets)} == {np.dtype(np.int32)}


def test_cells_of_more_samples_than_int32_counts_are_sorted_alike() -> None:
    labels = np.random.default_rng(0).integers(0, 9, 50)
    with patch.object(cell_files, "narrow", lambda top: np.dtype(np.int64)), built(labels) as cells:
        assert contents(cells) == contents(Partition(labels))
        assert cells.order.dtype == cells.offsets.dtype == np.int64


def test_samples_beyond_31_bits_are_drawn_from_a_mapped_file(tmp_path: Path) -> None:
    n, rare = 2**31 + 64, 64  # the files are all holes but for the first cell: the 64 last samples
    for name, dtype in (("pseudo_labels", "|i1"), ("order", "<i8")):
        with (tmp_path / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": dtype, "fortran_order": False, "shape": (n,)}
            )
            begin = file.tell()
            if name == "order":
                np.arange(n - rare, n).tofile(file)
            file.truncate(begin + n * np.dtype(dtype).itemsize)
    np.save(tmp_path / "offsets.npy", np.array([0, rare, n]))
    sampler = CellBatchSampler(Partition.load(tmp_path), 2**20, cells_per_batch=1, min_batch_size=rare)
    visited = rng.permuted(np.arange(len(sampler)), len(sampler), rng.derive(0, "sampler", 0, 0, "batches"))
    batch = sampler.batch(0, int(np.flatnonzero(visited == 0)[0]))
    assert sorted(batch.tolist()) == list(range(n - rare, n))


def test_the_whole_of_a_trillion_samples_is_drawn_without_holding_them() -> None:
    sampler = CellBatchSampler(Partition.whole(10**12), 1000, seed=1)
    batch = sampler.batch(3, 17)
    assert len(np.unique(batch)) == 1000
    assert batch.min() < 10**11
    assert batch.max() > 9 * 10**11


def test_a_digest_is_that_of_the_labels_whatever_their_type_on_disk() -> None:
    labels = np.random.default_rng(0).integers(0, 9, 50)
    expected = hashlib.sha256(Partition(labels).pseudo_labels.tobytes()).hexdigest()
    with built(labels.astype(np.uint8)) as cells:
        assert cells.digest() == Partition(labels).digest() == expected
    assert Partition(labels[::-1].copy()).digest() != expected


@pytest.mark.parametrize("name", ["pseudo_labels", "order", "offsets"])
def test_a_file_of_another_length_than_its_header_says_is_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / f"{name}.npy"
    Partition(np.arange(20) // 3).save(tmp_path)
    whole = file.read_bytes()
    for changed in (whole[:-1], whole + b"\0", whole[:9]):
        file.write_bytes(changed)
        with pytest.raises(DataError, match=rf"{name}\.npy: cannot be read as labels"):
            Partition.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "vector", "message"),
    [
        ("order", np.arange(5), r"5 samples in order\.npy but 6 in pseudo_labels\.npy"),
        ("offsets", np.array([0, 3, 7]), "does not ascend from 0 to 6"),
        ("offsets", np.array([0, 3, 3, 6]), "does not ascend"),
        ("offsets", np.array([1, 3, 6]), "does not ascend"),
        ("offsets", np.array([0.0, 6.0]), "float64 of shape"),
        ("order", np.array([[0, 1, 2, 3, 4, 5]]), r"shape \(1, 6\)"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(
    name: str, vector: NDArray[np.int64], message: str, tmp_path: Path
) -> None:
    Partition(np.arange(6) // 3).save(tmp_path)
    np.save(tmp_path / f"{name}.npy", vector)
    with pytest.raises(DataError, match=message):
        Partition.load(tmp_path)


@pytest.mark.parametrize("sample", [-1, 6])
def test_an_id_that_is_no_samples_is_refused_by_the_batch_that_meets_it(sample: int, tmp_path: Path) -> None:
    Partition(np.arange(6) // 3).save(tmp_path)
    np.save(tmp_path / "order.npy", np.array([0, 1, 2, 3, 4, sample]))
    with pytest.raises(DataError, match=f"order holds sample {sample}, expected 0 to 5"):
        CellBatchSampler(Partition.load(tmp_path), 6).batch(0, 0)


def test_a_build_that_was_cut_short_leaves_no_order_to_be_trusted(tmp_path: Path) -> None:
    Partition(np.arange(9) // 3).save(tmp_path)
    with (
        patch.object(cell_files, "_write_order", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        Partition.build(np.arange(9) // 2, tmp_path)
    assert contents(Partition.load(tmp_path)) == contents(Partition(np.arange(9) // 2))


def test_cells_are_saved_and_built_over_the_files_they_are_read_from(tmp_path: Path) -> None:
    labels = np.arange(50) * 3 % 7
    np.save(tmp_path / "pseudo_labels.npy", labels)
    with patch.object(cell_files, "_CHUNK", 8):
        cells = Partition.build(tmp_path / "pseudo_labels.npy", tmp_path)
    cells.save(tmp_path)
    assert contents(cells) == contents(Partition.load(tmp_path)) == contents(Partition(labels))
    assert len(list(tmp_path.iterdir())) == 3


def test_building_names_the_first_label_that_is_negative(tmp_path: Path) -> None:
    labels = np.arange(20, dtype=np.int16)
    labels[13] = -5
    with (
        patch.object(cell_files, "_CHUNK", 8),
        pytest.raises(DataError, match="labels: -5 of sample 13, expected integers >= 0"),
    ):
        Partition.build(labels, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pseudo_labels\.npy: cannot be read"):
        Partition.load(tmp_path)


def test_a_partition_describes_its_sizes() -> None:
    summary = Partition(np.array([0, 1, 1, 2, 2, 2])).describe()
    assert (summary.n_samples, summary.n_cells, summary.smallest, summary.median, summary.largest) == (
        6,
        3,
        1,
        2,
        3,
    )
    assert str(summary) == "6 samples in 3 cells of 1-3 (median 2)"
