"""What an encoder looks at: how far each patch, stretch, column or token tells a sample from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from overtone import rng
from overtone.contracts import Batch, Dataset
from overtone.embedding import evaluating, to_device
from overtone.errors import RecipeError
from overtone.loading import chunks, loaded
from overtone.skipping import noted
from overtone.views.erasing import Units, bank_of, present
from overtone.views.pixels import unit_floats

TEMPERATURE = 0.2
REFERENCES = 1024  # samples that a sample is compared with
AT_ONCE = 256


def saliency(
    encoder: nn.Module,
    dataset: Dataset,
    embeddings: NDArray[np.float32],
    units: Units,
    *,
    seed: int,
    device: torch.device,
    rows: range | None = None,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """The share of each unit in what decides how a sample relates to the others.

    |gradient x (content - mean content)| of the log-sum-exp of a sample's similarities to others, summed over
    the unit: to first order, how far the similarities would move if the unit showed the average instead. For
    tokens, the content is what the encoder's first `nn.Embedding` gives for them.

    Args:
        encoder: Takes a batch, gives (B, D), differentiable.
        dataset: N samples.
        embeddings: (N, D) of this encoder; some of them are the others.
        units: What is summed.
        seed: Address of the draw of the others, with "saliency".
        device: Where to compute.
        rows: Of which samples, all by default; for the same numbers, they begin at a multiple of
            `AT_ONCE`.
        num_workers: Processes that load samples.
        progress: Called after each batch with the samples done and all.

    Returns:
        (N, U) float32; a row sums to 1, or is 0 where nothing matters. A series has zeros beyond its end.

    Raises:
        RecipeError: The encoder reads tokens without an `nn.Embedding`.
    """
    n, rows = len(dataset), range(len(dataset)) if rows is None else rows
    few = rng.permuted(np.arange(min(REFERENCES, n)), n, rng.derive(seed, "saliency"))
    others = F.normalize(torch.from_numpy(np.asarray(embeddings[np.sort(few)], np.float32)), dim=1).to(device)
    average = _average(bank_of(dataset, seed), dataset.modality, device)
    order, draws = chunks(rows, AT_ONCE), rng.generator(seed, "saliency", "loader")
    found: list[Tensor] = []
    with (
        loaded(dataset, order, num_workers=num_workers, generator=draws) as batches,
        evaluating(encoder.to(device)),
    ):
        for batch in noted(batches, dataset):
            batch = to_device(batch, device)
            moved = _moved(encoder, batch, dataset.modality, others, average) * present(
                batch, dataset.modality
            )
            found.append(_by_unit(moved, units.numbers(batch[dataset.modality])))
            if progress:
                progress(sum(map(len, found)), len(rows))
    return _joined(found)


def covering(saliency: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """For each sample the fewest units that hold a share of its saliency: few where it lies close together.

    Args:
        saliency: (N, U).
        share: From 0 to 1.

    Returns:
        (N, U) bool.

    >>> covering(np.array([[0.6, 0.1, 0.3], [0.2, 0.5, 0.3]], np.float32), 0.7)
    array([[ True, False,  True],
           [False,  True,  True]])
    """
    order = np.argsort(-saliency, axis=1, kind="stable")
    held = np.cumsum(np.take_along_axis(saliency, order, axis=1), axis=1)
    total = held[:, -1:]
    before = np.concatenate([np.zeros_like(total), held[:, :-1]], axis=1)
    marked = np.zeros(saliency.shape, bool)
    np.put_along_axis(marked, order, before < share * total, axis=1)
    return marked & (saliency > 0)


def strongest(saliency: NDArray[np.float32], fraction: float) -> NDArray[np.bool_]:
    """For each sample the given fraction of its units, those of the highest saliency, (N, U) bool.

    Units beyond the end of a shorter series are no units of it.

    >>> strongest(np.array([[0.6, 0.1, 0.3, 0.0]], np.float32), 0.5)
    array([[ True, False,  True, False]])
    """
    order = np.argsort(-saliency, axis=1, kind="stable")
    marked = np.zeros(saliency.shape, bool)
    np.put_along_axis(marked, order[:, : round(fraction * saliency.shape[1])], True, axis=1)
    return marked & (saliency > 0)


def _moved(encoder: nn.Module, batch: Batch, modality: str, others: Tensor, average: Tensor | None) -> Tensor:
    """|gradient x (content - average)|, of the content's shape; for tokens (B, L)."""
    with torch.enable_grad(), _leaf(encoder, batch, modality) as (given, leaves):
        found = F.normalize(encoder(given).float(), dim=1)
        score = torch.logsumexp(found @ others.T / TEMPERATURE, dim=1).sum()
        (leaf,) = leaves
        (gradient,) = torch.autograd.grad(score, leaf)
    with torch.no_grad():
        if average is None:
            return (gradient * (leaf - leaf.mean(0))).sum(-1).abs()
        return (gradient * (leaf - _fitting(average, leaf))).abs()


@contextmanager
def _leaf(encoder: nn.Module, batch: Batch, modality: str) -> Iterator[tuple[Batch, list[Tensor]]]:
    """The batch, and a list that holds, once the encoder ran, the tensor to differentiate by."""
    content = batch[modality]
    if content.ndim > 2 or content.is_floating_point():
        leaf = _floats(content).detach().clone().requires_grad_()
        yield {**batch, modality: leaf}, [leaf]
        return
    table = next((module for module in encoder.modules() if isinstance(module, nn.Embedding)), None)
    if table is None:
        raise RecipeError(
            "erase: the content is whole numbers, and the encoder has no nn.Embedding through which the "
            "importance of a token could be seen. Set erase: off."
        )
    leaves: list[Tensor] = []

    def tap(_module: nn.Module, _given: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    handle = table.register_forward_hook(tap)
    try:
        yield batch, leaves
    finally:
        handle.remove()


def _average(bank: Batch, modality: str, device: torch.device) -> Tensor | None:
    """The mean content of the bank; None for tokens, which have none."""
    content = bank[modality]
    if content.ndim == 2 and not content.is_floating_point():
        return None
    mean: Tensor = _floats(content).mean(0, keepdim=True).to(device)
    return mean


def _fitting(average: Tensor, content: Tensor) -> Tensor:
    """The average of series, which are padded to the length of their batch, brought to another length."""
    if average.ndim != 3 or average.shape[1] == content.shape[1]:
        return average
    return F.pad(average, (0, 0, 0, max(0, content.shape[1] - average.shape[1])))[:, : content.shape[1]]


def _floats(content: Tensor) -> Tensor:
    return unit_floats(content) if content.ndim == 4 else content.float()


def _by_unit(moved: Tensor, numbers: Tensor) -> Tensor:
    """(B, U) float32 on the CPU: the sums over units, of which each row's add up to 1."""
    flat, unit = moved.flatten(1), numbers.expand(moved.shape).flatten(1)
    sums = torch.zeros(len(moved), int(numbers.max()) + 1, device=moved.device).scatter_add_(1, unit, flat)
    return (sums / sums.sum(1, keepdim=True).clamp_min(1e-20)).cpu()


def _joined(rows: Sequence[Tensor]) -> NDArray[np.float32]:
    widest = max(part.shape[1] for part in rows)
    joined: NDArray[np.float32] = torch.cat(
        [F.pad(part, (0, widest - part.shape[1])) for part in rows]
    ).numpy()
    return joined
