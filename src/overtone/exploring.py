"""What the embeddings of a run show of a few thousand of its samples: neighbours, cells, likeness, a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from overtone import rng
from overtone.contracts import Dataset
from overtone.errors import DataError, OvertoneError
from overtone.evaluation import linear_cka
from overtone.integration import concatenated
from overtone.partition import Partition
from overtone.report import printable
from overtone.report.findings import Likeness, Map, Query, Seen, Shares
from overtone.report.gallery import cell_purity, gallery_cells, gallery_samples
from overtone.report.page import Picture, Strip, data_uri
from overtone.report.sheet import picture
from overtone.run_folder import embeddings_of, stage_folder

Columns = Mapping[str, NDArray[np.float32]]
"""Name -> (n, D) embeddings of the drawn samples."""

POOL = 3000  # samples among which neighbours are looked for
MAPPED = 1500
QUERIES, NEIGHBOURS, CELLS, IN_A_CELL = 6, 6, 6, 8
CLUSTERS = 30
SHOWN = 8  # stages of which neighbours and cells are shown
ATTRIBUTES = 8  # whose values are written below pictures
_TILE, _STAMP = 72, 26
_GRID = 15  # stamps along an edge of the map
_LARGEST = 40_000_000  # pixels of a picture that a run folder brings along


def drawn(n: int, count: int) -> NDArray[np.int64]:
    """A keyed draw of `count` of n samples, all where there are fewer, in a keyed order.

    >>> sorted(drawn(3, 10).tolist())
    [0, 1, 2]
    """
    return rng.permuted(np.arange(min(n, count)), n, rng.derive(0, "report")).astype(np.int64)


def rows_of(
    home: Path, stages: Sequence[int], rows: NDArray[np.int64], normalise: str
) -> NDArray[np.float32]:
    """The embeddings of some samples by some stages of a run side by side; the rest stays on the disk."""
    ascending = np.argsort(rows, kind="stable")
    parts = []
    for stage in stages:
        kept = embeddings_of(home, stage)
        if len(kept) <= rows.max():
            raise DataError(f"{home}: stage {stage} embedded {len(kept):,} samples, but others have more.")
        part = np.empty((len(rows), kept.shape[1]), np.float32)
        part[ascending] = kept[rows[ascending]]
        parts.append(np.nan_to_num(part))
    return concatenated(parts, normalise)


def neighbours(embeddings: NDArray[np.float32], count: int = NEIGHBOURS) -> NDArray[np.int64]:
    """The `count` nearest others (n, count) of each of n samples by cosine, the nearest first.

    >>> neighbours(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], np.float32), 1).tolist()
    [[1], [0], [1]]
    """
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    found = []
    for begin in range(0, len(unit), 512):
        near = unit[begin : begin + 512] @ unit.T
        near[np.arange(len(near)), np.arange(begin, begin + len(near))] = -np.inf
        found.append(torch.from_numpy(near).topk(count).indices.numpy())
    return np.concatenate(found)


def shares(near: Mapping[str, NDArray[np.int64]], labels: Mapping[str, NDArray[np.int64]]) -> Shares | None:
    """How often neighbours have the value of a sample, over pairs that have labels; None where none has.

    Args:
        near: Column -> (n, k) neighbours.
        labels: Attribute -> (n,) codes, -1 for none.

    >>> shares({"stage 0": np.array([[1], [0], [1]])}, {"shape": np.array([5, 5, 7])}).by_column["shape"]
    {'stage 0': 66.66666666666666}
    """
    by_column: dict[str, dict[str, float]] = {}
    chance: dict[str, float] = {}
    for name, codes in labels.items():
        counts = np.bincount(codes[codes >= 0])
        known = int(counts.sum())
        if known < 2 or (counts > 0).sum() < 2:
            continue
        chance[name] = 100 * float((counts * (counts - 1)).sum()) / (known * (known - 1))
        by_column[name] = {}
        for column, found in near.items():
            pairs = (codes[:, None] >= 0) & (codes[found] >= 0)
            alike = (codes[:, None] == codes[found]) & pairs
            by_column[name][column] = 100 * float(alike.sum() / max(pairs.sum(), 1))
    return Shares(by_column, chance) if by_column else None


def likeness(columns: Columns) -> Likeness:
    """Linear CKA between all columns, and mutual information between clusterings of them.

    >>> x = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    >>> likeness({"a": x, "b": 2 * x}).cka.round(6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    from sklearn.metrics import normalized_mutual_info_score as mutual

    names, n = list(columns), len(columns)
    clusters = [_clusters(each) for each in columns.values()]
    cka, nmi = np.eye(n), np.eye(n)
    for i in range(n):
        for j in range(i):
            cka[i, j] = cka[j, i] = linear_cka(columns[names[i]], columns[names[j]])
            nmi[i, j] = nmi[j, i] = mutual(clusters[i], clusters[j])
    shuffled = rng.numpy_generator(0, "report", "nmi").permutation(clusters[0])
    return Likeness(names, cka, nmi, float(mutual(clusters[0], shuffled)))


def mapped(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Places (n, 2) from 0 to 1 at which near samples are near: t-SNE of the principal components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    n = len(embeddings)
    if n < 8:
        return np.full((n, 2), 0.5)
    kept = PCA(min(30, *embeddings.shape), svd_solver="full").fit_transform(embeddings)
    steps = 300 + n // 5  # fewer samples come to rest sooner
    placed = TSNE(perplexity=min(30.0, n / 4), init="pca", random_state=0, max_iter=steps).fit_transform(kept)
    low, high = placed.min(axis=0), placed.max(axis=0)
    spread: NDArray[np.float64] = (placed - low) / np.maximum(high - low, 1e-9)
    return spread


def look(
    home: Path,
    n_stages: int,
    baselines: Mapping[str, Sequence[tuple[Path, int]]],
    normalise: str,
    dataset: Dataset | None,
    *,
    with_map: bool,
) -> Seen:
    """What the embeddings of the first stages of a run show.

    Args:
        home: The run.
        n_stages: How many of its stages are embedded, one or more.
        baselines: Column -> runs and their stages, side by side, that are compared with them.
        normalise: How stages are put side by side.
        dataset: Of the run, for pictures and labels.
        with_map: Whether to draw the map, the longest of the work.
    """
    n = len(embeddings_of(home, 0))
    rows = drawn(n, POOL)
    columns = {f"stage {stage}": rows_of(home, [stage], rows, normalise) for stage in range(n_stages)}
    together = "all together" if n_stages > 1 else "stage 0"
    columns[together] = rows_of(home, range(n_stages), rows, normalise)
    near = {name: neighbours(each) for name, each in columns.items()} if len(rows) > NEIGHBOURS else {}
    labels = {} if dataset is None else {name: codes[rows] for name, codes in dataset.labels.items()}
    others = {
        name: np.concatenate([rows_of(place, [stage], rows, normalise) for place, stage in parts], axis=1)
        for name, parts in baselines.items()
    }
    return Seen(
        pool=len(rows),
        n=n,
        queries=[] if dataset is None else _queries(dataset, rows, near),
        shares=shares(near, labels),
        cells=[] if dataset is None else _cells(home, n_stages, dataset),
        hidden=_hidden(home, n_stages),
        likeness=likeness({**columns, **others}) if len(rows) > 1 else None,
        map=_map(columns[together], rows, dataset) if with_map else None,
    )


def _clusters(embeddings: NDArray[np.float32]) -> NDArray[np.int32]:
    from sklearn.cluster import KMeans

    count = max(1, min(CLUSTERS, len(embeddings) // 20))
    labels: NDArray[np.int32] = KMeans(count, n_init=1, random_state=0).fit_predict(embeddings)
    return labels


def _queries(dataset: Dataset, rows: NDArray[np.int64], near: Mapping[str, NDArray[np.int64]]) -> list[Query]:
    shown = [name for number, name in enumerate(near) if number < SHOWN or number == len(near) - 1]
    found = []
    for query in range(min(QUERIES, len(rows)) if near else 0):
        strips = []
        for column in shown:
            others = near[column][query]
            seen = [_sample(dataset, int(rows[o]), like=int(rows[query])) for o in others]
            strips.append(Strip(column, seen, _agreement(dataset, int(rows[query]), rows[others])))
        found.append(Query(_sample(dataset, int(rows[query])), strips))
    return found


def _agreement(dataset: Dataset, query: int, others: NDArray[np.int64]) -> list[str]:
    said = []
    for name in list(dataset.labels)[:ATTRIBUTES]:
        codes = dataset.labels[name]
        if codes[query] >= 0:
            alike = int((codes[others] == codes[query]).sum())
            said.append(f"same {printable(name, 20)}: {alike} of {len(others)}")
    return said


def _cells(home: Path, n_stages: int, dataset: Dataset) -> list[tuple[int, str, Sequence[Strip]]]:
    found: list[tuple[int, str, Sequence[Strip]]] = []
    for stage in range(1, n_stages + 1):
        place = stage_folder(home, stage) / "partition"
        if not (place / "manifest.json").exists() or len(found) == SHOWN:
            continue
        partition = Partition.load(place, len(dataset))
        strips = [
            Strip(
                f"cell {cell}",
                [_sample(dataset, row) for row in gallery_samples(partition, cell, IN_A_CELL)],
                _shared(dataset, partition, cell),
            )
            for cell in gallery_cells(partition, CELLS)
        ]
        found.append((stage, _purity(partition, dataset), strips))
    return found


def _purity(partition: Partition, dataset: Dataset) -> str:
    purity = cell_purity(partition, dataset.labels)
    said = ", ".join(
        f"{printable(name)} in {each.within:.0f} % (anywhere: {each.chance:.0f} %)"
        for name, each in list(purity.items())[:ATTRIBUTES]
    )
    return f"Two samples of a cell agree in {said}." if said else ""


def _shared(dataset: Dataset, partition: Partition, cell: int) -> list[str]:
    members = partition.order[partition.offsets[cell] : partition.offsets[cell + 1]]
    said = [f"{len(members):,} samples"]
    for name in list(dataset.labels)[:ATTRIBUTES]:
        codes = dataset.labels[name][members]
        if (known := codes[codes >= 0]).size:
            counts = np.bincount(known)
            value = printable(str(dataset.label_names[name][int(counts.argmax())]), 20)
            said.append(f"{printable(name, 20)}: {value} in {100 * counts.max() / len(known):.0f} %")
    return said


def _sample(dataset: Dataset, row: int, like: int | None = None) -> Picture:
    """A sample as a picture, or in words where it is none; below it, in what it is like another."""
    values = _values(dataset, row)
    words = ", ".join(f"{name} {value}" for name, value in values.items()) or printable(str(dataset.ids[row]))
    texts = getattr(dataset, "texts", None)
    caption = "" if texts is None else printable(texts[row], 60)
    if like is not None and values:
        same = [name for name, value in _values(dataset, like).items() if values.get(name) == value]
        caption = f"{caption} " * bool(caption) + ("= " + ", ".join(same) if same else "–")
    image = _image(dataset, row)
    tile = None if image is None else data_uri(_small(image, _TILE))
    return Picture(tile, words if not caption or texts is None else f"{words}: {caption}", caption)


def _values(dataset: Dataset, row: int) -> dict[str, str]:
    """Attribute -> the name of a sample's value, where it has one."""
    return {
        printable(name, 20): printable(str(dataset.label_names[name][code]), 20)
        for name in list(dataset.labels)[:ATTRIBUTES]
        if (code := int(dataset.labels[name][row])) >= 0
    }


def _image(dataset: Dataset, row: int) -> Image.Image | None:
    if dataset.modality != "image":
        return None
    try:
        return picture(dataset[row]["image"])
    except (OvertoneError, OSError):  # gone since training; its place says what it was
        return None


def _small(image: Image.Image, side: int) -> Image.Image:
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def _map(embeddings: NDArray[np.float32], rows: NDArray[np.int64], dataset: Dataset | None) -> Map:
    places = mapped(embeddings[:MAPPED])
    values = {}
    if dataset is not None:
        for name, codes in dataset.labels.items():
            of_rows = codes[rows[:MAPPED]]
            if len(np.unique(of_rows[of_rows >= 0])) > 1:
                names = dataset.label_names[name]
                values[name] = [printable(str(names[code]), 24) if code >= 0 else "" for code in of_rows]
    stamps = []
    if dataset is not None and dataset.modality == "image":
        _, first = np.unique((places * (_GRID - 1e-9)).astype(int) @ [_GRID, 1], return_index=True)
        for number in sorted(first.tolist()):
            if (image := _image(dataset, int(rows[number]))) is not None:
                stamps.append((number, data_uri(_small(image, _STAMP))))
    return Map(places, values, stamps)


def _hidden(home: Path, n_stages: int) -> list[tuple[int, Markup]]:
    """The pictures of what was hidden that the run made, drawn anew: they are a stranger's files."""
    found = []
    for stage in range(1, n_stages):
        place = home / f"erased-{stage}.png"
        if not place.is_file():
            continue
        try:
            with Image.open(place, formats=["PNG"]) as image:
                if image.width * image.height > _LARGEST:
                    raise ValueError(f"{image.width} x {image.height} pixels")
                found.append((stage, data_uri(_small(image.convert("RGB"), 1100))))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{place}: cannot be shown ({error}); remove it, or run `overtone evaluate`."
            ) from error
    return found
