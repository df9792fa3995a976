"""The pictures of `overtone demo`, as arrays, for whoever trains on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overtone.demo import RECIPE
from overtone.recipe import Recipe, open_data, parse, resolved

STAGES = 3


class Pictures(NamedTuple):
    """Training and test pictures (N, H, W, 3) uint8, and for how many epochs a stage trains on them."""

    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    epochs: int


def recipe(smoke: bool) -> Recipe:
    """The demo's; tiny to see whether everything runs."""
    values: dict[str, Any] = dict(RECIPE)
    if smoke:
        values["train"] = {**values["train"], "epochs": 1, "batch_size": 64}
        for name in ("data", "test"):
            values[name] = {**values[name], "left": {**values[name]["left"], "n": 150}}
    return resolved(parse(values))


def drawn(smoke: bool) -> Pictures:
    chosen = recipe(smoke)
    train, test = (
        np.stack([dataset[i]["image"].permute(1, 2, 0).numpy() for i in range(len(dataset))])
        for dataset in open_data(chosen)
        if dataset is not None
    )
    return Pictures(train, test, chosen.stage_specs()[0].epochs)
