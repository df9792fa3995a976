"""Which samples of a run are one, found once before its first stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from overtone import artifacts
from overtone.identities import find_identities, report
from overtone.progress import Display
from overtone.run_folder import Parts, array_in, reusable


def identities_of(parts: Parts, folder: Path, display: Display) -> NDArray[np.int64]:
    """(N,), the same number for samples that are copies of each other."""
    place = folder / "identities"
    inputs = {"data": parts.dataset.fingerprint, "duplicates": parts.duplicates}
    if not reusable(place, inputs):
        with artifacts.writing(place, inputs) as beside:
            identities = find_identities(
                parts.dataset,
                parts.duplicates,
                num_workers=parts.num_workers,
                scratch=beside,
                progress=lambda done, total: display.advance("looks for copies", done, total),
            )
            np.save(beside / "identities.npy", identities, allow_pickle=False)
        report(identities)
    return identities_kept(folder)


def identities_kept(folder: Path) -> NDArray[np.int64]:
    """The identities that a run trains with."""
    return array_in(folder / "identities" / "identities.npy", 1)
