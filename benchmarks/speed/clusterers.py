"""What `clustering.py` and `cells.py` share: drawn embeddings, and contenders in processes of their own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone.kmeans import kmeans

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_ROWS = 50_000


def _ours(rows: Floats, k: int) -> Ints:
    return kmeans(rows, k, seed=0).labels_


def _minibatch(rows: Floats, k: int) -> Ints:
    from sklearn.cluster import MiniBatchKMeans

    labels: Ints = MiniBatchKMeans(k, random_state=0).fit(rows).labels_
    return labels


def _faiss(rows: Floats, k: int) -> Ints:
    import faiss

    found = faiss.Kmeans(rows.shape[1], k, spherical=True, seed=0)
    found.train(rows)
    labels: Ints = found.index.search(rows, 1)[1].ravel()
    return labels


CONTENDERS: dict[str, Callable[[Floats, int], Ints]] = {
    "ours": _ours,
    "MiniBatchKMeans": _minibatch,
    "faiss": _faiss,
}


class Found(NamedTuple):
    """What a contender took and found: seconds, anonymous megabytes beyond its start, inertia a sample."""

    seconds: float
    megabytes: float
    inertia: float
    smallest: int
    largest: int
    outside: float  # the share of cells beyond a quarter of the mean size to four times it


def draw(n: int, dimension: int, folder: Path) -> Path:
    """Unit rows around 1,000 centers of uneven weight, with 32 shared factors and noise; kept as a file."""
    file = folder / f"drawn-{n}x{dimension}.npy"
    if file.exists():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    centers = draws.standard_normal((1000, dimension), dtype=np.float32)
    weights = draws.lognormal(size=1000)
    factors = draws.standard_normal((32, dimension)) / np.sqrt(np.arange(1, 33))[:, None]
    beside = file.with_suffix(".part")
    rows = np.lib.format.open_memmap(beside, "w+", np.float32, (n, dimension))
    for begin in range(0, n, _ROWS):
        part = rows[begin : begin + _ROWS]
        part[:] = centers[draws.choice(1000, len(part), p=weights / weights.sum())]
        part += draws.standard_normal((len(part), 32), dtype=np.float32) @ factors.astype(np.float32)
        part += 0.3 * draws.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    rows.flush()
    beside.rename(file)
    return file


def in_turn(names: Sequence[str], file: Path, k: int, repeats: int) -> dict[str, Found]:
    """Each contender's median of some runs, each a process of its own, in turn; of none, one run here."""
    if not repeats:
        return {name: Found(**_run(name, file, k)) for name in names}
    runs: dict[str, list[Found]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            command = [sys.executable, __file__, name, str(file), str(k)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            runs[name].append(Found(**json.loads(said.splitlines()[-1])))
    return {
        name: found[0]._replace(
            seconds=statistics.median(run.seconds for run in found),
            megabytes=max(run.megabytes for run in found),
        )
        for name, found in runs.items()
    }


def _run(name: str, file: Path, k: int) -> dict[str, Any]:
    rows = np.load(file, mmap_mode="r")
    contender = CONTENDERS[name]
    contender(np.array(rows[:2000]), 2)  # imports and first calls
    began, peak, done = _anonymous(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], _anonymous())

    watching = threading.Thread(target=watch)
    watching.start()
    start = time.perf_counter()
    labels = contender(rows, k)
    seconds = time.perf_counter() - start
    done.set()
    watching.join()
    sizes = np.bincount(labels, minlength=k)
    mean = len(rows) / k
    outside = float(((sizes < mean / 4) | (sizes > 4 * mean)).mean())
    found = Found(
        seconds, peak[0] - began, inertia(rows, labels), int(sizes.min()), int(sizes.max()), outside
    )
    return found._asdict()


def inertia(rows: Floats, labels: Ints) -> float:
    """Mean squared distance of unit rows to the direction of their cluster's mean, the best center there is.

    >>> inertia(np.eye(2, dtype=np.float32), np.array([0, 1]))
    0.0
    """
    from scipy.sparse import csr_matrix

    sums = np.zeros((int(labels.max()) + 1, rows.shape[1]))
    for begin in range(0, len(rows), _ROWS):
        of = labels[begin : begin + _ROWS]
        ones = csr_matrix((np.ones(len(of)), (of, np.arange(len(of)))), (len(sums), len(of)))
        sums += ones @ np.asarray(rows[begin : begin + _ROWS], np.float64)
    return float(2 - 2 * np.linalg.norm(sums, axis=1).sum() / len(rows))


def _anonymous() -> float:
    """Megabytes of this process without mapped files, whose pages the system may take back."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("RssAnon"))


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
