"""What an earlier stage looks at, and what the views of a later one hide of it: to be seen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from overtone import rng
from overtone.contracts import Address, Dataset
from overtone.report.sheet import picture, sheet
from overtone.views.erasing import ErasingViews
from overtone.views.pixels import unit_floats


def erased_sheet(
    dataset: Dataset,
    saliency: NDArray[np.float32],
    erasing: ErasingViews,
    *,
    n_images: int = 10,
    title: str = "",
) -> Image.Image:
    """A keyed draw of pictures: as they are, with what is looked at lit up, and as two views see them.

    Args:
        dataset: N samples whose modality is `image`.
        saliency: (N, U), see `overtone.evidence.saliency`.
        erasing: Hides units of them.
        n_images: Columns at most.
        title: Written above.

    Returns:
        An RGB image of four rows.
    """
    n = len(dataset)
    rows = rng.permuted(np.arange(min(n_images, n)), n, rng.derive(0, "erased")).tolist()
    batch = dataset.collate([dataset[row] for row in rows])
    images = unit_floats(batch["image"])
    lit = _lit(images, torch.from_numpy(saliency[rows]), erasing.units.numbers(images))
    views = [erasing.erased(batch, Address(0, 0, 0), view)["image"] for view in (0, 1)]
    share = float(np.mean(erasing.marked[rows]))
    return sheet(
        title,
        [["pictures"], ["looked at"], ["view 1", f"{share:.0%} hidden"], ["view 2"]],
        [[picture(image) for image in row] for row in (images, lit, *views)],
    )


def _lit(images: Tensor, saliency: Tensor, numbers: Tensor) -> Tensor:
    """The pictures in grey, darker where nothing is looked at, red where most is."""
    weight = (saliency / saliency.amax(1, keepdim=True).clamp_min(1e-9)).sqrt()
    weight = weight[:, numbers.flatten()].view(len(images), 1, *numbers.shape[2:])
    grey = images.mean(1, keepdim=True)
    return torch.cat([0.3 * grey + 0.7 * weight, 0.3 * grey, 0.3 * grey], dim=1)
