"""The objective, forward and backward: `python benchmarks/speed/objective.py [--full | --smoke]`."""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from measuring import Ceilings, Row, ceilings, in_turn, keep
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from overtone.contracts import Ids
from overtone.objectives import nt_xent, nt_xent_both_ways

Work = Callable[[], object]
AT_MOST = 256  # images: pytorch-metric-learning holds each positive against all negatives, 16 n^3 numbers


def features(n: int, d: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    first, second = (torch.randn(n, d, generator=draw, requires_grad=True) for _ in range(2))
    return first, second


def ours_simclr(n: int, d: int, cell_size: int = 0) -> Work:
    """Cells lie one after another in a batch, as `CellBatchSampler` packs them; 0 is a single cell."""
    z = features(n, d)
    cell = torch.arange(n) // (cell_size or n)
    ids = Ids(cell.repeat(2), torch.arange(n).repeat(2))
    partner = torch.arange(2 * n).roll(n)

    def work() -> object:
        rows = torch.cat(z)
        return torch.autograd.grad(nt_xent(rows, rows, partner, ids, ids, 0.1), z)

    return work


def masked_simclr(n: int, d: int, cell_size: int) -> Work:
    """The same with all logits and a boolean mask of all pairs."""
    z = features(n, d)
    cell, identity = (torch.arange(n) // cell_size).repeat(2), torch.arange(n).repeat(2)
    partner = torch.arange(2 * n).roll(n)

    def work() -> object:
        rows = normalize(torch.cat(z))
        barred = (cell[:, None] != cell) | (identity[:, None] == identity)
        barred[torch.arange(2 * n), partner] = False
        return torch.autograd.grad(
            cross_entropy((rows @ rows.T / 0.1).masked_fill(barred, -torch.inf), partner), z
        )

    return work


def lightly_simclr(n: int, d: int) -> Work:
    from lightly.loss import NTXentLoss

    z, loss = features(n, d), NTXentLoss(temperature=0.1)
    return lambda: torch.autograd.grad(loss(*z), z)


def metric_learning_simclr(n: int, d: int) -> Work:
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    z, loss = features(n, d), SelfSupervisedLoss(NTXentLoss(temperature=0.1))
    return lambda: torch.autograd.grad(loss(*z), z)


def ours_clip(n: int, d: int) -> Work:
    z, scale = features(n, d), torch.tensor(14.3, requires_grad=True)
    ids = Ids(torch.zeros(n, dtype=torch.int64), torch.arange(n))
    return lambda: torch.autograd.grad(nt_xent_both_ways(*z, ids, 1 / scale), (*z, scale))


def open_clip_clip(n: int, d: int) -> Work:
    from open_clip.loss import ClipLoss

    z, scale, loss = features(n, d), torch.tensor(14.3, requires_grad=True), ClipLoss()
    return lambda: torch.autograd.grad(loss(*(normalize(x) for x in z), scale), (*z, scale))


SIMCLR = {"lightly": lightly_simclr, "pytorch-metric-learning": metric_learning_simclr}
CLIP = {"open_clip": open_clip_clip}


def added(make: Callable[..., Work], *sizes: int) -> float:
    """Megabytes that a call adds to the peak of its process, above its inputs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_added, (make, sizes))


def _added(make: Callable[..., Work], sizes: tuple[int, ...]) -> float:
    make(*(64 for _ in sizes))()  # libraries load what they need
    work = make(*sizes)
    before = _peak()
    work()
    return _peak() - before


def _peak() -> float:
    """Megabytes; unlike `ru_maxrss` it does not begin at the peak of the process that started this one."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def compared(
    case: str, ours: Callable[..., Work], others: dict[str, Callable[..., Work]], n: int, d: int, memory: bool
) -> tuple[str, float, dict[str, float], str]:
    """A case, our seconds, those of the peers that are installed and can hold it, and what is to be said."""
    works, notes = {"ours": ours(n, d)}, []
    for name, make in others.items():
        if make is metric_learning_simclr and n > AT_MOST:
            notes.append(f"{name} needs {64 * n**3 / 1e12:,.0f} TB")
            continue
        try:
            works[name] = make(n, d)
        except ImportError:
            notes.append(f"{name} is not installed")
    makers = {"ours": ours, **others}
    if memory:
        peaks = ", ".join(f"{name} {added(makers[name], n, d):,.0f}" for name in works)
        notes.append(f"MB above the inputs: {peaks}")
    taken = in_turn(works)
    return case, taken.pop("ours"), taken, "; ".join(notes)


def cases(
    sizes: list[int], dims: list[int]
) -> Iterator[tuple[float, tuple[str, float, dict[str, float], str]]]:
    """Operations at least, and what was found."""
    for n in sizes:
        for d in dims:
            memory = n == 8192
            # SimCLR's matrix is its own mirror image: half a product forward, one and a half backward.
            yield (
                2 * (2 * (2 * n) ** 2 * d),
                compared(f"SimCLR {n:,} x {d}", ours_simclr, SIMCLR, n, d, memory),
            )
            yield 4 * (2 * n * n * d), compared(f"CLIP {n:,} x {d}", ours_clip, CLIP, n, d, memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="everything, tiny")
    parser.add_argument("--full", action="store_true", help="65,536 rows as well: minutes")
    options = parser.parse_args()
    sizes, dims, cell_sizes = [4096, 8192], [128, 512], [10, 30, 300, 3000]
    if options.smoke:
        sizes, dims, cell_sizes = [16, 32], [8], [5]
    machine = Ceilings(1e11, 1e11, 1e10) if options.smoke else ceilings()
    rows = []
    aim = "faster; a tenth of the memory at 8,192"
    small = [AT_MOST] if not options.smoke else []
    for operations, (case, ours, peers, note) in [*cases(small, [128]), *cases(sizes, dims)]:
        rows.append(Row(case, ours, peers, machine.floor(operations), aim, note))
    n, d = sizes[-1], dims[0]
    for size in cell_sizes:
        taken = in_turn({"ours": ours_simclr(n, d, size), "dense mask": masked_simclr(n, d, size)})
        share = f"{100 * min(size, n) / n:.2g} % of the pairs"
        ours = taken.pop("ours")
        aim = "falls with the share of pairs"
        rows.append(Row(f"cells of {size:,}, {n:,} x {d}", ours, taken, aim=aim, note=share))
    if options.full:
        n, d, aim = 65536, 512, "< 1.5 GB, >= 60 % of the ceiling"
        for case, make, size, products in (("SimCLR", ours_simclr, n // 2, 2), ("CLIP", ours_clip, n, 4)):
            memory = f"{added(make, size, d):,.0f} MB above the inputs; 3 calls"
            ours = in_turn({"": make(size, d)}, repeats=3)[""]
            floor = machine.floor(products * 2 * n * n * d)
            rows.append(Row(f"{case}, {n:,} rows x {d}", ours, {}, floor, aim, memory))
    keep("objective", rows, machine)


if __name__ == "__main__":
    main()
