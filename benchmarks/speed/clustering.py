"""Clustering drawn embeddings from a memory map, beside scikit-learn's MiniBatchKMeans and faiss alone.

python benchmarks/speed/clustering.py            # 1 M x 512 (2 GB on disk), three runs of each
python benchmarks/speed/clustering.py --full     # also 10 M x 128 (5 GB on disk), ours alone
"""

from __future__ import annotations

import argparse
from pathlib import Path

from clusterers import CONTENDERS, Found, draw, in_turn
from measuring import Ceilings, Row, ceilings, keep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("runs/speed/drawn"))
    given = parser.parse_args()
    if given.smoke:
        given.samples, given.clusters, given.repeats = 3000, [10], 0
    measured = Ceilings(1.0, 1.0, 1.0) if given.smoke else ceilings()
    file = draw(given.samples, 512, given.folder)
    rows = [
        _row(given.samples, 512, k, in_turn(list(CONTENDERS), file, k, given.repeats), measured)
        for k in given.clusters
    ]
    if given.full:
        file = draw(10_000_000, 128, given.folder)
        rows += [_row(10_000_000, 128, k, in_turn(["ours"], file, k, 1), measured) for k in given.clusters]
    keep("clustering", rows, measured)


def _row(n: int, dimension: int, k: int, found: dict[str, Found], measured: Ceilings) -> Row:
    ours = found["ours"]
    # At least everything is compared with every center once, and read.
    floor = measured.floor(2.0 * n * dimension * k, 4.0 * n * dimension)
    inertias = ", ".join(f"{name} {each.inertia:.4f}" for name, each in found.items())
    return Row(
        f"{n:,} x {dimension}, K = {k:,}",
        ours.seconds,
        {name: each.seconds for name, each in found.items() if name != "ours"},
        floor,
        "faster at equal or lower inertia, < 1,500 MB",
        f"{ours.megabytes:,.0f} MB; inertia {inertias}",
    )


if __name__ == "__main__":
    main()
