"""Recipes as text: YAML with the line of every field, overrides, and errors that name both."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from overtone.errors import RecipeError

Place = tuple[str | int, ...]

_MAX_BYTES = 1 << 20
_MAX_FIELDS = 10_000
_MAX_DEPTH = 40


class Origin(NamedTuple):
    """Where the values of a recipe were written.

    Attributes:
        file: The recipe's path; None for values that came from Python or the command line.
        lines: Place -> line number, for what the file holds.
        trusted: The names of code (`package.module:Class`) that may be imported; None: all, since the user
            wrote them.
    """

    file: Path | None = None
    lines: dict[Place, int] = {}  # noqa: RUF012 (never written to)
    trusted: Collection[str] | None = None

    def error(self, place: Place, message: str) -> RecipeError:
        """An error that begins with file, line and field."""
        nearest = next((place[:n] for n in range(len(place), 0, -1) if place[:n] in self.lines), None)
        where = f"{self.file}:{self.lines[nearest]} " if self.file and nearest else ""
        return RecipeError(f"{where}{named(place) or 'recipe'}: {message}")

    def unknown(self, place: Place, known: Iterable[str]) -> RecipeError:
        """An error for a field that nobody knows, with the nearest one that somebody does."""
        return self.error(place, f"unknown field; {_nearest(str(place[-1]), known)}")

    def unknown_name(self, place: Place, name: str, known: Iterable[str]) -> RecipeError:
        """An error for a value that names nothing, likewise."""
        return self.error(place, f"{name!r} is unknown; {_nearest(name, known)}")

    def invalid(self, error: ValidationError, place: Place, known: Iterable[str]) -> RecipeError:
        """The most exact complaint of pydantic, in our words."""
        first = max(error.errors(include_url=False), key=lambda one: len(one["loc"]))
        # Beyond the field, pydantic also names the types that it tried.
        where = (*place, *first["loc"][:1], *(part for part in first["loc"][1:] if isinstance(part, int)))
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            return self.unknown((*place, *first["loc"]), known)
        if first["type"] in ("missing", "missing_argument"):
            return self.error(where, "is missing; give it a value.")
        return self.error(where, f"{first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}.")


def named(place: Place) -> str:
    """A place as a person writes it.

    >>> named(("stages", 1, "cell_size"))
    'stages[1].cell_size'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean `{close[0]}`?" if close else f"known are {', '.join(names)}."


def read_yaml(path: Path) -> tuple[dict[str, Any], Origin]:
    """The fields of a YAML file and the line of each.

    Raises:
        RecipeError: Not a readable file, not plain YAML (tags that name code are refused), a key that
            stands twice, or no fields at all.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RecipeError(f"{path}: {path.stat().st_size:,} bytes; a recipe has at most {_MAX_BYTES:,}.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe ({error}); give a YAML file.") from None
    lines: dict[Place, int] = {}
    try:
        _note_lines(path, yaml.compose(text, Loader=yaml.SafeLoader), (), lines)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"{path}: not plain YAML: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: holds {type(values).__name__}, expected fields such as `data:`.")
    return values, Origin(path, lines)


def override(values: dict[str, Any], assignment: str) -> Place:
    """Sets `key.path=value` in the fields of a recipe, the value read as YAML; gives the place.

    >>> fields = {"train": {"epochs": 8}}
    >>> override(fields, "train.epochs=2"), fields
    (('train', 'epochs'), {'train': {'epochs': 2}})
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise RecipeError(f"{assignment!r}: expected key=value, e.g. train.epochs=10 or stages=3.")
    place: Place = tuple(int(part) if part.isdigit() else part for part in key.strip().split("."))
    holder: Any = values
    for part in place[:-1]:
        if isinstance(holder, dict):
            holder = holder.setdefault(part, {})
        elif isinstance(holder, list) and isinstance(part, int) and part < len(holder):
            holder = holder[part]
        else:
            raise RecipeError(f"{assignment!r}: there is nothing at `{part}` to set a value in.")
    try:
        value = yaml.safe_load(text)
        holder[place[-1]] = value
    except yaml.YAMLError:
        raise RecipeError(f"{assignment!r}: {text!r} is not a YAML value.") from None
    except (TypeError, IndexError):
        raise RecipeError(f"{assignment!r}: there is nothing at `{key}` to set.") from None
    return place


def _note_lines(path: Path, node: yaml.Node | None, place: Place, lines: dict[Place, int]) -> None:
    if len(lines) > _MAX_FIELDS or len(place) > _MAX_DEPTH:  # aliases can grow a small file without end
        raise RecipeError(
            f"{path}: over {_MAX_FIELDS:,} fields or {_MAX_DEPTH} deep, once its aliases (*) are written out."
        )
    children: list[tuple[str | int, yaml.Node, int]] = []
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError(f"{path}:{key.start_mark.line + 1}: a field's name must be a plain word.")
        children = [(key.value, value, key.start_mark.line + 1) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(number, value, value.start_mark.line + 1) for number, value in enumerate(node.value)]
    for name, value, line in children:
        inner = (*place, name)
        if inner in lines:
            raise RecipeError(
                f"{path}:{line} {named(inner)}: stands twice, first in line {lines[inner]}; keep one."
            )
        lines[inner] = line
        _note_lines(path, value, inner, lines)
