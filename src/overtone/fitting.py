"""The front door: train in stages from Python, on objects instead of names."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from overtone import datasets, distributed, failures, machine, multistage, rng
from overtone.contracts import Dataset, Views
from overtone.encoders import Encoder, as_encoder
from overtone.errors import RecipeError
from overtone.integration import JointEncoder, load
from overtone.progress import Bars, Silent, logging_to
from overtone.recipe import Recipe, build_parts, parse, resolved
from overtone.recipe.components import GIVEN
from overtone.reporting import told, update
from overtone.roster import require_same
from overtone.run_folder import Parts
from overtone.study import Study, settled, working_in

_AT = re.compile(r" at 0x[0-9a-f]+")  # where an object lies, which differs from process to process


def fit(
    dataset: Any,
    *,
    out: str | Path,
    encoder: str | nn.Module | Callable[[], nn.Module] = "small_cnn",
    method: str | Callable[[nn.Module], nn.Module] = "simclr",
    views: Views | None = None,
    stages: int | str | Sequence[dict[str, Any]] = 3,
    test: Any = None,
    preset: str = "overtone",
    seed: int = 0,
    duplicates: str = "near",
    precision: str = "fp32",
    device: str = "auto",
    num_workers: int = 0,
    progress: bool = True,
    **train: Any,
) -> JointEncoder:
    """Trains stage after stage into a run folder and returns all stages as one encoder.

    Calling it again with the same arguments continues an interrupted run, or loads a finished one.

    Args:
        dataset: An Overtone data set, any torch or Hugging Face data set, an array of images, or a path.
        out: The run folder.
        encoder: A name (see `build_encoder`); a function that makes a new module, called once a stage;
            or a module, whose weights every stage starts from. A module for images takes (B, C, H, W)
            floats, any other takes the batch.
        method: "simclr", or a function from an encoder to a module with `step`.
        views: Makes the views of a batch; by default those of the data's modality.
        stages: How many; "auto": as many as find something new, see `overtone.stopping`; or the values of
            each (see `StageSpec`).
        test: Embedded beside the data, for evaluation.
        preset: "overtone" or "paper".
        seed: Every random draw belongs to it.
        duplicates: Which samples are one and so never negatives of each other: "near" copies, "exact" ones,
            or "keep": none. See `overtone.identities`.
        precision: "fp32", "bf16", or "auto": what a few steps of each show to be fastest, layouts included;
            a run that continues keeps what it began with.
        device: "auto", "cpu", "cuda", ...
        num_workers: Processes that load samples, for data that are not cached.
        progress: Show bars and lines.
        **train: Values for all stages: `epochs`, `batch_size`, `lr`, ... (see `StageSpec`).

    Raises:
        OvertoneError: An argument, the data or the run folder is at fault; the message says how.

    >>> import tempfile
    >>> pictures = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    >>> joint = fit(pictures, out=tempfile.mkdtemp(), stages=2, epochs=1, batch_size=16, progress=False)
    >>> joint.encode(pictures).shape
    (64, 256)
    """
    folder, data = Path(out), as_dataset(dataset)
    held_out = None if test is None else as_dataset(test)
    recipe = resolved(
        parse(
            {
                "preset": preset,
                "seed": seed,
                "duplicates": duplicates,
                "data": {"source": GIVEN},
                "encoder": {"name": encoder if isinstance(encoder, str) else GIVEN},
                "views": {"name": GIVEN if views is not None else data.modality},
                "method": {"name": method if isinstance(method, str) else GIVEN},
                "stages": stages if isinstance(stages, (int, str)) else list(stages),
                "train": train,
                "precision": precision,
                "device": device,
                "num_workers": num_workers,
            }
        )
    )
    shown = progress and os.environ.get("RANK", "0") == "0"

    def tell(text: str) -> None:
        if shown:
            print(text, file=sys.stderr)

    recipe = settled(recipe, folder, tell, lambda: _parts(recipe, data, held_out, encoder, method, views))
    with (
        distributed.joined(),  # which chooses the device of this process
        distributed.by_first(lambda: working_in(folder)),
        Bars(Console(file=sys.stderr)) if shown else nullcontext(Silent()) as display,
        logging_to(display) if shown else nullcontext(),
    ):
        parts = _parts(recipe, data, held_out, encoder, method, views)
        with distributed.together():
            if distributed.is_first():
                Study(recipe, folder).save()
                require_same(data, folder)
                machine.keep(folder, str(parts.device))
        study, trained_on = Study(recipe, folder), parts.dataset
        with distributed.by_first(lambda: told(study)), distributed.by_first(lambda: failures.kept(folder)):
            multistage.run(parts, folder, display, lambda: update(study, trained_on))
        if distributed.is_first():
            update(study, trained_on)
    return load(folder, encoder=parts.encoder(len(parts.stages)))


def as_dataset(source: Any) -> Dataset:
    """Whatever holds samples, as an Overtone data set.

    >>> as_dataset(np.zeros((3, 8, 8, 3), dtype=np.uint8)).modality
    'image'
    """
    if isinstance(source, (str, Path)):
        opened: Dataset = datasets.open_dataset(source)
        return opened
    if isinstance(source, (np.ndarray, Tensor)):
        return datasets.arrays(source)
    if all(hasattr(source, name) for name in ("modality", "labels", "collate", "fingerprint")):
        own: Dataset = source
        return own
    if type(source).__module__.startswith("datasets."):
        return datasets.hugging_face(source)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return datasets.torch_dataset(source)
    raise RecipeError(
        f"dataset: {type(source).__name__} has no __getitem__ and __len__; expected an Overtone or torch "
        "data set, an array of images, or a path."
    )


def _parts(
    recipe: Recipe,
    data: Dataset,
    test: Dataset | None,
    encoder: str | nn.Module | Callable[[], nn.Module],
    method: str | Callable[[nn.Module], nn.Module],
    views: Views | None,
) -> Parts:
    given: dict[str, Any] = {}
    made_of: dict[str, str] = {}
    if not isinstance(encoder, str):
        given["encoder"] = lambda _: _as_encoder(encoder, data)
        with rng.seeded(recipe.seed, "described"):
            made_of["encoder"] = _described(encoder if isinstance(encoder, nn.Module) else encoder())
    if not isinstance(method, str):
        given["method"], made_of["method"] = method, _described(method)
    if views is not None:
        given["views"], made_of["views"] = views, _described(views)
    if isinstance(encoder, nn.Module):
        made_of["weights"] = _digest(encoder)
    parts = build_parts(recipe, data, test, **given)
    return dataclasses.replace(parts, made_of={**parts.made_of, **made_of})


def _described(given: Any) -> str:
    """What can be told of an object of the user's, alike in every process; of a function its name alone."""
    if isinstance(given, partial):
        return f"{_described(given.func)} {_AT.sub('', repr((given.args, given.keywords)))}"
    if hasattr(given, "__qualname__"):
        return f"{given.__module__}.{given.__qualname__}"
    if not (isinstance(given, nn.Module) or dataclasses.is_dataclass(given)):
        return f"{type(given).__module__}.{type(given).__qualname__} {_AT.sub('', repr(vars(given)))}"
    return repr(given)


def _digest(module: nn.Module) -> str:
    """Of its weights."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        flat = value.detach().cpu().reshape(-1)  # a batch norm's count has no dimension to be viewed as bytes
        found.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _as_encoder(encoder: nn.Module | Callable[[], nn.Module], data: Dataset) -> Encoder:
    example = data.collate([data[0], data[min(1, len(data) - 1)]])
    return as_encoder(_module(encoder), data.modality, example=example)


def _module(encoder: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    return copy.deepcopy(encoder) if isinstance(encoder, nn.Module) else encoder()
