"""The embeddings of a whole dataset: what clustering, the probes and the next stage work on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from overtone.artifacts import disk_errors
from overtone.contracts import Batch, Dataset
from overtone.errors import DataError, NumericalError, RecipeError
from overtone.loading import chunks, loaded
from overtone.npy import created
from overtone.rng import generator
from overtone.skipping import noted

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16}


def embed(
    encoder: nn.Module,
    dataset: Dataset,
    *,
    batch_size: int = 512,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    rows: range | None = None,
    out: Path | None = None,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Runs a dataset through an encoder, in order and in eval mode; row i belongs to sample i.

    Args:
        encoder: Takes a batch, gives (B, D). Every module's training flag is put back afterwards.
        dataset: N samples.
        batch_size: Samples at a time; bounds the memory and, up to rounding, changes nothing else.
        device: Where to run, and where the encoder is moved; by default where it is.
        precision: `fp32`, or `bf16` for autocast.
        rows: Of which samples, all by default; n of them.
        out: A `.npy` file that takes the embeddings, complete or not at all, however large they are.
        num_workers: Processes that load samples.
        progress: Called after each batch with the samples done and n.

    Returns:
        (n, D) float32: an array, or with `out` a read-only memory map of the file.

    Raises:
        RecipeError: An unknown precision, or an encoder that does not give one row a sample.
        DataError: The dataset is empty.
        NumericalError: An embedding is not finite; the message names the first samples.
        DiskError: `out` cannot be written.

    >>> class Pair(list):
    ...     ids, collate = ["a", "b"], staticmethod(torch.utils.data.default_collate)
    >>> class Double(nn.Module):
    ...     forward = staticmethod(lambda batch: 2 * batch["series"])
    >>> embed(Double(), Pair({"index": i, "series": torch.tensor([float(i)])} for i in range(2))).tolist()
    [[0.0], [2.0]]
    """
    if precision not in _AUTOCAST:
        raise RecipeError(f"precision: {precision!r} is unknown; expected one of {', '.join(_AUTOCAST)}.")
    rows = range(len(dataset)) if rows is None else rows
    if not len(rows):
        raise DataError("embed: the dataset is empty; expected at least one sample.")
    device = next((p.device for p in encoder.parameters()), "cpu") if device is None else device
    order, draws = chunks(rows, batch_size), generator(0, "embed")
    with (
        loaded(dataset, order, num_workers=num_workers, generator=draws) as batches,
        evaluating(encoder),
    ):
        read = noted(batches, dataset)
        found = _embedded(encoder.to(device), read, torch.device(device), _AUTOCAST[precision])
        ids = [dataset.ids[row] for row in rows] if len(rows) < len(dataset) else dataset.ids
        if out is None:
            return _filled(_array, found, ids, progress)
        return _file(out, lambda beside: _filled(partial(created, beside), found, ids, progress))


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """A batch with its tensors, also those in dicts inside it, on a device; all else is kept.

    >>> to_device({"index": torch.tensor([3]), "text": ["a bird"]}, "cpu")
    {'index': tensor([3]), 'text': ['a bird']}
    """
    return {key: _moved(value, device) for key, value in batch.items()}


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, dict):
        return to_device(value, device)
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


@contextmanager
def evaluating(encoder: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; afterwards every module's training flag is as it was."""
    # Module by module: `encoder.train()` afterwards would also wake the parts that its owner froze.
    was_training = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training


def _embedded(
    encoder: nn.Module, batches: Iterator[Batch], device: torch.device, autocast: torch.dtype | None
) -> Iterator[NDArray[np.float32]]:
    for batch in batches:
        # Entered anew for each batch: a suspended generator would leave these modes on for its caller.
        with torch.inference_mode(), torch.autocast(device.type, autocast, enabled=autocast is not None):
            embeddings = encoder(to_device(batch, device))
        if embeddings.ndim != 2 or len(embeddings) != len(batch["index"]):
            raise RecipeError(
                f"encoder: gave {tuple(embeddings.shape)} for a batch of {len(batch['index'])} samples; "
                "expected (batch, dimension). Pool or flatten its output."
            )
        found: NDArray[np.float32] = embeddings.float().cpu().numpy()
        yield found


def _filled(
    allocate: Callable[[tuple[int, int]], NDArray[np.float32]],
    chunks: Iterator[NDArray[np.float32]],
    ids: Sequence[str],
    progress: Callable[[int, int], None] | None,
) -> NDArray[np.float32]:
    done, total = 0, len(ids)
    for rows in chunks:
        _check_finite(rows, ids[done : done + len(rows)])
        if not done:
            result = allocate((total, rows.shape[1]))
        result[done : done + len(rows)] = rows
        done += len(rows)
        if progress is not None:
            progress(done, total)
    if isinstance(result, np.memmap):
        result.flush()
    return result


def _check_finite(rows: NDArray[np.float32], ids: Sequence[str]) -> None:
    bad = [ids[int(row)] for row in np.flatnonzero(~np.isfinite(rows).all(axis=1))]
    if bad:
        raise NumericalError(
            f"embeddings: not finite for {len(bad)} of a batch of {len(rows)} samples, first "
            f"{', '.join(bad[:5])}; expected finite numbers. Look at these samples and at the encoder's "
            "weights, or use precision: fp32."
        )


def _file(out: Path, fill: Callable[[Path], object]) -> NDArray[np.float32]:
    beside = out.with_name(f".{out.name}.writing")
    beside.unlink(missing_ok=True)  # it might be a link
    try:
        fill(beside)
        with disk_errors(out):
            beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    embeddings: NDArray[np.float32] = np.load(out, mmap_mode="r", allow_pickle=False)
    return embeddings


def _array(shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.empty(shape, np.float32)
