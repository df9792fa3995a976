from __future__ import annotations

import numpy as np
import pytest
import torch

from overtone.contracts import Address, Batch
from overtone.datasets import arrays, tones, trifeature
from overtone.errors import RecipeError
from overtone.views import ImageViews
from overtone.views.erasing import BANK, ErasingViews, Units, bank_of

HERE = Address(seed=3, stage=1, step=5)


def _twice(batch: Batch, address: Address) -> list[Batch]:
    return [batch, batch]


def test_marked_patches_show_another_sample_and_all_else_is_untouched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 12), dtype=np.uint8)
    dataset = arrays(pixels)
    marked = np.random.default_rng(1).random((40, 6)) < 0.5
    erasing = ErasingViews(_twice, marked, dataset, Units(4), seed=0)
    batch = dataset.collate([dataset[row] for row in (7, 8, 30)])
    for view in erasing(batch, HERE):
        for place, row in enumerate((7, 8, 30)):
            seen = view["image"][place].numpy()
            donors = [
                donor
                for donor in range(40)
                if all(
                    np.array_equal(
                        seen[:, 4 * (u // 3) : 4 * (u // 3) + 4, 4 * (u % 3) : 4 * (u % 3) + 4],
                        (pixels[donor] if marked[row, u] else pixels[row])[
                            :, 4 * (u // 3) : 4 * (u // 3) + 4, 4 * (u % 3) : 4 * (u % 3) + 4
                        ],
                    )
                    for u in range(6)
                )
            ]
            assert donors or not marked[row].any()


def test_each_view_is_filled_anew_and_a_draw_belongs_to_the_sample_not_to_the_batch() -> None:
    dataset = trifeature(50, image_size=16)
    erasing = ErasingViews(ImageViews(), np.ones((50, 16), bool), dataset, Units(4), seed=0)
    whole = erasing(dataset.collate([dataset[row] for row in range(20)]), HERE)
    part = erasing(dataset.collate([dataset[row] for row in range(12, 20)]), HERE)
    for one, other in zip(whole, part, strict=True):
        assert torch.allclose(one["image"][12:], other["image"], atol=1e-6)
    first, second = (
        erasing.erased(dataset.collate([dataset[row] for row in range(20)]), HERE, view)["image"]
        for view in (0, 1)
    )
    assert sum(torch.equal(a, b) for a, b in zip(first, second, strict=True)) < 3


def test_nothing_marked_is_nothing_changed() -> None:
    dataset, views = trifeature(20, image_size=16), ImageViews()
    batch = dataset.collate([dataset[row] for row in range(10)])
    erasing = ErasingViews(views, np.zeros((20, 16), bool), dataset, Units(4), seed=0)
    for one, other in zip(erasing(batch, HERE), views(batch, HERE), strict=True):
        assert torch.equal(one["image"], other["image"])


def test_series_of_any_length_take_their_fill_from_series_of_any_other() -> None:
    dataset = tones(30)
    units = Units.of(bank_of(dataset, 0)["series"])
    erasing = ErasingViews(_twice, np.ones((30, 64), bool), dataset, units, seed=0)
    batch = dataset.collate([dataset[row] for row in range(5)])
    erased = erasing(batch, HERE)[0]
    assert erased["series"].shape == batch["series"].shape
    assert not torch.equal(erased["series"], batch["series"])


def test_units_are_patches_stretches_columns_and_tokens() -> None:
    assert Units.of(torch.zeros(1, 3, 224, 300)).side == 28
    assert Units.of(torch.zeros(1, 3, 16, 32)).side == 4
    assert Units.of(torch.zeros(1, 640, 2)).side == 10
    assert Units.of(torch.zeros(1, 20)).side == Units.of(torch.zeros(1, 20, dtype=torch.int64)).side == 1
    numbers = Units(2).numbers(torch.zeros(1, 1, 3, 5))[0, 0]
    assert numbers.tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    with pytest.raises(RecipeError, match="erase: off"):
        Units.of(torch.zeros(4))
    with pytest.raises(RecipeError, match="content that is a list"):
        Units.of(["two", "texts"])  # type: ignore[arg-type]


def test_the_bank_is_a_seeded_draw_of_different_samples() -> None:
    dataset = trifeature(400, image_size=16)
    index = bank_of(dataset, 1)["index"]
    assert len(index.unique()) == BANK
    assert torch.equal(index, bank_of(dataset, 1)["index"])
    assert not torch.equal(index, bank_of(dataset, 2)["index"])
