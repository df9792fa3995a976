"""What the samples of a cell have in common: to be seen, and in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from overtone.contracts import Dataset
from overtone.errors import DataError, RecipeError
from overtone.partition import Partition
from overtone.report import printable
from overtone.report.sheet import picture, sheet
from overtone.rng import keys


class Purity(NamedTuple):
    """How often two samples agree in an attribute, in percent: within a cell, and anywhere."""

    within: float
    chance: float


def cell_gallery(
    dataset: Dataset,
    partition: Partition,
    *,
    n_cells: int = 8,
    n_images: int = 12,
    scale: int | None = None,
    title: str = "",
    captions: Mapping[int, str] | None = None,
) -> Image.Image:
    """A contact sheet: a row for each of some cells, with samples of it and what they share.

    The cells are spread evenly over the larger half, by size; the samples of a cell are a keyed draw,
    so the same partition gives the same sheet and the order of the dataset shows nowhere.

    Args:
        dataset: N samples whose modality is `image`, (C, H, W) uint8, uint16 or float in [0, 1].
            One or two channels are shown as grey, of more the first three.
        partition: The cells of the N samples.
        n_cells: Rows at most.
        n_images: Samples of each cell at most.
        scale: Enlargement of every image, by nearest neighbour; by default each is enlarged as far
            as it fits into 96 x 96, or reduced to it.
        title: Written above.
        captions: Cell -> a line that is added to its text.

    Returns:
        An RGB image.

    Raises:
        DataError: The dataset holds no images, or the partition belongs to another number of samples.
        RecipeError: `n_cells`, `n_images` or `scale` is below 1.

    >>> import torch
    >>> class Pictures(list):
    ...     modality, labels = "image", {}
    >>> pictures = Pictures([{"image": torch.rand(3, 32, 32)}] * 4)
    >>> cell_gallery(pictures, Partition(np.array([0, 0, 1, 1])), n_images=2).mode
    'RGB'
    """
    _check(
        dataset, partition, {"n_cells": n_cells, "n_images": n_images, "scale": 1 if scale is None else scale}
    )
    chosen = gallery_cells(partition, n_cells)
    texts = [_text(dataset, partition, cell, (captions or {}).get(cell)) for cell in chosen]
    rows = [
        [picture(dataset[i][dataset.modality], scale) for i in gallery_samples(partition, cell, n_images)]
        for cell in chosen
    ]
    return sheet(printable(title, 120), texts, rows)


def gallery_cells(partition: Partition, n_cells: int) -> list[int]:
    """The cells that the gallery shows, largest first: evenly by size over the larger half.

    >>> gallery_cells(Partition(np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])), 2)
    [3, 2]
    """
    larger = np.argsort(-partition.sizes, kind="stable")[: -(-partition.n_cells // 2)]
    ranks = np.linspace(0, len(larger) - 1, min(n_cells, len(larger))).round().astype(int)
    return [int(cell) for cell in larger[ranks]]


def gallery_samples(partition: Partition, cell: int, n_images: int) -> list[int]:
    """The samples of a cell that the gallery shows: a keyed draw without repetition."""
    members = partition.order[partition.offsets[cell] : partition.offsets[cell + 1]]
    return [int(i) for i in members[np.argsort(keys(members, 0, "gallery"), kind="stable")[:n_images]]]


def cell_purity(partition: Partition, labels: Mapping[str, NDArray[np.int64]]) -> dict[str, Purity]:
    """How far the cells agree in each attribute: what the stages that made them had learned.

    `within` is the chance that a cell-mate of a sample has the sample's value, averaged over the
    labelled samples that have one; `chance` is the same for any other sample. Unlike the share of the
    most frequent value, it does not grow as cells shrink: cells drawn at random come out at `chance`.

    Args:
        partition: The cells of N samples.
        labels: Attribute -> (N,) int64, -1 where a sample has no label and is left out.

    Returns:
        Attribute -> its purity; attributes without two labelled samples in a cell are left out.

    Raises:
        DataError: An attribute has another number of labels than the partition samples.

    >>> cell_purity(Partition(np.array([0, 0, 1, 1])), {"digit": np.array([3, 3, 7, 7])})
    {'digit': Purity(within=100.0, chance=33.333333333333336)}
    """
    for attribute, codes in labels.items():
        if len(codes) != len(partition):
            raise DataError(
                f"{attribute}: {len(codes)} labels but the partition has {len(partition)} samples; expected "
                "one label a sample. Take the labels of the dataset that the partition was made from."
            )
    purities = {name: _purity(partition.pseudo_labels, codes) for name, codes in labels.items()}
    return {name: purity for name, purity in purities.items() if purity is not None}


def purity_sentence(stage: int, purities: Mapping[str, Purity]) -> str:
    """Says in one line what `cell_purity` found.

    >>> purity_sentence(0, {"digit": Purity(99.1, 10.2), "shape": Purity(15.0, 10.0)})
    'Cells of stage 0 agree in: digit 99 % (chance 10 %), shape 15 % (chance 10 %).'
    """
    if not purities:
        return f"Cells of stage {stage}: no labels to compare them with."
    parts = (f"{printable(a)} {p.within:.0f} % (chance {p.chance:.0f} %)" for a, p in purities.items())
    return f"Cells of stage {stage} agree in: {', '.join(parts)}."


def _purity(cells: NDArray[np.int64], codes: NDArray[np.int64]) -> Purity | None:
    cells, codes = cells[codes >= 0], codes[codes >= 0]
    _, cell_of, sizes = np.unique(cells, return_inverse=True, return_counts=True)
    if not (sizes > 1).any():
        return None
    n, everywhere = len(codes), np.bincount(codes)
    values, alike = np.unique(cell_of * len(everywhere) + codes, return_counts=True)
    mates = sizes[values // len(everywhere)] - 1
    agreeing = alike * (alike - 1) / np.maximum(mates, 1)
    return Purity(
        within=100 * float(agreeing.sum() / sizes[sizes > 1].sum()),
        chance=100 * float((everywhere * (everywhere - 1)).sum()) / (n * (n - 1)),
    )


def _check(dataset: Dataset, partition: Partition, counts: Mapping[str, int]) -> None:
    if dataset.modality != "image":
        raise DataError(
            f"gallery: the dataset's modality is {dataset.modality!r}; a gallery shows `image` only. "
            "Use cell_purity, which needs labels alone."
        )
    if len(dataset) != len(partition):
        raise DataError(
            f"gallery: the partition has {len(partition)} samples but the dataset {len(dataset)}; expected "
            "the same. Take the partition that was made from this dataset."
        )
    for name, value in counts.items():
        if value < 1:
            raise RecipeError(f"gallery: {name} is {value}; expected 1 or more.")


def _text(dataset: Dataset, partition: Partition, cell: int, caption: str | None) -> list[str]:
    members = partition.order[partition.offsets[cell] : partition.offsets[cell + 1]]
    lines = [f"cell {cell}: {len(members)} sample{'s' * (len(members) != 1)}"]
    for attribute, all_codes in dataset.labels.items():
        codes = all_codes[members]
        if (known := codes[codes >= 0]).size:
            counts = np.bincount(known)
            name = dataset.label_names[attribute][int(counts.argmax())]
            share = 100 * counts.max() / len(known)
            lines.append(f"{printable(attribute, 16)} {printable(str(name), 20)} ({share:.0f} %)")
    return lines if caption is None else [*lines, printable(caption)]
