"""Code that a user's recipe names; nothing that is read from an artifact ever comes here."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from overtone.errors import RecipeError


def imported(name: str) -> Callable[..., Any]:
    """What `package.module:attribute` stands for: a class or a function.

    Raises:
        RecipeError: It is neither, or cannot be imported, whatever the user's code raised at that.

    >>> imported("collections:Counter")("aab")
    Counter({'a': 2, 'b': 1})
    """
    module, _, attribute = name.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        if inspect.isclass(found) or inspect.isfunction(found):
            inspect.signature(found)
    except Exception as error:  # importing runs code of the user's, which may raise anything
        raise RecipeError(
            f"{name!r} cannot be imported: {type(error).__name__}: {error}; expected package.module:Class of "
            "a package that is installed or on PYTHONPATH."
        ) from error
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        raise RecipeError(f"{name!r} is no class and no Python function.")
    return found
