"""Encoders on disk: weights in safetensors, the architecture in JSON, no pickle."""

from __future__ import annotations

import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from overtone import artifacts, rng
from overtone.encoders.building import build_encoder
from overtone.encoders.encoder import BatchEncoder, Encoder, ImageEncoder
from overtone.errors import RecipeError, RunError

logger = logging.getLogger(__name__)

_WEIGHTS, _DESCRIPTION = "encoder.safetensors", "encoder.json"
_FORMAT = 1
_NAMED = 5


def save_encoder(encoder: Encoder, folder: str | Path) -> None:
    """Writes encoder.safetensors and encoder.json into an existing folder.

    Raises:
        RecipeError: The state of the encoder holds something other than tensors.

    >>> import tempfile
    >>> from overtone.encoders import build_encoder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_encoder(build_encoder("small_cnn"), folder)
    ...     load_encoder(folder).dim
    128
    """
    state = encoder.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise RecipeError(
                f"encoder state {name!r} is a {type(value).__name__}: only tensors can be saved"
            )
    # A copy each: safetensors takes neither shared nor strided (channels_last) tensors.
    copies = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in state.items()}
    description = {
        "format": _FORMAT,
        "kind": type(encoder).__name__,
        "dim": encoder.dim,
        "spec": encoder.spec,
    }
    with artifacts.disk_errors(Path(folder)):
        (Path(folder) / _WEIGHTS).write_bytes(save(copies))
    artifacts.write_json(Path(folder) / _DESCRIPTION, description)


def load_encoder(folder: str | Path, module: nn.Module | None = None) -> Encoder:
    """Rebuilds an encoder that `save_encoder` wrote, in eval mode, on the CPU.

    Args:
        folder: Where encoder.safetensors and encoder.json lie.
        module: The module that the encoder was made of, with any weights, for an architecture of your own;
            it is copied. Where the file names a built-in, torchvision or timm architecture it is not used.

    Raises:
        RunError: A file is missing or damaged, `module` is needed and not given, or the weights do not fit
            or are not finite.
    """
    folder = Path(folder)
    description = _read_description(folder / _DESCRIPTION)
    state = _read_safetensors(folder / _WEIGHTS)
    if description["spec"] is None:
        encoder = _wrapped(description, state, module, folder)
    else:
        encoder = _rebuilt(description["spec"], folder)
    _fill(encoder, state, folder / _WEIGHTS)
    return encoder.eval()


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Loads a user's own weights: a .safetensors file, or a .pt or .pth file of tensors alone.

    An encoder takes a whole encoder's weights or those of its backbone alone. A `state_dict` within the
    file is taken, the prefixes `module.` and `backbone.` are removed where all names have them, the head
    of a model whose head was replaced by an identity is left out, and floats are converted to the
    module's precision; each of these is logged.

    Raises:
        RunError: The file is of another kind, holds more than tensors, or does not fit the module.
    """
    path = Path(path)
    state = _read_weights(path)
    if isinstance(module, Encoder) and not state.keys() <= module.state_dict().keys():
        module = getattr(module, "backbone", module)
    own = module.state_dict()
    state = _without_prefix(state, own, path)
    heads = [name for name in state.keys() - own.keys() if _is_identity(module, name)]
    if heads:
        logger.info("%s: left out %s, since the module has no head.", path, ", ".join(sorted(heads)))
    state = {name: value for name, value in state.items() if name not in heads}
    _fill(module, _in_precision_of(own, state, path), path)


def _fill(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = module.state_dict()
    problems = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "different": [
            f"{name} ({_described(state[name])}, expected {_described(own[name])})"
            for name in sorted(own.keys() & state.keys())
            if _described(state[name]) != _described(own[name])
        ],
        "not finite": sorted(name for name, value in state.items() if not bool(torch.isfinite(value).all())),
    }
    found = [
        f"{len(names)} {problem}: {', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}"
        for problem, names in problems.items()
        if names
    ]
    if found:
        raise RunError(
            f"{path}: expected finite weights that fit {type(module).__name__}, but {'; '.join(found)}; "
            "give weights of this architecture"
        )
    module.load_state_dict(state)


def _described(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _read_description(path: Path) -> dict[str, Any]:
    description = artifacts.read_json(path)
    known = isinstance(description, dict) and description.get("format") == _FORMAT
    if not known or not {"kind", "spec"} <= description.keys() or not isinstance(description.get("dim"), int):
        raise RunError(
            f"{path}: not a description of an encoder in format {_FORMAT}; it was written by another version"
        )
    return dict(description)


def _rebuilt(spec: Any, path: Path) -> Encoder:
    # What a file says may choose among what is built in, and neither import code nor fetch weights.
    named = isinstance(spec, dict) and isinstance(spec.get("name"), str)
    fetches = named and spec["name"].startswith("hf:") and not spec.get("kept")
    if not named or fetches or spec.keys() & {"trust", "pretrained"}:
        raise RunError(f"{path}: `spec` is {spec!r}: expected the name and arguments of an architecture")
    try:
        with rng.seeded(0, "load_encoder"):
            return build_encoder(**spec)
    except (RecipeError, TypeError) as error:
        raise RunError(f"{path}: the architecture cannot be built: {error}") from error


def _wrapped(
    description: dict[str, Any], state: dict[str, Tensor], module: nn.Module | None, path: Path
) -> Encoder:
    kind, dim = description["kind"], description["dim"]
    if module is None:
        raise RunError(f"{path}: the architecture is your own ({kind}), which no file names: pass the module")
    if isinstance(module, Encoder):
        return deepcopy(module)
    if kind == "BatchEncoder":
        return BatchEncoder(deepcopy(module), dim)
    if kind == "ImageEncoder" and {"mean", "std"} <= state.keys():
        mean, std = state["mean"].flatten().tolist(), state["std"].flatten().tolist()
        return ImageEncoder(deepcopy(module), mean=mean, std=std, dim=dim)
    raise RunError(f"{path}: the encoder is a {kind}: pass one, not a {type(module).__name__}")


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in (".pt", ".pth"):
        raise RunError(f"{path}: expected a .safetensors, .pt or .pth file of weights")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Damaged bytes make an unpickler raise almost anything.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RunError(
            f"{path}: not readable as tensors alone ({reason}); save the module's state_dict, best as "
            ".safetensors"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        logger.info("%s: took its `state_dict`.", path)
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise RunError(f"{path}: holds no state_dict: expected names with tensors")
    return dict(content)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: not readable as safetensors ({error})") from error


def _without_prefix(state: dict[str, Tensor], own: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    for prefix in ("module.", "backbone."):
        common = state and all(name.startswith(prefix) for name in state)
        if common and not any(name.startswith(prefix) for name in own):
            logger.info("%s: removed the prefix %r of all names.", path, prefix)
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _in_precision_of(own: dict[str, Tensor], state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    types = {name: own[name].dtype for name in own.keys() & state.keys()}
    converted = {
        name: state[name].to(wanted)
        for name, wanted in types.items()
        if state[name].dtype != wanted and state[name].is_floating_point() and wanted.is_floating_point
    }
    if converted:
        logger.info("%s: converted %d tensors to the precision of the module.", path, len(converted))
    return state | converted


def _is_identity(module: nn.Module, name: str) -> bool:
    """Whether a weight belongs to a part that is an identity here: the head of a model that lost it."""
    parent = name.rpartition(".")[0]
    return isinstance(dict(module.named_modules()).get(parent), nn.Identity)
