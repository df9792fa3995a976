"""What a training keeps in memory and how fast it is, found out on a few samples."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from overtone import rng
from overtone.contracts import Address, Batch
from overtone.embedding import evaluating, to_device
from overtone.encoders import Encoder, add_lora, trainable
from overtone.gradients import gradients_of
from overtone.optim import build_optimizer
from overtone.run_folder import Parts
from overtone.stages import StageSpec
from overtone.training import place, with_ids

_SIZES = (2, 4, 8)  # batches of which memory is read: as many as it takes to know a square
_STEPS = 5  # of calibration, after one to warm up


class Held(NamedTuple):
    """Bytes of one stage's training.

    Attributes:
        encoder: Of the encoder that the stage leaves behind: its parameters and buffers, as they are saved.
        method: Of everything that a checkpoint keeps beside the optimiser's state.
        weights: Parameters and buffers in memory.
        gradients: Of the parameters that learn.
        optimizer: State.
        batch: Of one sample: decoded, and its views.
        activations: What a forward pass over a batch keeps for the backward: (constant, each sample, each
            pair of a row and a column).
        scratch: Of one sample, the largest two tensors of a forward pass.
        dim: Of the embeddings.
    """

    encoder: int
    method: int
    weights: int
    gradients: int
    optimizer: int
    batch: int
    activations: tuple[float, float, float]
    scratch: int
    dim: int

    def kept(self, rows: int, columns: int) -> float:
        """Bytes that the forward pass of a step keeps, of so many rows beside so many columns."""
        constant, each, pair = self.activations
        return constant + each * rows + pair * rows * columns


def held(parts: Parts, spec: StageSpec) -> Held:
    """Builds what a stage trains, with random weights, and reads its memory off small batches.

    What the forward pass keeps grows with the batch as a polynomial of degree two, exactly, where each
    sample takes equally much; so three sizes tell it for all. With `micro_batch_size` a pass is over that
    many samples of one view.

    Args:
        parts: Of the run; its dataset may be a stand-in.
        spec: The stage.
    """
    encoder, method, saved = _built(parts, spec)
    place(method, parts.precision, parts.device, parts.layout)
    learning = [p for p in method.parameters() if p.requires_grad]
    a_view = sum(_content(view) for view in _views(parts, _SIZES[0])) // _SIZES[0]
    passes = [_forward(parts, method, spec.micro_batch_size is not None, size) for size in _SIZES]
    with torch.no_grad(), evaluating(encoder):
        dim = encoder(to_device(_batch(parts, 2), parts.device)).shape[1]
    powers = np.vander(_SIZES, 3, increasing=True).astype(float)
    coefficients = np.linalg.solve(powers, [found.total for found in passes])
    constant, each, pair = (max(0.0, round(float(value), 3)) for value in coefficients)
    moments = {"adamw": 2, "sgd": 1}[spec.optimizer]
    return Held(
        encoder=saved,
        method=_bytes(method.state_dict().values()),
        weights=_bytes([*method.parameters(), *method.buffers()]),
        gradients=_bytes(learning),
        optimizer=moments * _bytes(learning) + (4 * len(learning) if spec.optimizer == "adamw" else 0),
        batch=_content(_batch(parts, 1)) + a_view,
        activations=(constant, each, pair),
        scratch=2 * passes[-1].largest // _SIZES[-1],
        dim=dim,
    )


class Speed(NamedTuple):
    """Samples a second of one process, without loading them."""

    train: float
    embed: float


def speed(parts: Parts, spec: StageSpec, batch_size: int) -> Speed:
    """Trains a few steps of a stage on this machine, and embeds a few batches.

    Args:
        parts: Of the run; its dataset may be a stand-in.
        spec: The stage.
        batch_size: Samples a step on this process.
    """
    encoder, method, _ = _built(parts, spec)
    place(method, parts.precision, parts.device, parts.layout)
    method.train()
    optimizer = build_optimizer(method, name=spec.optimizer, lr=1e-6, weight_decay=0.0)
    gradients = gradients_of(method, parts.precision, parts.device, spec.micro_batch_size)
    batch = _batch(parts, batch_size)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        gradients(parts.views(to_device(batch, parts.device), Address(0, 0, 0)))
        optimizer.step()

    def embed() -> None:
        with torch.inference_mode(), evaluating(encoder), _autocast(parts):
            encoder(to_device(batch, parts.device)).cpu()

    return Speed(*(batch_size / _median_seconds(work, parts.device) for work in (step, embed)))


def _median_seconds(work: Callable[[], None], device: torch.device) -> float:
    taken = []
    with rng.seeded(0, "calibration"):
        for _ in range(_STEPS + 1):
            began = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


class _Built(NamedTuple):
    encoder: Encoder
    method: nn.Module
    saved: int  # bytes of the encoder without adapters


def _built(parts: Parts, spec: StageSpec) -> _Built:
    """What a stage trains, as it stands before the first step but for the values of the weights."""
    with rng.seeded(0, "probe"):
        encoder = parts.encoder(1)  # of stage 0 it might fetch weights
        saved = _bytes(encoder.state_dict().values())
        if spec.lora is not None:
            beside = "none" if spec.trainable == "all" else spec.trainable
            add_lora(encoder, spec.lora.modules, rank=spec.lora.rank, alpha=spec.lora.alpha, beside=beside)
        else:
            trainable(encoder, spec.trainable)
        method = parts.method(encoder)
    return _Built(encoder, method, saved)


class _Kept(NamedTuple):
    total: int
    largest: int


def _forward(parts: Parts, method: Any, in_parts: bool, size: int) -> _Kept:
    method.train()
    views = _views(parts, size)
    with rng.seeded(0, "probe"), _autocast(parts):
        if not in_parts:
            return _kept(partial(method.step, views), method, views)
        gradients_of(method, parts.precision, parts.device, size)  # refuses what cannot be done in parts
        found = [_kept(partial(method.project, view), method, views) for view in views]
        return max(found, key=lambda kept: kept.total)


def _kept(forward: Callable[[], object], method: nn.Module, views: list[Batch]) -> _Kept:
    """The memory that the graph of a forward pass holds, beyond the weights and the views themselves."""
    known = {_storage(t) for t in (*method.parameters(), *method.buffers(), *_tensors(views))}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in known:
            found[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        graph = forward()  # held, so that no memory of it is given away twice
    del graph
    return _Kept(sum(found.values()), max(found.values(), default=0))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(value: object) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _tensors(inner)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _content(batch: Batch) -> int:
    return _bytes(_tensors({key: value for key, value in batch.items() if key not in ("cell", "identity")}))


def _batch(parts: Parts, size: int) -> Batch:
    """So many samples, of which none is a copy of another, in one cell."""
    data, index = parts.dataset, np.arange(size)
    batch = data.collate([data[row % len(data)] for row in range(size)])
    return with_ids({**batch, "index": torch.from_numpy(index)}, np.zeros(size, np.int64), index)


def _views(parts: Parts, size: int) -> list[Batch]:
    return parts.views(to_device(_batch(parts, size), parts.device), Address(0, 0, 0))


def _autocast(parts: Parts) -> torch.autocast:
    return torch.autocast(parts.device.type, torch.bfloat16, enabled=parts.precision == "bf16")
