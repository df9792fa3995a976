"""Every random draw of the library begins here, at an address such as (seed, stage, step).

Two kinds of draw: streams (`generator`, `numpy_generator`) and counter-based ones (`uniforms`,
`permuted`), which depend on a sample's index alone and so are the same however a batch is split.

>>> generator(0, "init", 1).initial_seed() == generator(0, "init", 1).initial_seed()
True
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Key: TypeAlias = int | str

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = tuple(np.arange(6, dtype=np.uint64) * _GOLDEN)
_THIRTY, _TWENTY_SEVEN, _THIRTY_ONE = np.uint64(30), np.uint64(27), np.uint64(31)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def derive(seed: int, *address: Key) -> int:
    """The 63-bit seed of an address.

    >>> derive(0, "views", 3) == derive(0, "views", 3), derive(0, "views", 3) == derive(0, "views", 4)
    (True, False)
    """
    text = repr((int(seed), *(a if isinstance(a, str) else int(a) for a in address)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *address: Key) -> torch.Generator:
    """A torch stream that belongs to the address alone."""
    return torch.Generator().manual_seed(derive(seed, *address))


def numpy_generator(seed: int, *address: Key) -> np.random.Generator:
    """A NumPy stream that belongs to the address alone."""
    return np.random.default_rng(derive(seed, *address))


@contextmanager
def seeded(seed: int, *address: Key) -> Iterator[None]:
    """Seeds the global streams of torch (CPU and the current devices), NumPy and Python inside the block.

    For code that draws from them and takes no generator: a module's initialisation, dropout, a
    transform of the user's. They are put back afterwards.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        reseed(seed, *address)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def reseed(seed: int, *address: Key) -> None:
    """Seeds the same global streams, for a loop inside `seeded` that begins each step at its own address."""
    value = derive(seed, *address)
    for seed_device in _torch_streams():
        seed_device(value)
    np.random.seed(value % 2**32)
    random.seed(value)


def of_step() -> torch.Generator:
    """The process's own stream, for a method that draws inside its step.

    The step loop seeds it at (seed, stage, step, rank) before each step: what is drawn belongs to the step.
    """
    return torch.default_generator


@cache
def _torch_streams() -> list[Callable[[int], object]]:
    """What seeds the streams of the CPU and of the devices that are there.

    The same as `torch.manual_seed`, which beside that takes a stack trace for each kind of device that is
    not there: as long as the whole step of a small network.
    """
    streams: list[Callable[[int], object]] = [torch.default_generator.manual_seed]
    if (device := torch.accelerator.current_accelerator(check_available=True)) is not None:
        module = torch.get_device_module(device)
        streams.append(getattr(module, "manual_seed_all", module.manual_seed))
    return streams


def uniforms(index: Tensor, columns: int, seed: int, *address: Key) -> Tensor:
    """Random numbers that belong to (address, index): the same for a sample in whatever batch it comes.

    Args:
        index: (B,) int64, the samples.
        columns: How many numbers a sample gets.
        seed: The run's seed.
        *address: The rest of the address.

    Returns:
        (B, columns) float32 in [0, 1).

    >>> a, b = uniforms(torch.tensor([7, 9]), 2, 0, "crop"), uniforms(torch.tensor([9]), 2, 0, "crop")
    >>> torch.equal(a[1], b[0])
    True
    """
    rows = _mixed(index.cpu().numpy().astype(np.uint64) ^ np.uint64(derive(seed, *address)))
    cells = _mixed(rows[:, None] + np.arange(1, columns + 1, dtype=np.uint64) * _GOLDEN)
    return torch.from_numpy((cells >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


def keys(index: NDArray[np.int64], seed: int, *address: Key) -> NDArray[np.uint64]:
    """64 random bits for each index, (n,) uint64, that belong to (address, index)."""
    mixed: NDArray[np.uint64] = _mixed(index.astype(np.uint64) ^ np.uint64(derive(seed, *address)))
    return mixed


def permuted(
    position: NDArray[np.int64], size: NDArray[np.int64] | int, key: NDArray[np.uint64] | int
) -> NDArray[np.int64]:
    """Where each position goes under a keyed permutation of range(size), without building it.

    A Feistel network on the smallest even number of bits that holds `size`, walked until it lands
    inside (Black & Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). Costs O(1) a
    position, whatever the size.

    Args:
        position: (n,) int64, each in range(size).
        size: The size of each position's permutation, or one for all.
        key: The key of each position's permutation, or one for all.

    Returns:
        (n,) int64.

    >>> sorted(permuted(np.arange(10), 10, 42).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    sizes = np.broadcast_to(np.asarray(size, dtype=np.uint64), position.shape)
    key_of = np.broadcast_to(np.asarray(key, dtype=np.uint64), position.shape)
    _, bits = np.frexp(np.maximum(sizes, 2).astype(np.float64) - 1)
    half = ((bits + 1) // 2).astype(np.uint64)
    result = _feistel(position.astype(np.uint64), half, key_of)
    walking = np.flatnonzero(result >= sizes)
    while len(walking):
        step = _feistel(result[walking], half[walking], key_of[walking])
        result[walking] = step
        walking = walking[step >= sizes[walking]]
    return result.astype(np.int64)


def _feistel(
    value: NDArray[np.uint64], half: NDArray[np.uint64], key: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = value >> half, value & mask
    for turn in _ROUNDS:
        mixed = _mixed(right + key + turn)
        mixed &= mask
        mixed ^= left
        left, right = right, mixed
    return (left << half) | right


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014); one to one, and in place."""
    value ^= value >> _THIRTY
    value *= _FIRST
    value ^= value >> _TWENTY_SEVEN
    value *= _SECOND
    value ^= value >> _THIRTY_ONE
    return value
