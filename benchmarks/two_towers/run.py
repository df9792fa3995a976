"""Two towers in stages beside what the same cost buys without, over several seeds.

    python benchmarks/two_towers/run.py scenes --seeds 3 --jobs 2

Called again it continues; what is finished is not repeated. Writes `results.json` and `table.md`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "quality")]

from findings import RESULT, START, findings
from rows import STAGES, Aim, Values
from runs import carried_out, costs_of
from table import row_tables

from overtone import artifacts
from overtone.datasets.captioned_scenes import PATTERNS
from overtone.errors import OvertoneError
from overtone.integration import JointEncoder, load
from overtone.recipe import Recipe, parse, resolved
from overtone.report.table import Comparison, markdown_table
from overtone.results import columns
from overtone.study import Study
from two_towers import emoji
from two_towers.asking import MEAN, Answers, ask_emoji, ask_scenes, counted, diagnoses, is_statement, judged

SCENES = {"train": 8000, "test": 2000}
ORACLE = "1 oracle"
EQUAL = Comparison(RESULT, f"{STAGES} plain", "1 plain, as long")
NOTE = "Percent; ± is the standard deviation over {seeds} seeds (n - 1)."

Ask = Callable[[JointEncoder], Answers]
Scores = dict[str, dict[str, list[float]]]
Conclude = Callable[[Scores], list[str]]
Parts = list[tuple[Path, int]]


class Row(NamedTuple):
    """A data set.

    Attributes:
        title: What is in it.
        recipe: Of the result.
        ask: What its encoders are asked.
        conclude: What all answers together say.
        aims: Of the mean pair accuracy.
        paper_clusters: Of the paper's way; its ten leave no batch of 64 where there are few pictures.
        oracle: The recipe without what drowns the rest, and
        ask_oracle: what its encoder is asked.
    """

    title: str
    recipe: Values
    ask: Ask
    conclude: Conclude
    aims: tuple[Aim, ...] = ()
    paper_clusters: int = 10
    oracle: Values | None = None
    ask_oracle: Ask | None = None


def rows(data: Path) -> dict[str, Row]:
    n, held_out = SCENES["train"], SCENES["test"]
    ask = partial(ask_scenes, n=held_out, start=n)
    found = {
        "scenes": Row(
            "drawn scenes with captions, nine properties drowned by the scene",
            _recipe({"source": "captioned_scenes", "n": n}, epochs=8),
            partial(ask, with_scene=True),
            lambda scores: list(judged(scores, tuple(PATTERNS))),
            (Aim(MEAN, "points", 8),),
            oracle=_recipe({"source": "two_towers.scenes:without_scene", "n": n}, epochs=8),
            ask_oracle=partial(ask, with_scene=False),
        )
    }
    kinds: tuple[tuple[str, emoji.Variants, int], ...] = (("emoji", "all", 20), ("emoji-base", "one", 30))
    for name, variants, epochs in kinds:
        path = data / "twemoji" / "train.parquet"
        source = {"source": "two_towers.emoji:emoji", "path": str(path), "variants": variants}
        found[name] = Row(
            f"twemoji with their names, {variants} variant{'s' * (variants == 'all')} of each",
            # Clocks and small arrows are near-copies of each other, which would never be negatives.
            {**_recipe({**source, "part": "train"}, epochs=epochs), "duplicates": "exact"},
            partial(ask_emoji, path=path, variants=variants),
            partial(_diagnosed, path, variants),
            paper_clusters=4,
        )
    return found


def asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("row", choices=rows(Path()))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds twemoji/")
    parser.add_argument("--out", type=Path, help="default: runs/two-towers/ROW")
    parser.add_argument("--seeds", type=int, default=3, help="at least 2, so that there is a spread")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    found = parser.parse_args(arguments)
    if found.seeds < 2:
        parser.error(f"--seeds {found.seeds}: expected 2 or more, so that there is a spread")
    found.out = found.out or Path("runs") / "two-towers" / found.row
    return found


def _recipe(data: Values, epochs: int) -> Values:
    train = {"epochs": epochs, "batch_size": 128, "lr": 1e-3}
    return {
        "data": data,
        "encoder": {"name": "small_clip"},
        "views": {"name": "image_text"},
        "method": {"name": "clip"},
        "train": {**train, "erase": "off"},
        "stages": STAGES,
        "threads": 1,
        "loggers": [],
    }


def _diagnosed(path: Path, variants: emoji.Variants, scores: Scores) -> list[str]:
    said = [f"{column}: {words}" for column in (START, RESULT) for words in diagnoses(scores, column)]
    return [*said, counted(path, variants)]


def beside(row: Row, seed: int) -> Iterator[tuple[str, Recipe]]:
    """The runs of a seed beside the result and its baselines: folder and recipe."""
    train = {**row.recipe["train"], "n_clusters": row.paper_clusters}
    yield "paper", resolved(parse({**row.recipe, "preset": "paper", "train": train, "seed": seed}))
    if row.oracle:
        yield "oracle", resolved(parse({**row.oracle, "stages": 1, "seed": seed}))


def columns_of(home: Path) -> dict[str, tuple[Parts, str]]:
    """Column -> the encoders it reads side by side, and how they are joined."""
    found = {column: (parts, "each") for column, parts in columns(home, STAGES, True).items()}
    for last in range(1, STAGES):
        found[f"paper 0-{last}"] = ([(home / "paper", stage) for stage in range(last + 1)], "once")
    return found


def scores_of(study: Study, row: Row) -> Scores:
    """Question -> column -> answers in percent, one a seed."""
    scores: Scores = {}
    for seed in range(study.seeds):
        home = study.home(seed)
        answers = {
            column: row.ask(_joined(parts, normalise))
            for column, (parts, normalise) in columns_of(home).items()
        }
        if row.ask_oracle:
            answers[ORACLE] = row.ask_oracle(_joined([(home / "oracle", 0)], "each"))
        for column, found in answers.items():
            for question, share in found.items():
                scores.setdefault(question, {}).setdefault(column, []).append(share)
    return scores


def _joined(parts: Parts, normalise: str) -> JointEncoder:
    return JointEncoder([_run(home).stages[stage] for home, stage in parts], normalise=normalise)


@lru_cache(maxsize=8)
def _run(home: Path) -> JointEncoder:
    return load(home)


def written(found: dict[str, Any], sentences: Sequence[str]) -> str:
    """The tables of a row: all means beside each other, then each question in full."""
    shown = [(question, row) for question, row in found["scores"].items() if not is_statement(question)]
    means = markdown_table(shown, EQUAL)
    lines = [f"# {found['row']}", "", means, "", *(f"- {said}" for said in sentences), ""]
    return "\n".join(lines) + "\n" + row_tables(found, NOTE)


def main(arguments: Sequence[str]) -> None:
    options = asked(arguments)
    row = rows(options.data.resolve())[options.row]
    study = Study(resolved(parse(row.recipe)), options.out, options.seeds, baselines=True)
    jobs = carried_out(study, partial(beside, row), options.jobs)
    scores = scores_of(study, row)
    sentences = row.conclude(scores)
    found = {
        "row": options.row,
        "title": row.title,
        "held_out": False,
        "seeds": options.seeds,
        "scores": scores,
        "costs": costs_of(jobs),
        "default": findings(scores, row.aims, RESULT),
        "best": None,
        "sentences": sentences,
    }
    artifacts.write_json(options.out / "results.json", found)
    text = written(found, sentences)
    artifacts.write_text(options.out / "table.md", text)
    print(text)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OvertoneError as error:
        sys.exit(str(error))
