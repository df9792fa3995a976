"""When `stages: auto` stops, against the number of stages that the labels call for.

    python benchmarks/quality/stopping.py trifeature --data ../shared/data --seeds 5 --jobs 2

Trains `DEEPER` stages of the default, and a plain encoder beside them. The labels call for a stage if it
brings more than that plain encoder in its place: a point or more in the mean over seeds, with a 95 % interval
above zero, in any attribute. Writes `runs/stopping/ROW/stopping.{json,md}`; called again it continues.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from intervals import Interval, paired_difference
from rows import ROWS, Values
from run import Encoders, asked, recipe
from runs import carried_out

from overtone import artifacts
from overtone.errors import OvertoneError
from overtone.recipe import Recipe, build_parts, open_data
from overtone.results import embeddings_kept, probe_sets, read_columns
from overtone.stopping import LEAST_RISE, Gain, gain_of
from overtone.study import Study

DEEPER = 5
LEAST_POINTS = 1.0
PLAIN = "plain"
ACCURACY = "linear"


class Found(NamedTuple):
    """What was found of one row.

    Attributes:
        gains: Seed by seed, what each stage after stage 0 adds, without labels.
        above_plain: Attribute -> how far each of these stages lies above a plain encoder in its place.
    """

    gains: list[list[Gain]]
    above_plain: dict[str, list[Interval]]

    @property
    def called_for(self) -> int:
        """The stages that the labels call for: up to the last that is above a plain one in any attribute."""
        worth = [
            any(stages[k].low > 0 and stages[k].value >= LEAST_POINTS for stages in self.above_plain.values())
            for k in range(DEEPER - 1)
        ]
        return 1 + max((k + 1 for k, is_worth in enumerate(worth) if is_worth), default=0)

    @property
    def trained(self) -> list[int]:
        """Seed by seed, those of a run that stops by the rule; the last is the first to add too little."""
        return [
            next((k + 2 for k, gain in enumerate(of_seed) if gain.rise < LEAST_RISE), DEEPER)
            for of_seed in self.gains
        ]


def beside(options: Any, seed: int) -> Iterator[tuple[str, Recipe]]:
    """A plain encoder of a seed of its own."""
    values: Values = {**ROWS[options.row].recipe, "stages": 1}
    yield PLAIN, recipe(options, values, seed + 1000)


def found(study: Study) -> Found:
    """Reads a finished study with and without labels."""
    dataset, test = open_data(study.recipe, cache_dir=study.cache)
    sets = probe_sets(dataset, test)
    gains: list[list[Gain]] = []
    with_stage: dict[str, list[list[float]]] = {name: [] for name in sets.train_labels}
    with_plain: dict[str, list[list[float]]] = {name: [] for name in sets.train_labels}
    for seed in range(study.seeds):
        home = study.home(seed)
        parts = build_parts(study.recipe.model_copy(update={"seed": seed}), dataset, test)
        gains.append([gain_of(parts, home, stage) for stage in range(1, DEEPER)])
        columns: dict[str, Encoders] = {}
        for stage in range(1, DEEPER):
            before = [(home, earlier) for earlier in range(stage)]
            columns[f"stage {stage}"] = [*before, (home, stage)]
            columns[f"plain {stage}"] = [*before, (home / PLAIN, 0)]
        read = read_columns(columns, sets, partial(embeddings_kept, sets), "each")
        for name in sets.train_labels:
            for kind, of_seeds in (("stage", with_stage[name]), ("plain", with_plain[name])):
                of_seeds.append([read[f"{kind} {k}"][name, ACCURACY]["accuracy"] for k in range(1, DEEPER)])
    above = {
        name: [
            paired_difference([one[k] for one in with_stage[name]], [one[k] for one in with_plain[name]])
            for k in range(DEEPER - 1)
        ]
        for name in sets.train_labels
    }
    return Found(gains, above)


def table(row: str, what: Found) -> str:
    """Stage by stage: what the rule measures, seed by seed, and what the labels say."""
    lines = [f"| `{row}` | odds rise, seed by seed | CKA | " + " | ".join(what.above_plain) + " |"]
    lines.append("|---|---|---:|" + "---:|" * len(what.above_plain))
    for k in range(DEEPER - 1):
        rises = ", ".join(f"{of_seed[k].rise:+.0%}" for of_seed in what.gains)
        alike = sum(of_seed[k].cka for of_seed in what.gains) / len(what.gains)
        said = [
            f"{i.value:+.1f} [{i.low:+.1f}, {i.high:+.1f}]" for i in (s[k] for s in what.above_plain.values())
        ]
        lines.append(f"| stage {k + 1} | {rises} | {alike:.2f} | {' | '.join(said)} |")
    hits = sum(n == what.called_for for n in what.trained)
    lines += [
        "",
        f"Labels call for {what.called_for} stages; the rule trains {', '.join(map(str, what.trained))} "
        f"(a seed each): {hits} of {len(what.trained)} agree.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    options = asked(arguments)
    out = Path("runs/stopping") / options.row if "--out" not in arguments else options.out
    study = Study(recipe(options, {**ROWS[options.row].recipe, "stages": DEEPER}, 0), out, options.seeds)
    carried_out(study, partial(beside, options), options.jobs)
    logging.disable(logging.INFO)
    what = found(study)
    text = table(options.row, what)
    artifacts.write_json(
        out / "stopping.json",
        {"gains": [[g._asdict() for g in s] for s in what.gains], "above_plain": what.above_plain},
    )
    artifacts.write_text(out / "stopping.md", text)
    print(text)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OvertoneError as error:
        sys.exit(str(error))
