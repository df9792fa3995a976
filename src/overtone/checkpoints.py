"""What a step leaves behind so that the next one can follow after any interruption."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor, nn

from overtone import artifacts, distributed
from overtone.distributed import split_like, whole
from overtone.errors import RunError

logger = logging.getLogger(__name__)


def save(
    folder: Path,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Mapping[str, str],
    keep: int = 2,
) -> None:
    """Writes `folder/step-NNNNNNNN`, then removes all but the newest; called on all processes.

    Args:
        folder: Holds the checkpoints of one training.
        step: How many steps are done.
        method: Its whole state is kept.
        optimizer: Likewise, but for the rates, which belong to the step.
        inputs: Name -> digest of what the training is made of.
        keep: How many checkpoints stay; of two, one may be damaged.

    Raises:
        DiskError: The disk is full; the checkpoints before stay.
    """
    with distributed.together():
        if not (distributed.is_first() or distributed.is_sharded(method)):
            return
        parameters = _copies(method.state_dict())
        tensors, plain = _split(optimizer.state_dict()["state"])
        if not distributed.is_first():
            return
        with artifacts.writing(folder / _name(step), inputs) as place:
            # By hand, since a full disk would make `save_file` raise an error of its own.
            (place / "method.safetensors").write_bytes(serialized(parameters))
            (place / "optimizer.safetensors").write_bytes(serialized(tensors))
            artifacts.write_json(place / "state.json", {"step": step, "optimizer": plain})
        _tidy(folder, step, keep)


def restore(
    folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer, inputs: Mapping[str, str]
) -> int:
    """Loads the newest checkpoint that is whole, and returns its step; 0 where there is none.

    A damaged checkpoint is named in a warning and the one before it is taken; called on all processes.

    Raises:
        RunError: There are checkpoints, but none is whole (training never starts over unasked), or the
            newest was made from other inputs or of another architecture, or processes found different ones.
    """
    with distributed.together():
        step = _restored(folder, method, optimizer, inputs)
    most, least = distributed.largest([step, -step], next(method.parameters()).device)
    if most != -least:
        raise RunError(
            f"{folder}: process {distributed.rank()} finds step {step}, others {-least:.0f} to {most:.0f}. "
            "All processes must see one run folder: put it on a disk that they share."
        )
    return step


def _restored(
    folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer, inputs: Mapping[str, str]
) -> int:
    found = _newest_first(folder)
    for place in found:
        try:
            manifest = artifacts.verify(place)
        except (RunError, OSError) as error:
            logger.warning("checkpoint skipped: %s Falling back to the one before.", error)
            continue
        artifacts.require_inputs(place, manifest, inputs)
        return _loaded(place, method, optimizer)
    if found:
        raise RunError(
            f"{folder}: none of its {len(found)} checkpoints is whole (see the warnings above). "
            "Remove the folder to train this stage from its beginning."
        )
    return 0


def _loaded(place: Path, method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    state, now = artifacts.read_json(place / "state.json"), method.state_dict()
    found = load_file(place / "method.safetensors")
    parts = {name: split_like(value, now[name]) if name in now else value for name, value in found.items()}
    try:
        method.load_state_dict(parts)
    except RuntimeError as error:
        raise RunError(f"{place}: of another encoder or method: {error} Remove {place.parent}.") from None
    _load_optimizer(optimizer, load_file(place / "optimizer.safetensors"), state["optimizer"])
    return int(state["step"])


def _tidy(folder: Path, step: int, keep: int) -> None:
    """Removes what the checkpoint of a step, just written, has made superfluous.

    Also those of later steps, which were passed over as damaged and would be counted as newer for ever, and
    what a killed process has left half written.
    """
    kept = [place for place in _newest_first(folder) if place.name <= _name(step)][:keep]
    for place in {*folder.glob("step-*"), *folder.glob(".step-*")} - set(kept):
        shutil.rmtree(place, ignore_errors=True)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors takes neither shared memory (tied weights) nor strides (channels_last)."""
    return {
        name: whole(tensor.detach()).cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _split(state: dict[int, dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as named tensors and, beside them, its plain numbers."""
    flat = {
        f"{parameter}.{name}": value for parameter, entry in state.items() for name, value in entry.items()
    }
    tensors = {name: value for name, value in flat.items() if isinstance(value, Tensor)}
    plain = {name: value for name, value in flat.items() if not isinstance(value, Tensor)}
    return _copies(tensors), json.loads(json.dumps(plain))


def _load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in {**tensors, **plain}.items():
        number, name = int(key.partition(".")[0]), key.partition(".")[2]
        part = split_like(value, parameters[number]) if isinstance(value, Tensor) else value
        state.setdefault(number, {})[name] = part
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
