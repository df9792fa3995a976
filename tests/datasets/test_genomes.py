from __future__ import annotations

import numpy as np
import pytest

from overtone.datasets import genomes
from overtone.datasets.genomes import CONTENTS, SPECIES, Genomes
from overtone.errors import RecipeError


def _bases(dataset: Genomes) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.stack([dataset[i]["sequence"].numpy() for i in range(len(dataset))])


def test_more_g_and_c_are_read_where_the_content_is_higher() -> None:
    dataset = genomes(600, errors=0.0)
    read = np.isin(_bases(dataset), (1, 2)).mean(1)
    means = [read[dataset.labels["gc"] == code].mean() for code in range(4)]
    assert means == sorted(means)
    assert np.allclose(means, CONTENTS, atol=0.04)


def test_each_species_follows_its_own_table_of_what_comes_after_three_bases() -> None:
    dataset = genomes(2000, errors=0.0)
    bases, species = _bases(dataset), dataset.labels["species"]
    words = sum(bases[:, at : at + 397] * 4 ** (3 - at) for at in range(4))
    counts = np.stack([np.bincount(row, minlength=256) for row in words])
    # Log-odds of the next base in two halves of a species' samples agree; those of two species do not.
    own, other = [], []
    for code in range(SPECIES):
        rows = np.flatnonzero(species == code)
        halves = [_odds(counts[part].sum(0)) for part in (rows[::2], rows[1::2])]
        stranger = _odds(counts[species == (code + 1) % SPECIES].sum(0))
        own.append(np.corrcoef(halves[0], halves[1])[0, 1])
        other.append(np.corrcoef(halves[0], stranger)[0, 1])
    assert min(own) > max(other)
    assert np.mean(own) > 0.7
    assert abs(np.mean(other)) < 0.25


def _odds(
    counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    log = np.log(counts.reshape(64, 4) + 1.0)
    odds: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (log - log.mean(1, keepdims=True)).ravel()
    return odds


def test_so_many_bases_are_misread_as_another() -> None:
    clean, read = _bases(genomes(200, errors=0.0)), _bases(genomes(200, errors=0.2))
    wrong = clean != read
    assert abs(wrong.mean() - 0.2) < 0.01
    shift = (read - clean)[wrong] % 4
    assert np.allclose(np.bincount(shift, minlength=4) / len(shift), [0, 1 / 3, 1 / 3, 1 / 3], atol=0.02)


def test_values_out_of_range_are_named() -> None:
    for arguments in ({"length": 3}, {"errors": 1.0}):
        with pytest.raises(RecipeError, match=r"give n >= 1, length >= 4"):
            genomes(5, **arguments)


def test_as_many_species_as_asked_for_lie_as_far_apart_as_asked_for() -> None:
    def apart(bias: float) -> float:
        """How far what follows three bases is from even, over all species: their habits, and chance."""
        dataset = genomes(300, species=3, bias=bias, errors=0.0)
        assert set(dataset.labels["species"].tolist()) == {0, 1, 2}
        bases = _bases(dataset)
        words = sum(bases[:, at : at + 397] * 4 ** (3 - at) for at in range(4))
        odds = [
            _odds(np.bincount(words[dataset.labels["species"] == code].ravel(), minlength=256))
            for code in range(3)
        ]
        return float(np.std(odds))

    assert apart(0.0) < 0.3 * apart(0.7)
    assert len(genomes(4, species=200).label_names["species"]) == 200
    with pytest.raises(RecipeError, match="species=0"):
        genomes(4, species=0)
