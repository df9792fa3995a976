from __future__ import annotations

import numpy as np

from overtone.datasets import trifeature
from overtone.report.erased import erased_sheet
from overtone.report.sheet import picture
from overtone.views.erasing import ErasingViews, Units


def test_what_is_looked_at_is_red_and_what_is_hidden_shows_something_else() -> None:
    dataset = trifeature(12, image_size=16)
    marked, saliency = np.zeros((12, 16), bool), np.zeros((12, 16), np.float32)
    marked[:, :8], saliency[:, :8] = True, 1 / 8  # the upper half
    erasing = ErasingViews(lambda batch, address: [batch, batch], marked, dataset, Units(4), seed=0)
    page = np.asarray(erased_sheet(dataset, saliency, erasing, n_images=12)).astype(int)
    tile = picture(dataset[0]["image"]).height
    left = next(x for x in range(page.shape[1]) if (page[16 : 16 + tile, x] != 255).all())
    originals, lit, one, two = (page[16 + row * (tile + 16) :][:tile, left:] for row in range(4))
    upper, lower = slice(0, tile // 2), slice(tile // 2, tile)
    red = lit[:, :, 0] - lit[:, :, 1]
    assert red[upper].mean() > 100 > 1 > abs(red[lower].mean())
    for view in (one, two):
        assert np.array_equal(view[lower], originals[lower])
        assert not np.array_equal(view[upper], originals[upper])
    assert not np.array_equal(one, two)
