"""Kills a run at random moments, many times over, and counts what was lost; then looks for leaks.

    python tests/faults/soak.py --kills 200 --seed 0

Ends with exit code 1 if anything was lost or grew.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import tiny
import trials
from trials import Kills, ledger, moments

from overtone.stages import StageSpec

KILLS_A_RUN = 4
LONG = [StageSpec(epochs=500, batch_size=48, warmup_epochs=1)]  # 2,000 steps, each of them saved
SETTLED = 200  # steps until allocators and caches have what they want
MEGABYTES, FILES, CHECKPOINTS = 16.0, 8, 4  # that may come and go


class Found(NamedTuple):
    """What one run that was killed several times looks like in the end."""

    kills: Kills
    lost_steps: int  # also more than the one step that a kill may cost
    wrong_lines: int
    wrong_files: int
    left_behind: int


def one(folder: Path, uninterrupted: Path, seed: int, kills: int, seconds: float) -> Found:
    """Kills one run so many times within the seconds that it takes, and compares it."""
    done = trials.killed(folder, moments(seed, kills, seconds))
    mine, other = ledger(folder), ledger(uninterrupted)
    files, expected = tiny.artifacts_of(folder), tiny.artifacts_of(uninterrupted)
    return Found(
        done,
        len(other.keys() - mine.keys()) + max(0, done.redone_steps - done.done),
        sum(mine[step] != other[step] for step in mine.keys() & other.keys()),
        sum(files.get(name) != expected.get(name) for name in {*files, *expected}),
        len(trials.unfinished(folder)),
    )


def kill(home: Path, kills: int, seed: int) -> bool:
    """So many kills over as many runs as it takes; prints the counts, and whether nothing was lost."""
    whole = home / "uninterrupted"
    assert trials.run(whole).code == 0  # the first start is slow
    shutil.rmtree(whole)
    began = time.monotonic()
    assert trials.run(whole).code == 0
    seconds, found = time.monotonic() - began, list[Found]()
    while (done := sum(one.kills.done for one in found)) < kills:
        place = home / str(len(found))
        wanted = min(KILLS_A_RUN, kills - done)
        found.append(one(place, whole, seed + len(found), wanted, 2 * seconds / (KILLS_A_RUN + 1)))
        shutil.rmtree(place)
        print(f"\r{done + found[-1].kills.done} of {kills} kills", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    counts = {
        "kills": done,
        "of them inside a write": sum(one.kills.inside_a_save for one in found),
        "runs": len(found),
        "steps done twice": sum(one.kills.redone_steps for one in found),
    }
    lost = {
        "steps lost": sum(one.lost_steps for one in found),
        "wrong lines in ledgers": sum(one.wrong_lines for one in found),
        "wrong files": sum(one.wrong_files for one in found),
        "half-written folders left": sum(one.left_behind for one in found),
    }
    for name, number in {**counts, **lost}.items():
        print(f"{number:8}  {name}")
    return not any(lost.values())


def watch(home: Path) -> bool:
    """A longer run: its memory, its open files and its folder must stop growing; whether they did."""
    folder, seen = home / "long", dict[int, tuple[float, int, int]]()
    process = trials.start(folder, stages=LONG)
    status, descriptors = (Path(f"/proc/{process.pid}/{name}") for name in ("status", "fd"))
    ledgers = folder / "stage-0" / "ledger-0.jsonl"
    while process.is_alive():
        time.sleep(0.5)
        try:
            resident = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
            files = len(list(descriptors.iterdir()))
            step = ledgers.read_text().count("\n")
            places = len(list((folder / "stage-0" / "checkpoints").iterdir()))
        except (FileNotFoundError, ProcessLookupError, StopIteration):
            continue  # before its beginning, or after its end
        seen[step] = int(resident.split()[1]) / 1024, files, places
    ended = trials.ended(process, folder)
    assert ended.code == 0, ended.said
    settled = [values for step, values in seen.items() if step >= SETTLED]
    half = len(settled) // 2
    grown = max(one[0] for one in settled[half:]) - max(one[0] for one in settled[:half])
    more = max(one[1] for one in settled) - min(one[1] for one in settled)
    most = max(one[2] for one in settled)
    print(f"{max(seen):8}  steps, a checkpoint after each")
    print(f"{grown:8.1f}  MB more in the second half than in the first (of {settled[-1][0]:.0f} MB)")
    print(f"{more:8}  open files more at one time than at another")
    print(f"{most:8}  checkpoints at once, at most, one of them being written and one being removed")
    return grown < MEGABYTES and more <= FILES and most <= CHECKPOINTS


def main() -> int:
    """The whole soak."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as home:
        nothing_lost = kill(Path(home), given.kills, given.seed)
        nothing_grew = watch(Path(home))
    return 0 if nothing_lost and nothing_grew else 1


if __name__ == "__main__":
    sys.exit(main())
