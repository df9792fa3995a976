"""The whole configuration of a run: read from YAML, checked, filled in, built. Nothing else sees YAML."""

from overtone.recipe.building import build_dataset, build_parts, open_data, own_module
from overtone.recipe.schema import Recipe, device_name, parse, read, resolved, to_yaml

__all__ = [
    "Recipe",
    "build_dataset",
    "build_parts",
    "device_name",
    "open_data",
    "own_module",
    "parse",
    "read",
    "resolved",
    "to_yaml",
]
