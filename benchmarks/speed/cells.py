"""Fine cells of ten samples: their cost against the number of samples, and flat k-means where it can finish.

python benchmarks/speed/cells.py            # 10,000 to 1 M x 128 (0.5 GB on disk)
python benchmarks/speed/cells.py --full     # also 3 M
"""

from __future__ import annotations

import argparse
from pathlib import Path

from clusterers import draw, in_turn
from measuring import Ceilings, Row, ceilings, keep

_FLAT = 50_000  # up to so many samples flat k-means with a tenth as many clusters ends in minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[20_000, 50_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("runs/speed/drawn"))
    given = parser.parse_args()
    if given.smoke:
        given.samples, given.repeats = [1000], 0
    measured = Ceilings(1.0, 1.0, 1.0) if given.smoke else ceilings()
    samples = [*given.samples, *([3_000_000] if given.full else [])]
    keep("cells", [_row(n, given.folder, given.repeats) for n in samples], measured)


def _row(n: int, folder: Path, repeats: int) -> Row:
    names = ["ours", "faiss"] if n <= _FLAT else ["ours"]
    found = in_turn(names, draw(n, 128, folder), n // 10, repeats)
    notes = [
        f"{name}: inertia {each.inertia:.4f}, cells of {each.smallest}-{each.largest},"
        f" {100 * each.outside:.1f} % beyond four times the mean or a quarter, {each.megabytes:,.0f} MB"
        for name, each in found.items()
    ]
    return Row(
        f"{n:,} x 128, K = {n // 10:,}",
        found["ours"].seconds,
        {"flat " + name: each.seconds for name, each in found.items() if name != "ours"},
        aim="near-linear in N, 1 M in < 60 s, sizes within 4x" if n == 1_000_000 else "",
        note="<br>".join(notes),
    )


if __name__ == "__main__":
    main()
