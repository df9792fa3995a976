"""A classifier from the names of classes alone (Radford et al., ICML 2021, section 3.1.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from overtone.contracts import Dataset, TwoTowers
from overtone.errors import DataError, RecipeError
from overtone.evaluation.towers import unit_images, unit_texts

TEMPLATES = ("a photo of a {}.",)


def zero_shot_classifier(
    encoder: TwoTowers, names: Sequence[str], templates: Sequence[str] = TEMPLATES
) -> Tensor:
    """One direction a class: the mean of the unit embeddings of its prompts, brought to unit length again.

    Args:
        encoder: Two towers.
        names: Of C classes.
        templates: Prompts with `{}` where the name goes.

    Returns:
        (C, D) float32; the class of a picture is the one with the largest product with its embedding.

    Raises:
        RecipeError: There is no name or no template, or a template has no `{}`.
        NumericalError: An embedding is not finite, or zero.

    >>> class Lengths:
    ...     encode_text = staticmethod(lambda texts: torch.tensor([[len(t), 1.0] for t in texts]))
    >>> zero_shot_classifier(Lengths(), ["cat", "horse"], ["{}", "a {}"]).shape
    torch.Size([2, 2])
    """
    if not names or not templates:
        raise RecipeError(f"zero shot: {len(names)} names and {len(templates)} templates; expected both.")
    if wrong := [template for template in templates if "{}" not in template]:
        raise RecipeError(f"templates: {wrong[0]!r} has no {{}} where the name of the class goes.")
    means = [
        unit_texts(encoder, [template.replace("{}", name) for template in templates]).mean(0)
        for name in names
    ]
    return F.normalize(torch.stack(means), dim=1)


def zero_shot_accuracy(
    encoder: TwoTowers,
    dataset: Dataset,
    attribute: str,
    *,
    templates: Sequence[str] = TEMPLATES,
    batch_size: int = 256,
) -> float:
    """How many labelled pictures get their own class, in percent.

    Args:
        encoder: Two towers.
        dataset: Pictures with the attribute.
        attribute: Its names are the classes.
        templates: See `zero_shot_classifier`.
        batch_size: Pictures at a time.

    Raises:
        DataError: The dataset has no such attribute, or no picture is labelled.
    """
    if attribute not in dataset.labels:
        raise DataError(
            f"zero shot: no attribute {attribute!r}; there are {', '.join(dataset.labels) or 'none'}."
        )
    codes = dataset.labels[attribute]
    rows = np.flatnonzero(codes >= 0).tolist()
    if not rows:
        raise DataError(f"zero shot: no sample has a label of {attribute!r}; expected at least one.")
    classes = zero_shot_classifier(encoder, dataset.label_names[attribute], templates)
    right = 0
    for begin in range(0, len(rows), batch_size):
        part = rows[begin : begin + batch_size]
        batch = dataset.collate([dataset[row] for row in part])
        images = unit_images(encoder, batch["image"], [dataset.ids[row] for row in part])
        right += int(((images @ classes.T).argmax(1).numpy() == codes[part]).sum())
    return 100 * right / len(rows)
