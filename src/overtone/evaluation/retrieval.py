"""Recall at k between pictures and texts, in the memory of one chunk of the matrix of all similarities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from overtone.contracts import Dataset, TwoTowers
from overtone.errors import DataError, RecipeError
from overtone.evaluation.towers import unit_images, unit_texts

KS = (1, 5, 10)


class Retrieval(NamedTuple):
    """Recall at each k in percent, both ways, over `n` samples with `n_texts` different texts."""

    image_to_text: dict[int, float]
    text_to_image: dict[int, float]
    n: int
    n_texts: int


def retrieval(
    encoder: TwoTowers,
    dataset: Dataset,
    *,
    ks: Sequence[int] = KS,
    batch_size: int = 256,
    chunk: int = 1024,
    progress: Callable[[int, int], None] | None = None,
) -> Retrieval:
    """Looks for each picture's text among all texts, and for each text's picture among all pictures.

    Samples with equal texts are right matches of each other.

    Args:
        encoder: Two towers.
        dataset: Pictures with a `text` each.
        ks: Up to which rank a match counts.
        batch_size: Samples that are embedded at a time.
        chunk: Rows and columns of similarities in memory at a time; changes nothing else.
        progress: Called after each batch with the samples done and N.

    Raises:
        DataError: There is no sample, or a sample has no text.
        RecipeError: A k is below 1.
        NumericalError: An embedding is not finite, or zero.
    """
    if not len(dataset) or "text" not in dataset[0]:
        raise DataError(
            f"retrieval: {len(dataset):,} samples without a `text`; expected pictures with a text each, such "
            "as overtone.datasets.Captioned makes of pictures and a list."
        )
    images, texts, said = [], [], []
    for begin in range(0, len(dataset), batch_size):
        rows = range(begin, min(begin + batch_size, len(dataset)))
        batch = dataset.collate([dataset[row] for row in rows])
        images.append(unit_images(encoder, batch["image"], [dataset.ids[row] for row in rows]))
        texts.append(unit_texts(encoder, batch["text"]))
        said += batch["text"]
        if progress is not None:
            progress(rows.stop, len(dataset))
    number = {text: code for code, text in enumerate(dict.fromkeys(said))}
    ids = torch.tensor([number[text] for text in said])
    both = torch.cat(images), torch.cat(texts)
    return Retrieval(
        recall(both[0], both[1], ids, ks=ks, chunk=chunk),
        recall(both[1], both[0], ids, ks=ks, chunk=chunk),
        len(dataset),
        len(number),
    )


def recall(
    rows: Tensor, columns: Tensor, ids: Tensor, *, ks: Sequence[int] = KS, chunk: int = 1024
) -> dict[int, float]:
    """How many rows have a right column among the k most similar, in percent.

    A column is right for a row if their ids agree. A wrong column that is exactly as similar as the best
    right one comes before it, so that equal embeddings of everything earn nothing.

    Args:
        rows: (N, D).
        columns: (N, D).
        ids: (N,) int64, of row i and of column i.
        ks: Up to which rank a match counts.
        chunk: Rows and columns at a time.

    Raises:
        RecipeError: A k is below 1.

    >>> recall(torch.eye(3), torch.eye(3)[[1, 0, 2]], torch.arange(3), ks=[1, 3])
    {1: 33.33333333333333, 3: 100.0}
    """
    if not ks or min(ks) < 1:
        raise RecipeError(f"ks: {list(ks)}; expected numbers from 1 on.")
    parts = [slice(begin, begin + chunk) for begin in range(0, len(rows), chunk)]
    ranks = torch.cat([_ranks(rows[part], ids[part], columns, ids, parts) for part in parts])
    return {k: 100 * float((ranks < k).double().mean()) for k in ks}


def _ranks(rows: Tensor, own: Tensor, columns: Tensor, ids: Tensor, parts: Sequence[slice]) -> Tensor:
    """For each row, how many wrong columns come before the first right one.

    Two passes over the columns: the first finds the best right one, the second counts.
    """
    best = torch.full((len(rows),), -torch.inf, dtype=rows.dtype)
    for part in parts:
        wrong = own[:, None] != ids[part]
        best = torch.maximum(best, (rows @ columns[part].T).masked_fill(wrong, -torch.inf).amax(1))
    before = torch.zeros(len(rows), dtype=torch.int64)
    for part in parts:
        wrong = own[:, None] != ids[part]
        before += (wrong & (rows @ columns[part].T >= best[:, None])).sum(1)
    return before
