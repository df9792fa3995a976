"""How the parts of a run are timed: in turn with a peer, and against the limits of the machine.

Each script of this folder measures one part and calls `keep`; `speed_table.py` gathers what was kept.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

KEPT = Path("runs/speed")
Found = dict[str, Any]
"""What `keep` writes of a part."""
REPEATS = 5


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        case: What was measured, such as "4,096 x 128".
        ours: Median seconds.
        peers: Median seconds of each peer, run in turn with ours.
        floor: Seconds that the machine needs at least for the operations and the bytes, by `Ceilings.floor`;
            None where nothing sensible can be said.
        aim: What was to be reached, in words.
        note: What else a reader has to know: memory, inertia, what a peer could not do.
    """

    case: str
    ours: float
    peers: Mapping[str, float]
    floor: float | None = None
    aim: str = ""
    note: str = ""


class Ceilings(NamedTuple):
    """What this machine does at best, with the threads that torch has now.

    Attributes:
        fp32: Floating-point operations a second of a matrix product.
        bf16: The same of one in bfloat16.
        bandwidth: Bytes a second, read and written, of a copy that no cache holds.
    """

    fp32: float
    bf16: float
    bandwidth: float

    def floor(self, operations: float, moved: float = 0.0, precision: str = "fp32") -> float:
        """Seconds: the larger of computing and moving, as if one hid the other."""
        return max(operations / {"fp32": self.fp32, "bf16": self.bf16}[precision], moved / self.bandwidth)


def ceilings() -> Ceilings:
    """Measures them, in about five seconds."""
    side = 4096

    def product(dtype: torch.dtype) -> float:
        a, b = (torch.rand(side, side).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return 2 * side**3 / in_turn({"": lambda: torch.mm(a, b, out=out)})[""]

    source = torch.rand(2**27)
    target = torch.empty_like(source)
    copied = in_turn({"": lambda: target.copy_(source)})[""]
    return Ceilings(product(torch.float32), product(torch.bfloat16), 2 * source.nbytes / copied)


def in_turn(works: Mapping[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of each, after one call that does not count; they take turns, so what the machine does
    besides falls on all of them."""
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def peak_megabytes() -> float:
    """The most memory that this process ever held; measure memory in a process of its own."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def keep(part: str, rows: list[Row], measured: Ceilings) -> None:
    """Writes the rows of a part to `runs/speed/PART.json`, with the load that it was measured under."""
    KEPT.mkdir(parents=True, exist_ok=True)
    found: Found = {
        "part": part,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "ceilings": measured._asdict(),
        "rows": [asdict(row) for row in rows],
    }
    (KEPT / f"{part}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(found), machine_line(found), sep="\n\n")


def markdown(part: Found) -> str:
    """The table of a part; a ratio says how many times as long as ours the peer takes."""
    lines = [
        "| case | ours | peer | ratio | share of the limit | aim | |",
        "|---|---:|---:|---:|---:|---|---|",
    ]
    for row in (Row(**values) for values in part["rows"]):
        peers = "<br>".join(f"{name} {seconds_text(taken)}" for name, taken in row.peers.items())
        ratios = "<br>".join(f"{taken / row.ours:.2f}" for taken in row.peers.values())
        share = "" if row.floor is None else f"{100 * row.floor / row.ours:.0f} %"
        cells = [row.case, seconds_text(row.ours), peers, ratios, share, row.aim, row.note]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine_line(part: Found) -> str:
    """What the machine could do when a part was measured."""
    fp32, bf16, bandwidth = (part["ceilings"][name] / 1e9 for name in Ceilings._fields)
    return (
        f"{part['threads']} threads; in the same run: matrix product {fp32:.0f} GFLOP/s in fp32, "
        f"{bf16:.0f} in bf16, copy {bandwidth:.0f} GB/s; load {part['load']:.1f}."
    )


def seconds_text(seconds: float) -> str:
    """Three digits in a fitting unit.

    >>> seconds_text(0.01234), seconds_text(75.0)
    ('12.3 ms', '75 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds / size < 100 else f"{seconds / size:,.0f} {unit}"
    return f"{seconds / 1e-6:.3g} us"
