"""Names that a recipe may use, and the check of the arguments that go with them.

The schema of a component is the signature of the function it names, so whatever can be called from
Python can be written in YAML, and nothing is described twice.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError

from overtone import datasets, methods, objectives, views
from overtone.encoders import ENCODERS, FAMILIES, build_encoder
from overtone.errors import RecipeError
from overtone.imports import imported
from overtone.recipe.origin import Origin, Place
from overtone.strategies import STRATEGIES

GIVEN = "given"  # the name of what came from Python as an object

_PATHS = frozenset({"path", "root", "images", "labels", "weights", "cache_dir"})

Component = dict[str, Any]
Build = Callable[..., Any]


class Kind(NamedTuple):
    """A field of the recipe that names something.

    Attributes:
        key: Where the name stands.
        names: What can be named; beside these, any `package.module:attribute`.
        given: Arguments that come from elsewhere and are not the recipe's to set.
        more: Arguments that are handled here and not by what is named.
    """

    key: str
    names: dict[str, Build]
    given: frozenset[str] = frozenset()
    more: frozenset[str] = frozenset()


_DATA = Kind(
    "source",
    {
        "path": datasets.open_dataset,
        "folder": datasets.image_folder,
        "parquet": datasets.parquet,
        "arrays": datasets.arrays,
        "captions": datasets.captions,
        "pairs": datasets.pairs,
        "webdataset": datasets.webdataset,
        "trifeature": datasets.trifeature,
        "digits": datasets.digits,
        "captioned_scenes": datasets.captioned_scenes,
        "composite": datasets.composite,
        "image_table": datasets.image_table,
        "genomes": datasets.genomes,
        "digit_bags": datasets.digit_bags,
        "digits_on_patches": datasets.digits_on_patches,
        "netlists": datasets.netlists,
        "tones": datasets.tones,
        "subset": datasets.subset,
        "with_label": datasets.with_label,
    },
)
_OBJECTIVE = Kind(
    "name",
    {
        "nt_xent": objectives.NTXent,
        "dcl": objectives.DCL,
        "ifm": objectives.IFM,
        "hard_negatives": objectives.HardNegatives,
        "adaptive_temperature": objectives.AdaptiveTemperature,
    },
)
_INNER = {"Dataset": ("a data set", _DATA), "Objective": ("an objective", _OBJECTIVE)}
KINDS = {
    "data": _DATA,
    "test": _DATA,
    "views": Kind(
        "name",
        {
            "fragments": views.FragmentViews,
            "image": views.ImageViews,
            "image_table": views.ImageTableViews,
            "image_text": views.ImageTextViews,
            "same": views.SameViews,
            "series": views.SeriesViews,
            "per_sample": views.PerSampleViews,
            "report": views.ReportViews,
        },
    ),
    "method": Kind(
        "name",
        {
            "simclr": methods.SimCLR,
            "clip": methods.CLIP,
            "siglip": methods.SigLIP,
            "moco": methods.MoCo,
            "moco_v3": methods.MoCoV3,
            "byol": methods.BYOL,
            "supcon": methods.SupCon,
            **{name: one.build for name, one in STRATEGIES.items()},
        },
        given=frozenset({"encoder"}),
    ),
    "encoder": Kind(
        "name",
        dict.fromkeys(ENCODERS, build_encoder),
        given=frozenset({"trust", "modality", "example"}),
        more=frozenset({"weights"}),
    ),
}


def find(name: str, kind: Kind, place: Place, origin: Origin) -> Build:
    """What a name stands for.

    Raises:
        RecipeError: Nobody knows the name, its module cannot be imported, or it names code where a file may
            not.
    """
    if name == GIVEN:
        raise origin.error(
            (*place, kind.key),
            "was given from Python as an object; continue this run by calling overtone.fit again with the "
            "same arguments and the same out.",
        )
    if name in kind.names:
        return kind.names[name]
    if ":" not in name:
        raise origin.unknown_name((*place, kind.key), name, kind.names)
    if kind is KINDS["encoder"] and name.partition(":")[0] in FAMILIES:
        return build_encoder
    if origin.trusted is not None and name not in origin.trusted:
        raise origin.error(
            (*place, kind.key),
            f"{name!r} names code, and a run folder may come from elsewhere; if it is yours, or you have "
            "read that code, say --trust (in Python: trust=True).",
        )
    if kind is KINDS["encoder"]:
        return build_encoder  # imports it when it is built
    return _imported(name, (*place, kind.key), origin)


def _imported(name: str, place: Place, origin: Origin) -> Build:
    try:
        return imported(name)
    except RecipeError as error:
        raise origin.error(place, str(error)) from None


def check_component(component: Component, kind: Kind, place: Place, origin: Origin) -> None:
    """Checks the name and the arguments of a component, and of the data sets among its arguments.

    Raises:
        RecipeError: The message names the field, its value and what was expected.
    """
    name = component.get(kind.key)
    if not isinstance(name, str):
        said = "is missing" if name is None else repr(name)
        raise origin.error((*place, kind.key), f"{said}; expected one of {', '.join(kind.names)}.")
    if name == GIVEN:
        return
    build = find(name, kind, place, origin)
    arguments = {key: value for key, value in component.items() if key != kind.key}
    for key, value in arguments.items():
        if key in kind.given:
            raise origin.error((*place, key), "is set by the run; leave it out.")
        what, inner = _INNER.get(_contract(build, key), ("", _DATA if is_source(value) else None))
        if inner is None:
            continue
        if not (isinstance(value, dict) and inner.key in value):
            expected = f"expected {what}: `{inner.key}:` and its values."
            raise origin.error((*place, key), f"{value!r}: {expected}")
        check_component(value, inner, (*place, key), origin)
    plain = {key: value for key, value in arguments.items() if key not in kind.more}
    model, open_ended = _signature_model(build)
    known = [f for f in (*model.model_fields, *kind.more) if f not in kind.given and f != kind.key]
    unknown = [key for key in arguments if key not in known]
    if unknown and not open_ended:
        raise origin.unknown((*place, unknown[0]), known)
    try:
        model.model_validate(plain)
    except ValidationError as error:
        elsewhere = {*kind.given, kind.key}
        wrong = [e for e in error.errors() if not (e["type"] == "missing" and e["loc"][0] in elsewhere)]
        if wrong:
            key = str(wrong[0]["loc"][0])
            annotation = model.model_fields[key].annotation
            raise _complaint(wrong[0], plain.get(key), annotation, (*place, key), origin) from None


def objective_kind(build: Build, argument: str) -> Kind | None:
    """What an argument may name if it is an objective to be built."""
    return _OBJECTIVE if _contract(build, argument) == "Objective" else None


def is_source(value: Any) -> bool:
    """Whether an argument is itself a data set to be built."""
    return isinstance(value, dict) and "source" in value


def with_absolute_paths(component: Component) -> Component:
    """The component with every existing relative path made absolute, so that a run resumes from anywhere."""

    def absolute(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: absolute(name, inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [absolute(key, inner) for inner in value]
        if isinstance(value, str) and value.startswith("hf:"):
            return f"hf:{absolute('path', value[3:])}"
        may_be_a_path = isinstance(value, str) and (key in _PATHS or os.sep in value)
        return str(Path(value).resolve()) if may_be_a_path and _lies_here(Path(value)) else value

    return {key: absolute(key, value) for key, value in component.items()}


def _lies_here(path: Path) -> bool:
    """Also for a pattern of names in a folder that exists."""
    return path.exists() or (not set("*?[{").isdisjoint(path.name) and path.parent.is_dir())


def _complaint(wrong: Any, value: Any, annotation: Any, place: Place, origin: Origin) -> RecipeError:
    if wrong["type"] == "missing" and len(wrong["loc"]) == 1:
        return origin.error(place, "is missing; give it a value.")
    expected = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    expected = re.sub(r"\b(?:typing|os|pathlib|collections\.abc)\.", "", expected).replace(" | ", " or ")
    return origin.error(place, f"{value!r}: expected {expected}.")


@cache
def _signature_model(build: Build) -> tuple[type[BaseModel], bool]:
    """A pydantic model of a function's parameters, and whether it takes others besides."""
    fields: dict[str, Any] = {}
    open_ended = False
    function = build.__init__ if inspect.isclass(build) else build
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    for name, parameter in inspect.signature(build).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            options = _typed_options(parameter.annotation, scope)
            open_ended = options is None
            fields |= {key: (hint, None) for key, hint in (options or {}).items()}
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (_checkable(parameter.annotation, scope), default)
    config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())
    return create_model("Arguments", __config__=config, **fields), open_ended


def _contract(build: Build, argument: str) -> str:
    """The class that an argument is annotated with, by name: `Objective` of `contracts.Objective | None`."""
    parameter = inspect.signature(build).parameters.get(argument)
    hint = "" if parameter is None else inspect.formatannotation(parameter.annotation)
    return hint.strip("'").removesuffix(" | None").rpartition(".")[2]


def _typed_options(annotation: Any, scope: dict[str, Any]) -> dict[str, Any] | None:
    """The fields behind `**options: Unpack[SomeTypedDict]`; None for a bare `**options`."""
    text = str(annotation)
    inner = scope.get(text.partition("[")[2].rstrip("]")) if text.startswith("Unpack[") else None
    return (
        None
        if inner is None
        else {name: _checkable(hint, scope) for name, hint in get_type_hints(inner).items()}
    )


def _checkable(annotation: Any, scope: dict[str, Any]) -> Any:
    """The annotation, or `Any` where it is none that plain YAML values could be checked against."""
    try:
        hint = eval(annotation, scope) if isinstance(annotation, str) else annotation
        TypeAdapter(hint)
    except (
        NameError,
        TypeError,
        PydanticSchemaGenerationError,
        PydanticUndefinedAnnotation,
        PydanticUserError,
    ):
        return Any
    return Any if hint is inspect.Parameter.empty else hint
