"""Stretches of genomes: sequences of bases in which how many are G or C drowns the species."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from overtone.contracts import Batch, Sample
from overtone.errors import RecipeError
from overtone.rng import uniforms

BASES = "ACGT"
SPECIES = 24
CONTENTS = (0.44, 0.48, 0.52, 0.56)
"""Shares of G and C that the bases would have if they followed each other at random."""
_ORDER = 3


class Genomes:
    """Samples `{"index": int, "sequence": (L,) int64}`, positions in `BASES`; else as `contracts.Dataset`."""

    def __init__(
        self,
        sequences: NDArray[np.uint8],
        ids: Sequence[str],
        labels: Mapping[str, NDArray[np.int64]],
        label_names: Mapping[str, Sequence[str]],
    ) -> None:
        self.modality = "sequence"
        self.ids = ids
        self.labels = labels
        self.label_names = label_names
        told = repr((ids, sequences.shape)).encode() + sequences.tobytes()
        self.fingerprint = hashlib.blake2b(told, digest_size=16).hexdigest()
        self._sequences = sequences

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        return {"index": index, "sequence": torch.from_numpy(self._sequences[index].astype(np.int64))}

    def collate(self, samples: list[Sample]) -> Batch:
        """`{"index": (B,) int64, "sequence": (B, L) int64}`."""
        return {
            "index": torch.tensor([sample["index"] for sample in samples], dtype=torch.int64),
            "sequence": torch.stack([sample["sequence"] for sample in samples]),
        }


def genomes(
    n: int,
    *,
    length: int = 400,
    species: int = SPECIES,
    bias: float = 0.25,
    errors: float = 0.05,
    seed: int = 0,
    start: int = 0,
) -> Genomes:
    """Stretches of DNA with independent attributes: `species`, and `gc`, 4 shares of G and C.

    Each species is a Markov chain of order 3: which base follows three others is its own habit, and thereby
    which codons it prefers. `gc` shifts the odds of G and C in all of them. Then bases are misread. Sample i
    is a function of (seed, start + i) alone: take another `start` for a test set.

    Args:
        n: How many.
        length: Bases of each, at least 4.
        species: How many there are. The fewer, the more samples of an anchor's own are among its negatives.
        bias: How far they lie apart: the deviation of the log-odds of a species' next base.
        errors: Share of bases that are read as another one.
        seed: Address of the draws, with "genomes"; other seeds have other species.
        start: Number of the first sample.

    Raises:
        RecipeError: A value is out of range.

    >>> dataset = genomes(2, length=8)
    >>> dataset[1]["sequence"].shape, dataset.label_names["gc"]
    (torch.Size([8]), ['44%', '48%', '52%', '56%'])
    """
    if n < 1 or length <= _ORDER or species < 1 or bias < 0 or not 0 <= errors < 1:
        raise RecipeError(
            f"genomes: n={n}, length={length}, species={species}, bias={bias}, errors={errors}; "
            "give n >= 1, length >= 4, species >= 1, bias >= 0, errors from 0 to 1"
        )
    index = torch.arange(start, start + n)
    kinds = uniforms(index, 2, seed, "genomes").double().numpy()
    codes, content = ((kinds[:, k] * m).astype(np.int64) for k, m in enumerate((species, len(CONTENTS))))
    draws = uniforms(index, length, seed, "genomes", "bases").numpy()
    read = _misread(_followed(_habits(species, bias, seed), codes, content, draws), errors, index, seed)
    return Genomes(
        read,
        [str(start + i) for i in range(n)],
        {"species": codes, "gc": content},
        {"species": [str(i) for i in range(species)], "gc": [f"{share:.0%}" for share in CONTENTS]},
    )


def _habits(species: int, bias: float, seed: int) -> NDArray[np.float64]:
    """(species, contents, 64, 4): after each three bases, the cumulative probabilities of the next."""
    drawn = uniforms(torch.arange(species), 4 ** (_ORDER + 1), seed, "genomes", "habits")
    habit = torch.special.ndtri(drawn.double() + 2**-25).numpy().reshape(species, 1, -1, 4)
    shares = np.array([[1 - share, share, share, 1 - share] for share in CONTENTS])[:, None, :]
    odds = shares * np.exp(bias * habit)
    cumulated: NDArray[np.float64] = np.cumsum(odds / odds.sum(-1, keepdims=True), axis=-1)
    return cumulated


def _followed(
    habits: NDArray[np.float64],
    species: NDArray[np.int64],
    content: NDArray[np.int64],
    draws: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """(n, length): the chains from their draws; the first three bases follow as if AAA were before them."""
    before, bases = np.zeros(len(draws), np.int64), np.empty(draws.shape, np.uint8)
    for place in range(draws.shape[1]):
        odds = habits[species, content, before]
        bases[:, place] = (draws[:, place, None] >= odds[:, :3]).sum(1)
        before = (before * 4 + bases[:, place]) % 4**_ORDER
    return bases


def _misread(bases: NDArray[np.uint8], errors: float, index: torch.Tensor, seed: int) -> NDArray[np.uint8]:
    """The bases with a share of them replaced by one of the other three."""
    draws = uniforms(index, 2 * bases.shape[1], seed, "genomes", "errors").numpy()
    wrong, other = np.split(draws, 2, axis=1)
    read: NDArray[np.uint8] = np.where(wrong < errors, (bases + 1 + (other * 3).astype(np.uint8)) % 4, bases)
    return read
