"""Short tones: series of different lengths, in which pitch drowns timbre and envelope."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from overtone.contracts import Batch, Sample
from overtone.errors import RecipeError
from overtone.rng import uniforms

SHORTEST, LONGEST = 96, 256
PITCHES = 0.036 * 2 ** (np.arange(8) / 4)
"""Fundamentals in cycles a step, nearly two octaves up from 0.036; the fourth partial stays below a half."""
TIMBRES = np.array([[1, *(0.45 * (code >> bit & 1) for bit in range(3))] for code in range(8)])
"""Weights of the partials 1 to 4: which of the three overtones sound."""
ENVELOPES = tuple((attack, decay) for attack in (0.02, 0.5) for decay in (0.0, 1.0, 2.0, 4.0))
"""Rise, as a fraction of the length, and decay after it, in e-foldings over the whole length."""

_COLUMNS = 6


class Tones:
    """Samples `{"index": int, "series": (L, 1) float32}`; attributes as in `contracts.Dataset`."""

    def __init__(
        self,
        series: Sequence[NDArray[np.float32]],
        ids: Sequence[str],
        labels: Mapping[str, NDArray[np.int64]],
        label_names: Mapping[str, Sequence[str]],
    ) -> None:
        self.modality = "series"
        self.ids = ids
        self.labels = labels
        self.label_names = label_names
        digest = hashlib.blake2b(repr(ids).encode(), digest_size=16)
        for one in series:
            digest.update(repr(one.shape).encode() + one.tobytes())
        self.fingerprint = digest.hexdigest()
        self._series = series

    def __len__(self) -> int:
        return len(self._series)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        return {"index": index, "series": torch.from_numpy(self._series[index].copy())[:, None]}

    def collate(self, samples: list[Sample]) -> Batch:
        """`{"index": (B,) int64, "series": (B, L, 1), zero after the end, "length": (B,) int64}`."""
        series = [sample["series"] for sample in samples]
        return {
            "index": torch.tensor([sample["index"] for sample in samples], dtype=torch.int64),
            "series": pad_sequence(series, batch_first=True),
            "length": torch.tensor([len(one) for one in series], dtype=torch.int64),
        }


def tones(n: int, *, seed: int = 0, start: int = 0) -> Tones:
    """Tones of 96 to 256 steps with attributes `pitch`, `timbre` and `envelope`, 8 classes each, independent.

    Phase, length and a little noise vary. Sample i is a function of (seed, start + i) alone: take
    another `start` for a test set.

    Args:
        n: How many.
        seed: Address of the draws, with "tones".
        start: Number of the first sample.

    Raises:
        RecipeError: Fewer than one.

    >>> dataset = tones(4)
    >>> batch = dataset.collate([dataset[0], dataset[1]])
    >>> batch["series"].shape[1] == batch["length"].max()
    tensor(True)
    """
    if n < 1:
        raise RecipeError(f"tones: n={n}; give at least 1")
    draws = uniforms(torch.arange(start, start + n), _COLUMNS + LONGEST, seed, "tones").double().numpy()
    kinds = (draws[:, :3] * 8).astype(np.int64)
    length = SHORTEST + (draws[:, 3] * (LONGEST - SHORTEST + 1)).astype(np.int64)
    waves = _sounded(kinds, length, draws)
    names = {
        "pitch": [f"{pitch:.3f}" for pitch in PITCHES],
        "timbre": ["+".join(str(p + 1) for p in np.flatnonzero(weights)) for weights in TIMBRES],
        "envelope": [f"rise {attack:g} decay {decay:g}" for attack, decay in ENVELOPES],
    }
    return Tones(
        [wave[:end] for wave, end in zip(waves, length, strict=True)],
        [str(start + i) for i in range(n)],
        {name: kinds[:, column].copy() for column, name in enumerate(names)},
        names,
    )


def _sounded(
    kinds: NDArray[np.int64], length: NDArray[np.int64], draws: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(n, 256): partials times envelope plus noise, still to be cut to their lengths."""
    time = np.arange(LONGEST)[None, :]
    phase = PITCHES[kinds[:, 0], None] * time + draws[:, 4, None]
    weights = TIMBRES[kinds[:, 1]]
    wave = sum(weights[:, p, None] * np.sin(2 * np.pi * (p + 1) * phase) for p in range(4))
    attack, decay = (np.array(ENVELOPES)[kinds[:, 2], k, None] for k in (0, 1))
    passed = time / length[:, None]
    envelope = np.minimum(passed / attack, 1) * np.exp(-decay * np.maximum(passed - attack, 0))
    loudness = 0.8 + 0.4 * draws[:, 5, None]
    noise = 0.1 * (draws[:, _COLUMNS:] - 0.5)
    sounded: NDArray[np.float64] = loudness * wave * envelope + noise
    return sounded.astype(np.float32)
