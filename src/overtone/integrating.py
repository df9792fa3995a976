"""One encoder in the place of all stages: what a finished run can be turned into, kept beside it.

`run/integrated/METHOD` is a folder that `overtone.load` takes.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from overtone import artifacts, multistage
from overtone.contracts import Batch, Views
from overtone.encoders import Encoder, load_encoder
from overtone.errors import RecipeError, RunError
from overtone.heads import ProjectionHead
from overtone.integration import Distillation, JointEncoder, load, moments, projection
from overtone.progress import Display
from overtone.recipe import Recipe, build_parts, open_data, own_module
from overtone.recipe.components import GIVEN
from overtone.run_folder import Parts, embeddings_of, load_stage, stage_folder
from overtone.study import PLAIN, Study, threads, working_in

logger = logging.getLogger(__name__)

TAKES = {
    "concatenated": None,
    "weighted": "weights",
    "projected": "dim",
    "whitened": "dim",
    "distilled": "epochs",
}
"""Method -> the argument that it takes."""

_ROWS = 8192  # embeddings in memory at a time
_BATCH_SIZE = 64  # a regression needs no negatives, and gains from more and smaller steps
_HIDDEN_DIM = 512
# Times the epochs of all stages. With one, the worst of four runs kept 85 % of a gain; with two, 91 %.
_PATIENCE = 2


def integrate(
    run: str | Path,
    method: str = "distilled",
    *,
    dim: int | None = None,
    weights: Sequence[float] | None = None,
    epochs: int | None = None,
    trust: bool = False,
    display: Display | None = None,
) -> JointEncoder:
    """Makes one encoder of the stages of a finished run, in `run/integrated/METHOD`, and returns it.

    Args:
        run: A run folder. With several seeds each gets its own encoder; the first is returned.
        method: "concatenated": what the run is already. "weighted": the stages side by side, each times its
            weight, so a cosine, of two towers too, is the mean of the stages' by their weights squared.
            "projected": the first principal components of the concatenation; "whitened": each of them with
            unit variance. "distilled": one encoder of the size of a stage and a small head, trained on the
            run's data to give the whitened concatenation.
        dim: Of "projected" and "whitened", how many components; the width of a stage by default.
        weights: Of "weighted", one a stage. A linear probe is blind to them, and none found without labels
            was better than equal ones, so there is no default.
        epochs: Of "distilled"; by default twice as many as all stages together.
        trust: Import the code that the run's recipe names, if it does; the folder may come from elsewhere.
        display: Shows how far the training is.

    Raises:
        RecipeError: The method is unknown, a value cannot be, or the recipe names code.
        RunError: The run is not finished, or the student in the folder was trained otherwise.

    >>> integrate("run", "averaged")
    Traceback (most recent call last):
    overtone.errors.RecipeError: method: 'averaged' is unknown; expected one of concatenated, weighted, ...
    """
    _check(method, dim=dim, weights=weights, epochs=epochs)
    study = Study.load(Path(run), trust=trust)
    module = own_module(study.recipe)
    with working_in(study.folder):
        for home, recipe in study.main_runs():
            joint = load(home, encoder=module)
            if method == "distilled":
                _require_named(recipe)
                parts = build_parts(recipe, *open_data(recipe, cache_dir=study.cache))
                with threads(recipe.threads or os.cpu_count() or 1):
                    multistage.run(student_of(parts, home, joint, epochs), integrated(home, method), display)
            elif method != "concatenated":
                with artifacts.writing(integrated(home, method) / "encoder", _made_of(home)) as beside:
                    linear_after(home, joint, method, dim, weights).save(beside)
    return load_integrated(study.home(0), method, module)


def integrated(home: Path, method: str) -> Path:
    """Where a run keeps what a method made of it; its own encoder is the concatenation.

    >>> integrated(Path("run"), "whitened").as_posix(), integrated(Path("run"), "concatenated").as_posix()
    ('run/integrated/whitened', 'run')
    """
    return home if method == "concatenated" else home / "integrated" / method


def is_integrated(home: Path, method: str) -> bool:
    """Whether a method was carried out to its end, beside the run's own encoder.

    Raises:
        RunError: It was, on other stages than the run has now.
    """
    place = integrated(home, method)
    if place == home or not artifacts.is_complete(place / "encoder"):
        return False
    made = place / "stage-0" / "encoder" if method == "distilled" else place / "encoder"
    artifacts.require_inputs(made, artifacts.verify(made), _made_of(home))
    return True


def load_integrated(home: Path, method: str, module: nn.Module | None = None) -> JointEncoder:
    """What a method made of a run; `module` as for `load`.

    Raises:
        RunError: It was not carried out, or on other stages.
        RecipeError: The method is unknown.
    """
    _require_known(method)
    if method != "concatenated" and not is_integrated(home, method):
        raise RunError(
            f"{home}: {method} was not made of it; do that with `overtone integrate {home} --method {method}`"
        )
    return load(integrated(home, method), encoder=module)


def encoder_of(home: Path, stage: int, module: nn.Module | None) -> Encoder:
    """The encoder of a stage of a run, or a student with its head; `module` as for `load`."""
    if home.parent.name == "integrated" and home.name in TAKES:
        return load(home, encoder=module)
    return load_encoder(stage_folder(home, stage) / "encoder", module)


def linear_after(
    home: Path,
    joint: JointEncoder,
    method: str,
    dim: int | None = None,
    weights: Sequence[float] | None = None,
) -> JointEncoder:
    """The stages of a run with weights, or with principal components of the embeddings that the run kept."""
    if method == "weighted":
        return _with(joint, weights=weights)
    dim = max(stage.dim for stage in joint.stages) if dim is None else dim
    return _with(joint, projection=_components(home, joint, dim, whiten=method == "whitened"))


def student_of(parts: Parts, home: Path, joint: JointEncoder, epochs: int | None = None) -> Parts:
    """A run of one stage that starts as the last stage and learns to give the whitened concatenation.

    The targets are the embeddings that the run kept, so no stage is run again. A view has those of its
    sample, which teaches the student to leave out what views change.
    """
    stages = parts.stages[: len(joint.stages)]  # the run may have stopped before the others
    last = len(stages) - 1
    teacher = _with(joint, projection=_components(home, joint, None, whiten=True))
    sides = _sides(home, joint)
    logger.info("distilled: begins as stage %d, learns %d directions of all stages.", last, teacher.dim)

    def targets(batch: Batch) -> Tensor:
        rows = batch["index"].cpu().numpy()
        return teacher.join(_rows(sides, rows)).to(batch["index"].device)

    def student(_: int) -> JointEncoder:
        encoder = load_stage(parts, home, last)
        return _with(joint, [encoder], projection=ProjectionHead(encoder.dim, _HIDDEN_DIM, teacher.dim))

    spec = dataclasses.replace(
        stages[last],
        **cast(Any, PLAIN),
        epochs=_PATIENCE * sum(stage.epochs for stage in stages) if epochs is None else epochs,
        batch_size=min(_BATCH_SIZE, len(parts.dataset)),
        trainable="all",
    )
    return dataclasses.replace(
        parts,
        encoder=student,
        method=lambda encoder: Distillation(cast(JointEncoder, encoder), targets),
        views=_with_the_sample_itself(parts.views),
        stages=[spec],
        stop=None,
        made_of={**parts.made_of, **_made_of(home), "method": "distilled"},
    )


def _check(method: str, **given: object) -> None:
    _require_known(method)
    for name, value in given.items():
        if value is not None and name != TAKES[method]:
            raise RecipeError(f"{name}: {value!r}, but the method {method} takes none; leave it out.")
    if method == "weighted" and given["weights"] is None:
        raise RecipeError("weights: none given; weighted takes one positive number a stage.")


def is_named(recipe: Recipe, field: str) -> bool:
    """Whether a recipe names its data, encoder, views or method; else it was an object, given from Python."""
    return bool(getattr(recipe, field)["source" if field == "data" else "name"] != GIVEN)


def _require_named(recipe: Recipe) -> None:
    given = [field for field in ("data", "encoder", "views", "method") if not is_named(recipe, field)]
    if given:
        raise RunError(
            f"distilled: the {', '.join(given)} of this run were given from Python, which a run folder "
            "does not hold, and a student learns from the data. projected and whitened need none of them; or "
            "train from a recipe that names everything."
        )


def _require_known(method: str) -> None:
    if method not in TAKES:
        raise RecipeError(f"method: {method!r} is unknown; expected one of {', '.join(TAKES)}.")


def _with_the_sample_itself(views: Views) -> Views:
    """The first view, and the sample as it is embedded later."""
    return lambda batch, address: [views(batch, address)[0], batch]


def _made_of(home: Path) -> dict[str, str]:
    return {"all stages": artifacts.digest(home / "encoder")}


def _with(joint: JointEncoder, stages: Sequence[Encoder] | None = None, **after: Any) -> JointEncoder:
    """The same encoder with other stages, or with something after them."""
    same: dict[str, Any] = {
        "normalise": joint.normalise,
        "modality": joint.modality,
        "content": joint.content,
    }
    return JointEncoder(joint.stages if stages is None else stages, **same, **after)


def _components(home: Path, joint: JointEncoder, dim: int | None, *, whiten: bool) -> ProjectionHead:
    sides = _sides(home, joint)
    chunks = (slice(begin, begin + _ROWS) for begin in range(0, len(sides[0]), _ROWS))
    return projection(
        *moments(joint.join(_rows(sides, chunk)).numpy() for chunk in chunks), dim, whiten=whiten
    )


def _sides(home: Path, joint: JointEncoder) -> list[NDArray[np.float32]]:
    return [embeddings_of(home, stage) for stage in range(len(joint.stages))]


def _rows(sides: Sequence[NDArray[np.float32]], rows: NDArray[np.int64] | slice) -> list[Tensor]:
    return [torch.from_numpy(np.array(side[rows])) for side in sides]
