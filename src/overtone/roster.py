"""The samples a run was begun with, so that it can say which have changed when it is continued."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overtone import artifacts, npy
from overtone.contracts import Dataset
from overtone.errors import RunError

FOLDER = "data"
_SHOWN = 5


def require_same(dataset: Dataset, folder: Path) -> None:
    """Writes down the ids and contents of a run's samples; later, refuses to go on with others.

    Args:
        dataset: The run's training set. Where it has `digests`, (N,) uint64, edited samples are told too.
        folder: The run's.

    Raises:
        RunError: Samples were added, removed or edited since; the message names the first.
    """
    place = folder / FOLDER
    begun = (folder / "identities").exists()  # the first thing that a run makes of its data
    if begun and artifacts.is_complete(place):
        manifest = artifacts.read_json(place / artifacts.MANIFEST)
        if manifest.get("inputs") != _inputs(dataset):
            artifacts.verify(place)
            raise RunError(
                f"{folder}: was made from another data set: {_shown(differences(*_read(place), dataset))}. "
                "Bring the data back as they were, or choose another folder with --out."
            )
    elif not begun:
        with artifacts.writing(place, _inputs(dataset)) as beside:
            with (beside / "ids.jsonl").open("w") as file:
                file.writelines(json.dumps(name) + "\n" for name in dataset.ids)
            np.save(beside / "digests.npy", _digests(dataset), allow_pickle=False)


def differences(
    ids: Sequence[str], digests: NDArray[np.uint64], dataset: Dataset
) -> Iterator[tuple[str, str]]:
    """What became of the samples with these ids and digests: (id, "was removed" | "is new" | "was edited").

    >>> from overtone.datasets import tones
    >>> list(differences(["0", "7"], np.zeros(0, np.uint64), tones(2)))
    [('7', 'was removed'), ('1', 'is new')]
    """
    rows = {name: row for row, name in enumerate(dataset.ids)}
    yield from ((name, "was removed") for name in ids if name not in rows)
    before = {name: row for row, name in enumerate(ids)}
    yield from ((name, "is new") for name in dataset.ids if name not in before)
    now = _digests(dataset)
    if len(now) and len(digests):
        both = ((name, row, rows[name]) for name, row in before.items() if name in rows)
        yield from ((name, "was edited") for name, then, row in both if digests[then] != now[row])


def _shown(changes: Iterator[tuple[str, str]]) -> str:
    first = [f"{name!r} {what}" for name, what in islice(changes, _SHOWN)]
    more = sum(1 for _ in changes)
    if not first:
        return "all samples have the same names, but not all the same content, order or form"
    return "; ".join(first) + (f"; and {more:,} more" if more else "")


def _inputs(dataset: Dataset) -> dict[str, str]:
    return {"fingerprint": dataset.fingerprint}


def _digests(dataset: Dataset) -> NDArray[np.uint64]:
    found: Any = getattr(dataset, "digests", None)
    return np.zeros(0, np.uint64) if found is None else np.asarray(found)


def _read(place: Path) -> tuple[list[str], NDArray[Any]]:
    with (place / "ids.jsonl").open() as file:
        return [json.loads(line) for line in file], npy.mapped(place / "digests.npy")
