"""Which samples are copies of each other: they share an identity and are never negatives.

Judged on the content alone, before anything is trained: to an encoder that suppresses a feature, samples
that differ in that feature alone look like copies.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from overtone import artifacts, rng
from overtone.contracts import Dataset
from overtone.datasets.texts import first_equal
from overtone.datasets.torch_dataset import feed
from overtone.errors import RecipeError
from overtone.loading import chunks, loaded

Duplicates: TypeAlias = Literal["near", "exact", "keep"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

logger = logging.getLogger(__name__)

# At 32 x 32 pixels 99 of 100 JPEGs of quality 50 lie within it (CIFAR-10, MNIST), and of 50,000 pictures of
# MNIST, strokes of "1" included, a single pair, which no eye tells apart.
TOLERANCE = 0.2
SUSPICIOUS = 0.01  # share of the data in one group from which on a person should look
_SIDE = 16  # of a thumbnail
_LENGTHS = range(32, 1025)  # numbers in a sample that is no picture: few agree by chance, many take memory
_SAMPLE, _RANK = 1024, 4
_DIRECTIONS = 32  # in which most pairs already show that they are far apart
_READ, _CHUNK = 128, 1024  # samples in memory at once: whole ones, and thumbnails
_EXACT = 2**16  # up to so many samples every pair is looked at
_WINDOW = 2**14  # of more, the next so many in the order of each of three directions


class Copies(NamedTuple):
    """How many samples of a data set are copies of an earlier one, and the groups they form.

    Of pairs, `texts` counts those whose text is that of an earlier one, which makes them copies as well.
    """

    samples: int
    copies: int
    groups: int
    largest: int
    texts: int = 0

    def __str__(self) -> str:
        if not self.copies:
            return f"none of {self.samples:,} samples is a copy of another"
        groups = "1 group" if self.groups == 1 else f"{self.groups:,} groups"
        texts = f"; {self.texts / self.samples:.2%} have its text" if self.texts else ""
        return (
            f"{self.copies / self.samples:.2%} of {self.samples:,} samples are copies or near-copies of an"
            f" earlier one ({groups}, the largest of {self.largest:,}{texts})"
        )


def counted(identities: Ints, texts: Sequence[str] | None = None) -> Copies:
    """The rate of copies.

    >>> print(counted(np.array([0, 1, 1, 3])))
    25.00% of 4 samples are copies or near-copies of an earlier one (1 group, the largest of 2)
    """
    sizes = np.unique(identities, return_counts=True)[1]
    groups = int((sizes > 1).sum())
    same = 0 if texts is None else len(texts) - len(np.unique(first_equal(texts)))
    return Copies(len(identities), len(identities) - len(sizes), groups, int(sizes.max()), same)


def find_identities(
    dataset: Dataset,
    duplicates: Duplicates = "near",
    *,
    tolerance: float = TOLERANCE,
    num_workers: int = 0,
    scratch: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ints:
    """One number for each sample, the same for copies of one content.

    Two contents are near-copies if they differ by less than `tolerance` of the distance from either to
    its neighbours: to the fourth nearest of up to 1,024 drawn samples. So neither contrast nor units matter,
    and where many different samples lie close together, as written digits "1" do, copies must be closer.
    Re-encoded, resized and slightly brighter pictures are found; shifted ones where the shift is well below
    a sixteenth of the side. A small local change, such as another mouth, may pass for a copy.
    Pictures are compared as thumbnails of 16 x 16 in all channels, other tensors, if all have one shape of
    32 to 1,024 numbers, by their standardised values. Chains are joined: a ~ b ~ c are one. In anything
    else only exact copies are found.

    Where the dataset has `texts`, samples whose texts are equal, but for Unicode's composition and blanks,
    share an identity too, and chains run through both: like pictures, equal texts.

    Args:
        dataset: Read once.
        duplicates: `near`, `exact` (equal in every number), or `keep`: each sample is its own.
        tolerance: Between 0 and 1.
        num_workers: Processes that load samples.
        scratch: A folder for thumbnails, 3 KB a picture, which are gone afterwards.
        progress: Called after each chunk with the samples done and N.

    Returns:
        (N,) int64, for each sample the smallest index among its copies.

    Raises:
        RecipeError: An unknown kind of duplicates, or a tolerance that is none.
        DiskError: The scratch folder cannot be written.

    >>> from overtone.datasets import arrays
    >>> pictures = rng.numpy_generator(0, "doc").integers(0, 250, (40, 16, 16), dtype=np.uint8)
    >>> pictures[[7, 9]] = pictures[2], pictures[2] + 1
    >>> find_identities(arrays(pictures))[[2, 7, 8, 9]], find_identities(arrays(pictures), "exact")[[7, 9]]
    (array([2, 2, 8, 2]), array([2, 9]))
    """
    if duplicates not in get_args(Duplicates):
        raise RecipeError(
            f"duplicates: {duplicates!r} is unknown; expected one of {', '.join(get_args(Duplicates))}."
        )
    if not 0 < tolerance < 1:
        raise RecipeError(f"tolerance: {tolerance}, expected a number between 0 and 1, such as {TOLERANCE}.")
    if duplicates == "keep":
        return np.arange(len(dataset))
    found = _of_contents(dataset, duplicates, tolerance, num_workers, scratch, progress)
    texts = getattr(dataset, "texts", None)
    if texts is None:
        return found
    return _first_members(_united(found, np.arange(len(found)), first_equal(texts)))


def _of_contents(
    dataset: Dataset,
    duplicates: Duplicates,
    tolerance: float,
    num_workers: int,
    scratch: Path | None,
    progress: Callable[[int, int], None] | None,
) -> Ints:
    first = dataset[0][dataset.modality]
    length = _length(first, dataset.modality) if duplicates == "near" else 0
    order, draws = chunks(range(len(dataset)), _READ), rng.generator(0, "identities")
    with (
        tempfile.TemporaryFile(dir=scratch) as file,
        loaded(dataset, order, collate=list, num_workers=num_workers, generator=draws) as read,
    ):
        vectors = _on_disk(file, (len(dataset), length), scratch) if length else None
        exact = np.empty(len(dataset), np.int64)
        seen: dict[bytes, int] = {}
        for begin, samples in zip(range(0, len(dataset), _READ), read, strict=True):
            contents = [sample[dataset.modality] for sample in samples]
            for row, content in enumerate(contents, start=begin):
                exact[row] = seen.setdefault(_digest(content), row)
            if vectors is not None and any(_shape(content) != _shape(first) for content in contents):
                logger.info("identities: the samples differ in shape, so only exact copies are found")
                vectors = None
            if vectors is not None:
                vectors[begin : begin + len(contents)] = _described(contents, dataset.modality)
            if progress is not None:
                progress(begin + len(contents), len(dataset))
        if vectors is None:
            return exact
        distinct = np.flatnonzero(exact == np.arange(len(exact)))
        if dataset.modality != "image":
            _standardise(vectors)
        return _joined(exact, distinct, near_copies(vectors, distinct, tolerance))


def report(identities: Ints, texts: Sequence[str] | None = None) -> None:
    """Says in the log how many copies there are; warns where one group is suspiciously large."""
    copies = counted(identities, texts)
    logger.info("identities: %s", copies)
    if copies.largest > max(2, SUSPICIOUS * copies.samples):
        example = int(np.bincount(identities).argmax())
        logger.warning(
            "identities: %s samples (%.0f %%) count as copies of sample %s and are never told apart in"
            " training. If they are not copies, set duplicates: %s",
            f"{copies.largest:,}",
            100 * copies.largest / copies.samples,
            example,
            "exact, or keep where it is texts that are equal" if copies.texts else "exact",
        )


def near_copies(vectors: Floats, rows: Ints, tolerance: float) -> Ints:
    """Groups of rows that are near-copies, numbered by their first member.

    Exact up to 65,536 rows. Of more, each is compared with the 16,384 that follow it in the order of each of
    three directions, so that the cost grows with their number, and the log says so.

    Args:
        vectors: (N, D) float32, memory-mapped or not.
        rows: (n,) which of them to compare.
        tolerance: See `find_identities`.

    Returns:
        (n,) int64, for each row the place in `rows` of the first of its group.

    >>> line = np.eye(12, dtype=np.float32).repeat(2, axis=0) + 0.01 * np.arange(24)[:, None] % 0.02
    >>> near_copies(line.astype(np.float32), np.arange(24), 0.2)[:6]
    array([0, 0, 2, 2, 4, 4])
    """
    n = len(rows)
    # An eighth at most: neighbours must be others even where a picture has a dozen copies. The draw belongs
    # to the data and not to a run, so that all seeds and baselines take the same samples for copies.
    n_drawn = min(n, _SAMPLE, max(16, n // 8))
    drawn = rng.permuted(np.arange(n_drawn), n, rng.derive(0, "identities"))
    sample = np.array(vectors[rows[np.sort(drawn)]])
    centre = sample.mean(axis=0)
    sample -= centre
    basis = np.linalg.eigh(sample.T @ sample)[1][:, : -_DIRECTIONS - 1 : -1]
    points, radii = np.empty((n, basis.shape[1]), np.float32), np.empty(n, np.float32)
    for part in _slices(0, n, _CHUNK):
        chunk = vectors[rows[part]] - centre
        points[part] = chunk @ basis
        nearest = min(_RANK, len(sample)) - 1
        squares = np.partition(_squared_distances(chunk, sample), nearest, axis=1)[:, nearest]
        radii[part] = tolerance * np.sqrt(np.maximum(squares, 0))
    groups = np.arange(n)
    if n <= _EXACT:
        return _first_members(_swept(vectors, rows, points, radii, 0, n, groups))
    logger.info("identities: %s samples are compared approximately: a copy may be missed", f"{n:,}")
    for direction in range(3):
        groups = _swept(vectors, rows, points, radii, direction, _WINDOW, groups)
    return _first_members(groups)


def _swept(
    vectors: Floats, rows: Ints, points: Floats, radii: Floats, direction: int, window: int, groups: Ints
) -> Ints:
    """The groups joined by every close pair that lies within a window in the order along one direction."""
    order = np.argsort(points[:, direction], kind="stable")
    along, points, reach = points[order, direction], points[order], radii[order]
    for block in _slices(0, len(order), _CHUNK):
        farthest = along[block.stop - 1] + reach[block].max()
        end = min(int(np.searchsorted(along, farthest, side="right")), block.start + window)
        for others in _slices(block.start, end, 16 * _CHUNK):
            distances = _squared_distances(points[block], points[others])
            # Never larger than in all directions; the margin is for the rounding.
            margin = 1e-5 * (points[block] ** 2).sum(axis=1).max()
            pairs = np.flatnonzero(distances <= (reach[block] ** 2 + margin)[:, None])
            one, other = np.divmod(pairs, others.stop - others.start)
            a, b = order[block][one], order[others][other]
            open_pairs = groups[a] != groups[b]
            a, b = a[open_pairs], b[open_pairs]
            near = np.zeros(len(a), np.bool_)
            for part in _slices(0, len(a), 16 * _CHUNK):
                gap = np.linalg.norm(vectors[rows[a[part]]] - vectors[rows[b[part]]], axis=1)
                near[part] = gap <= np.minimum(radii[a[part]], radii[b[part]])
            groups = _united(groups, a[near], b[near])
    return groups


def _united(groups: Ints, a: Ints, b: Ints) -> Ints:
    if not len(a):
        return groups
    edges = coo_array((np.ones(len(a), np.int8), (groups[a], groups[b])), shape=(len(groups),) * 2)
    merged: Ints = connected_components(edges, directed=False)[1].astype(np.int64)
    return merged[groups]


def _first_members(groups: Ints) -> Ints:
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    members: Ints = first[inverse]
    return members


def _joined(exact: Ints, distinct: Ints, near: Ints) -> Ints:
    """The identities when groups of distinct samples are joined as well."""
    of_distinct = np.empty(len(exact), np.int64)
    of_distinct[distinct] = distinct[near]
    return of_distinct[exact]


def _squared_distances(a: Floats, b: Floats) -> Floats:
    """(n, m) between rows; rounding may make them a little less than 0."""
    products: Floats = a @ b.T
    products *= -2
    products += (a * a).sum(axis=1)[:, None]
    products += (b * b).sum(axis=1)
    return products


def _digest(content: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    feed(digest, content)
    return digest.digest()


def _shape(content: Any) -> tuple[int, ...] | None:
    return tuple(content.shape) if isinstance(content, (Tensor, np.ndarray)) else None


def _length(content: Any, modality: str) -> int:
    """How many numbers describe a sample; 0 where nothing but the content itself does."""
    shape = _shape(content)
    if modality == "image" and shape is not None and len(shape) == 3:
        return shape[0] * _SIDE**2
    length = int(np.prod(shape)) if shape is not None else 0
    return length if length in _LENGTHS and modality != "image" else 0


def _described(contents: list[Any], modality: str) -> Floats:
    """(n, D): thumbnails, or the values themselves."""
    values = torch.stack([torch.as_tensor(content) for content in contents]).float()
    if modality == "image":
        values = adaptive_avg_pool2d(values, _SIDE)
    described: Floats = torch.nan_to_num(values.flatten(1), 0.0, 0.0, 0.0).numpy()
    return described


def _standardise(vectors: Floats) -> None:
    """Every column to mean 0 and standard deviation 1; a column that never changes, to 0."""
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = np.sqrt(
        sum(((vectors[part] - mean) ** 2).sum(axis=0) for part in _slices(0, len(vectors), _CHUNK))
        / len(vectors)
    )
    for part in _slices(0, len(vectors), _CHUNK):
        vectors[part] = (vectors[part] - mean) / np.where(spread > 0, spread, 1)


def _slices(begin: int, end: int, length: int) -> Iterator[slice]:
    return (slice(start, min(start + length, end)) for start in range(begin, end, length))


def _on_disk(file: Any, shape: tuple[int, int], scratch: Path | None) -> Floats:
    """An array in a file that vanishes with it; the room is taken now, not at some later page."""
    with artifacts.disk_errors(scratch or Path(tempfile.gettempdir())):
        n_bytes = 4 * shape[0] * shape[1]
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:
            file.truncate(n_bytes)
    return np.memmap(file, np.float32, "r+", shape=shape)
