from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from overtone.contracts import Address, Batch
from overtone.datasets import arrays
from overtone.discrimination import (
    COMPANIONS,
    SAMPLES,
    TEMPERATURES,
    Discrimination,
    Looks,
    discrimination,
    known_inside,
    known_together,
    some_cells,
)
from overtone.partition import Partition


def _by_loops(first: torch.Tensor, second: torch.Tensor, cells: list[int]) -> Discrimination:
    """The definition, sample by sample."""
    found, samples, entropy = 0, 0, 0.0
    losses = dict.fromkeys(TEMPERATURES, 0.0)
    for i, cell in enumerate(cells):
        members = [j for j, other in enumerate(cells) if other == cell]
        if len(members) == 1:
            continue
        cosines = {j: float(torch.cosine_similarity(first[i], second[j], dim=0)) for j in members}
        found += all(cosines[i] > cosines[j] for j in members if j != i)
        for t in TEMPERATURES:
            losses[t] += math.log(sum(math.exp((c - cosines[i]) / t) for c in cosines.values()))
        samples += 1
        entropy += math.log(len(members))
    return Discrimination(found / samples, max(0.0, 1 - min(losses.values()) / entropy))


@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_discrimination_is_its_definition(noise: float) -> None:
    draw = torch.Generator().manual_seed(3)
    first = torch.randn(40, 8, generator=draw)
    second = first + noise * torch.randn(40, 8, generator=draw)
    cells = [*torch.randint(0, 7, (39,), generator=draw).tolist(), 99]
    ours, oracle = discrimination(first, second, np.array(cells)), _by_loops(first, second, cells)
    assert ours == pytest.approx(oracle, abs=1e-5)


def test_what_is_known_falls_as_the_views_differ_and_is_nothing_for_unrelated_ones() -> None:
    draw = torch.Generator().manual_seed(0)
    first = torch.randn(300, 16, generator=draw)
    cells = np.arange(300) // 30
    known = [
        discrimination(first, first + noise * torch.randn(300, 16, generator=draw), cells).known
        for noise in (0.1, 1.0, 2.0)
    ]
    assert known[0] > 0.99
    assert known == sorted(known, reverse=True)
    assert discrimination(first, torch.randn(300, 16, generator=draw), cells).known < 0.02


def test_an_encoder_of_ten_values_knows_nothing_inside_cells_of_one_value_and_much_across_them() -> None:
    values = np.arange(600) % 10
    embeddings = torch.eye(10)[torch.from_numpy(values)]
    assert discrimination(embeddings, embeddings, values).known == pytest.approx(0, abs=1e-4)
    across = discrimination(embeddings, embeddings, np.arange(600) // 300)
    assert across.known == pytest.approx(math.log(10) / math.log(300), abs=1e-3)


def test_without_two_samples_in_any_cell_there_is_nothing_to_say() -> None:
    assert math.isnan(discrimination(torch.eye(3), torch.eye(3), np.arange(3)).known)


def test_whole_cells_are_looked_at_up_to_the_limits() -> None:
    partition = Partition(np.arange(20_000) // 50)
    rows = some_cells(partition, seed=1)
    assert SAMPLES - 50 < len(rows) <= SAMPLES
    assert np.all(np.bincount(rows // 50)[np.unique(rows // 50)] == 50)
    assert np.array_equal(rows, some_cells(partition, seed=1))
    assert not np.array_equal(rows, some_cells(partition, seed=2))
    assert len(some_cells(Partition.whole(20_000), seed=1)) == COMPANIONS


class _Left(nn.Module):
    """Sees the left half of a picture alone."""

    def forward(self, batch: Batch) -> torch.Tensor:
        content: torch.Tensor = batch["image"][:, :, :, :4].float().flatten(1)
        return content


def _left_is_kept(batch: Batch, address: Address) -> list[Batch]:
    """Two views that share their left half and nothing else."""
    draw = torch.Generator().manual_seed(address.seed % 2**31)
    made = []
    for _ in range(2):
        image = batch["image"].float()
        image[:, :, :, 4:] = torch.rand(image[:, :, :, 4:].shape, generator=draw)
        made.append({**batch, "image": image})
    return made


class _Right(_Left):
    def forward(self, batch: Batch) -> torch.Tensor:
        content: torch.Tensor = batch["image"][:, :, :, 4:].float().flatten(1)
        return content


def test_an_encoder_knows_what_the_views_leave_of_what_it_sees() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 3, 4, 8), dtype=np.uint8)
    left, right = known_inside(
        [_Left(), _Right()],
        arrays(pixels),
        _left_is_kept,
        Partition(np.arange(120) // 20),
        seed=0,
        device=torch.device("cpu"),
    )
    assert left.accuracy == 1.0
    assert left.known > 0.99
    assert right.accuracy < 0.2
    assert right.known < 0.1


def test_looking_at_several_partitions_finds_what_looking_at_each_alone_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 3, 4, 8), dtype=np.uint8)
    dataset, device = arrays(pixels), torch.device("cpu")
    calls: list[int] = []

    def views(batch: Batch, _: Address) -> list[Batch]:
        calls.extend(batch["index"].tolist())
        kept = (7 * batch["index"][:, None, None, None] + torch.arange(8)) % 3 == 0
        return [batch, {**batch, "image": batch["image"] * kept}]

    encoders = [_Left(), _Right()]
    partitions = [Partition(np.arange(3000) % cells) for cells in (2, 7, 300)]
    alone = [known_inside(encoders, dataset, views, each, seed=3, device=device) for each in partitions]
    calls.clear()
    looks = Looks(encoders, dataset, views, seed=3, device=device)
    for partition, found in zip(partitions, alone, strict=True):
        np.testing.assert_allclose(looks.inside(partition), found)
    assert len(calls) == len(set(calls)) == 3000


def _sides(draw: torch.Generator, what: torch.Tensor, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(what + noise * torch.randn(what.shape, generator=draw) for _ in range(2))  # type: ignore[return-value]


def test_what_two_encoders_know_together_is_that_of_the_best_weights_of_a_grid() -> None:
    draw = torch.Generator().manual_seed(1)
    one, two = (torch.randn(120, 6, generator=draw) for _ in range(2))
    encoders = [_sides(draw, one, 0.5), _sides(draw, two, 1.0)]
    cells = np.arange(120) // 10
    cosines = [
        [[float(torch.cosine_similarity(a[i], b[j], dim=0)) for j in range(120)] for i in range(120)]
        for a, b in encoders
    ]

    def left(weights: tuple[float, float], half: int) -> float:
        total = 0.0
        for i in range(120):
            if cells[i] % 2 == half:
                logits = {
                    j: sum(w * c[i][j] for w, c in zip(weights, cosines, strict=True))
                    for j in range(120)
                    if cells[j] == cells[i]
                }
                total += math.log(sum(math.exp(value - logits[i]) for value in logits.values()))
        return total

    grid = [(w1, w2) for w1 in np.geomspace(1, 40, 12) for w2 in np.geomspace(1, 40, 12)]
    asked = sum(left(min(grid, key=lambda w: left(w, 1 - half)), half) for half in (0, 1))
    assert known_together(encoders, cells) == pytest.approx(1 - asked / (120 * math.log(10)), abs=0.01)


def test_noise_and_repetition_add_nothing_and_what_is_new_adds() -> None:
    draw = torch.Generator().manual_seed(2)
    coarse, fine = (torch.randn(20, 8, generator=draw)[torch.arange(600) // n % 20] for n in (1, 20))
    first, new = _sides(draw, coarse, 0.3), _sides(draw, fine, 0.3)
    unrelated = _sides(draw, torch.zeros(600, 8), 1.0)
    cells = np.arange(600) // 60
    before = known_together([first], cells)
    assert known_together([first, unrelated], cells) == pytest.approx(before, abs=0.005)
    assert known_together([first, first], cells) == pytest.approx(before, abs=0.005)
    assert known_together([first, new], cells) > before + 0.1


def test_of_fewer_than_two_cells_nothing_can_be_said() -> None:
    sides = (torch.eye(4), torch.eye(4))
    assert math.isnan(known_together([sides], np.array([0, 0, 1, 2])))
