from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from overtone import rng


def test_streams_of_one_address_agree_and_of_others_differ() -> None:
    assert rng.generator(1, "a", 2).initial_seed() == rng.generator(1, "a", 2).initial_seed()
    seeds = {
        rng.derive(1, "a", 2),
        rng.derive(1, "a", 3),
        rng.derive(2, "a", 2),
        rng.derive(1, "b", 2),
        rng.derive(1, "a"),
    }
    assert len(seeds) == 5
    assert rng.numpy_generator(0, 1).random() != rng.numpy_generator(0, 2).random()


def test_numbers_and_their_texts_are_different_addresses() -> None:
    assert rng.derive(0, 1) != rng.derive(0, "1")
    assert rng.derive(0, np.int64(1)) == rng.derive(0, 1)  # type: ignore[arg-type]


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    values = rng.uniforms(torch.arange(20_000), 3, 0, "test").double()
    assert values.min() >= 0
    assert values.max() < 1
    counts = torch.stack([torch.histc(column, 50, 0, 1) for column in values.T])
    # Chi-square of 49 degrees of freedom: below 85 with probability 0.999.
    assert (((counts - 400) ** 2 / 400).sum(dim=1) < 85).all()
    correlations = torch.corrcoef(torch.cat([values.T, values.T[:, torch.arange(-1, 19_999)]]))
    assert (correlations - torch.eye(6, dtype=torch.float64)).abs().max() < 0.03


def test_uniforms_belong_to_the_index_whatever_the_batch() -> None:
    index = torch.tensor([5, 2**33, 0, 7])
    whole = rng.uniforms(index, 4, 3, "crop", 9)
    for row, one in zip(whole, index, strict=True):
        assert torch.equal(rng.uniforms(one[None], 4, 3, "crop", 9)[0], row)
    assert not torch.equal(whole, rng.uniforms(index, 4, 3, "crop", 10))


@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_permuted_is_a_bijection_for_every_size(key: int) -> None:
    for size in range(1, 201):
        assert sorted(rng.permuted(np.arange(size), size, key).tolist()) == list(range(size))


def test_permuted_takes_a_size_and_a_key_for_each_position() -> None:
    sizes, keys = np.array([3, 100, 7]), np.array([1, 2, 3], dtype=np.uint64)
    together = rng.permuted(np.array([2, 50, 6]), sizes, keys)
    alone = [
        rng.permuted(np.array([p]), int(s), int(k))[0]
        for p, s, k in zip([2, 50, 6], sizes, keys, strict=True)
    ]
    assert together.tolist() == alone


def test_permuted_reaches_sizes_beyond_32_bits() -> None:
    size = 2**40 + 7
    places = rng.permuted(np.arange(size - 1000, size), size, 5)
    assert len(np.unique(places)) == 1000
    assert places.min() >= 0
    assert places.max() < size
    assert places.max() - places.min() > size // 2


@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_order_of_a_few_comes_equally_often(size: int) -> None:
    keys = rng.keys(np.arange(6000), 0, "orders")
    orders = np.stack([rng.permuted(np.full(6000, p), size, keys) for p in range(size)], axis=1)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    expected = 6000 / len(counts)
    assert len(counts) == [2, 6, 24][size - 2]
    # Chi-square of 23 degrees of freedom at most: below 50 with probability 0.999.
    assert ((counts - expected) ** 2 / expected).sum() < 50


@pytest.mark.parametrize("size", [16, 17, 50])
def test_neighbours_land_anywhere(size: int) -> None:
    keys = rng.keys(np.arange(8000), 1, "neighbours")
    first = rng.permuted(np.zeros(8000, np.int64), size, keys)
    second = rng.permuted(np.ones(8000, np.int64), size, keys)
    counts = np.bincount((second - first) % size, minlength=size)[1:]
    expected = 8000 / (size - 1)
    # At 48 degrees of freedom: below 84 with probability 0.999.
    assert ((counts - expected) ** 2 / expected).sum() < 84


def test_keys_of_a_million_indices_do_not_collide() -> None:
    assert len(np.unique(rng.keys(np.arange(1_000_000), 0, "keys"))) == 1_000_000


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.random()), random.random()


def test_seeded_fixes_all_streams_inside_and_puts_them_back() -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = draws()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with rng.seeded(7, "init"):
        inside = draws()
    assert draws() == expected
    with rng.seeded(7, "init"):
        assert draws() == inside
    with rng.seeded(8, "init"):
        assert draws() != inside


def test_seeded_puts_the_streams_back_after_an_error() -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = draws()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with pytest.raises(ZeroDivisionError), rng.seeded(7):
        raise ZeroDivisionError
    assert draws() == expected
