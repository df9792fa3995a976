"""Several runs on one page, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from overtone import artifacts
from overtone.artifacts import MANIFEST
from overtone.errors import RecipeError
from overtone.evaluation import linear_cka
from overtone.exploring import POOL, drawn, rows_of
from overtone.report.compare_page import Likeness, compare_page
from overtone.reporting import findings, json_in, n_stages_embedded
from overtone.run_folder import embeddings_of
from overtone.study import Study

MOST = 8  # runs on a page


def compare(runs: Sequence[Path], out: Path, *, trust: bool = False) -> Path:
    """Writes a page that shows runs side by side.

    Args:
        runs: Their folders, two or more.
        out: The page, an .html file.
        trust: Import code that their recipes name.

    Raises:
        RecipeError: Too few or too many runs, one twice, or no place to write.
        RunError: A folder holds no run, or something in it is damaged.
    """
    if not 2 <= len(runs) <= MOST:
        raise RecipeError(f"compare: {len(runs)} run(s); expected 2 to {MOST} run folders.")
    if len({run.resolve() for run in runs}) < len(runs):
        raise RecipeError("compare: a run folder is given twice; expected different ones.")
    if out.suffix != ".html" or not out.parent.is_dir():
        raise RecipeError(f"--out {out}: expected a file in an existing folder, named *.html.")
    studies = [Study.load(run, trust=trust) for run in runs]
    found = [
        each._replace(name=name) for each, name in zip(map(findings, studies), names_of(runs), strict=True)
    ]
    artifacts.write_text(out, compare_page(found, _likeness(studies, [each.name for each in found])))
    return out


def names_of(runs: Sequence[Path]) -> list[str]:
    """What to call runs: the names of their folders, with as many folders above as tell them apart.

    >>> names_of([Path("/a/run"), Path("/b/run")])
    ['a/run', 'b/run']
    """
    parts = [run.resolve().parts for run in runs]
    for depth in range(1, max(map(len, parts))):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return names


def _likeness(studies: Sequence[Study], names: Sequence[str]) -> Likeness | str:
    """Linear CKA between all stages together of each, or why it cannot be told."""
    prints = [_fingerprint(study) for study in studies]
    if None in prints or len(set(prints)) > 1:
        return (
            "The runs are not of the same data: their accuracies need not be of the same samples, and their "
            "embeddings cannot be compared sample by sample."
        )
    stages = [n_stages_embedded(study) for study in studies]
    if not all(stages):
        return "A run has no stage yet, so there are no embeddings to compare."
    rows = drawn(len(embeddings_of(studies[0].home(0), 0)), POOL)
    columns = [
        rows_of(study.home(0), range(count), rows, study.recipe.normalise or "each")
        for study, count in zip(studies, stages, strict=True)
    ]
    cka = np.array([[linear_cka(one, other) for other in columns] for one in columns])
    return Likeness(names, cka, len(rows))


def _fingerprint(study: Study) -> Any:
    """Of its data, as they were when it was begun; None where it does not say."""
    place = study.home(0) / "data" / MANIFEST
    kept = json_in(place) if place.is_file() else None
    inputs = kept.get("inputs") if isinstance(kept, dict) else None
    return str(inputs.get("fingerprint")) if isinstance(inputs, dict) else None
