from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from overtone.contracts import Batch, Sample
from overtone.errors import DataError, RecipeError
from overtone.partition import Partition
from overtone.report.gallery import (
    Purity,
    cell_gallery,
    cell_purity,
    gallery_cells,
    gallery_samples,
    purity_sentence,
)


class Pictures:
    """Pictures that are given, with a digit each."""

    modality = "image"
    fingerprint = "0"
    label_names: Mapping[str, Sequence[str]] = {"digit": [f"name{i}" for i in range(10)]}

    def __init__(self, images: Sequence[Tensor], digits: Sequence[int] | None = None) -> None:
        self.images = images
        self.ids: Sequence[str] = [str(i) for i in range(len(images))]
        self.labels: Mapping[str, NDArray[np.int64]] = {} if digits is None else {"digit": np.array(digits)}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return {"index": index, "image": self.images[index]}

    def collate(self, samples: list[Sample]) -> Batch:
        batch: Batch = torch.utils.data.default_collate(samples)
        return batch


def colours_of(sheet: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in np.asarray(sheet).reshape(-1, 3).tolist()}


def colour(i: int) -> tuple[int, int, int]:
    return (i, 255 - i, 77)


def plain(n: int, size: int = 8) -> list[Tensor]:
    """Image i is all of colour i."""
    return [
        torch.tensor(colour(i), dtype=torch.uint8)[:, None, None].expand(3, size, size).clone()
        for i in range(n)
    ]


def test_the_sheet_shows_the_drawn_samples_of_the_chosen_cells_and_no_other() -> None:
    partition = Partition(np.arange(200) % 17)
    sheet = cell_gallery(Pictures(plain(200)), partition, n_cells=3, n_images=5)
    drawn = {i for cell in gallery_cells(partition, 3) for i in gallery_samples(partition, cell, 5)}
    assert len(drawn) == 15
    shown = colours_of(sheet)
    assert {i for i in range(200) if colour(i) in shown} == drawn


def test_each_row_holds_the_samples_of_one_cell() -> None:
    partition = Partition(np.arange(200) % 17)
    sheet = np.asarray(cell_gallery(Pictures(plain(200)), partition, n_cells=3, n_images=5))
    where = {i: np.argwhere((sheet == colour(i)).all(axis=-1)) for i in range(200)}
    tops = {i: int(at[:, 0].min()) for i, at in where.items() if len(at)}
    for i, j in ((i, j) for i in tops for j in tops):
        assert (tops[i] == tops[j]) == (i % 17 == j % 17)
    for i in tops:
        assert len(where[i]) == 96 * 96  # 8 pixels a side, enlarged twelvefold


def test_the_cells_are_of_the_larger_half_and_the_draw_is_keyed() -> None:
    partition = Partition(np.repeat(np.arange(10), np.arange(1, 11)))
    assert gallery_cells(partition, 3) == [9, 7, 5]
    assert gallery_cells(partition, 99) == [9, 8, 7, 6, 5]
    drawn = gallery_samples(partition, 9, 4)
    assert len(set(drawn)) == 4
    assert set(partition.pseudo_labels[drawn]) == {9}
    assert drawn == gallery_samples(partition, 9, 4)


def test_pixels_are_enlarged_by_repetition() -> None:
    image = torch.tensor([[[0, 255], [255, 0]]], dtype=torch.uint8)
    sheet = np.asarray(cell_gallery(Pictures([image, image]), Partition.whole(2), n_images=1, scale=3))
    tile = sheet[16:22, -16 - 6 : -16]
    assert np.array_equal(tile[..., 0], np.kron([[0, 255], [255, 0]], np.ones((3, 3))))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (torch.full((1, 4, 4), 90, dtype=torch.uint8), (90, 90, 90)),
        (torch.full((3, 4, 4), 90 * 257, dtype=torch.int32).to(torch.uint16), (90, 90, 90)),
        (torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(3, 4, 4), (51, 102, 153)),
        (torch.tensor([0.2, 0.4])[:, None, None].expand(2, 4, 4), (76, 76, 76)),
        (torch.tensor([0.2, 0.4, 0.6, 0.8, 1.0])[:, None, None].expand(5, 4, 4), (51, 102, 153)),
    ],
    ids=["grey", "16 bit", "float", "two channels", "five channels"],
)
def test_every_kind_of_picture_is_shown(image: Tensor, expected: tuple[int, int, int]) -> None:
    sheet = cell_gallery(Pictures([image] * 4), Partition.whole(4))
    tile = np.asarray(sheet)[20:100, -90:-20]
    assert np.abs(tile.astype(int) - expected).max() <= 1


def test_large_pictures_are_reduced_to_the_tile() -> None:
    sheet = cell_gallery(Pictures(plain(4, size=300)), Partition.whole(4), n_images=2)
    assert sheet.height == 16 + 96 + 16


def test_pictures_of_different_sizes_share_a_sheet() -> None:
    images = [torch.zeros(3, 10, 20), torch.zeros(3, 20, 10), torch.zeros(3, 200, 50)]
    assert cell_gallery(Pictures(images), Partition.whole(3)).mode == "RGB"


def test_labels_captions_and_title_take_their_place() -> None:
    bare = cell_gallery(Pictures(plain(4)), Partition.whole(4))
    told = cell_gallery(
        Pictures(plain(4), [3, 3, 3, -1]),
        Partition.whole(4),
        title="Stage 0",
        captions={0: "a much longer line, told"},
    )
    assert told.width > bare.width
    assert told.height > bare.height


def test_only_pictures_have_a_gallery_and_only_of_their_own_partition() -> None:
    series = Pictures(plain(4))
    series.modality = "series"
    with pytest.raises(DataError, match="'series'"):
        cell_gallery(series, Partition.whole(4))
    with pytest.raises(DataError, match="5 samples but the dataset 4"):
        cell_gallery(Pictures(plain(4)), Partition.whole(5))
    with pytest.raises(RecipeError, match="n_images is 0"):
        cell_gallery(Pictures(plain(4)), Partition.whole(4), n_images=0)
    with pytest.raises(RecipeError, match="scale is 0"):
        cell_gallery(Pictures(plain(4)), Partition.whole(4), scale=0)


def test_purity_is_how_often_two_samples_agree_by_loops() -> None:
    rng = np.random.default_rng(0)
    cells, codes = rng.integers(0, 9, 60), rng.integers(-1, 4, 60)
    shares, everywhere = [], []
    for i in range(60):
        others = [j for j in range(60) if j != i and codes[i] >= 0 and codes[j] >= 0]
        mates = [codes[j] == codes[i] for j in others if cells[j] == cells[i]]
        shares += [np.mean(mates)] if mates else []
        everywhere += [codes[j] == codes[i] for j in others]
    purity = cell_purity(Partition(cells), {"shape": codes})["shape"]
    assert purity.within == pytest.approx(100 * np.mean(shares))
    assert purity.chance == pytest.approx(100 * np.mean(everywhere))


def test_random_cells_are_at_chance_however_small_and_perfect_ones_at_a_hundred() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 10, 20_000)
    small = cell_purity(Partition(rng.permutation(20_000) // 4), {"digit": codes})["digit"]
    assert small.within == pytest.approx(small.chance, abs=0.7)
    assert small.chance == pytest.approx(10, abs=0.1)
    assert cell_purity(Partition(codes), {"digit": codes})["digit"].within == 100


def test_attributes_that_no_cell_can_compare_are_left_out() -> None:
    assert cell_purity(Partition(np.arange(4)), {"digit": np.array([1, 1, 2, 2])}) == {}
    assert cell_purity(Partition.whole(4), {"digit": np.array([1, -1, -1, -1])}) == {}
    assert purity_sentence(2, {}) == "Cells of stage 2: no labels to compare them with."


def test_the_sentence_names_every_attribute_with_its_chance() -> None:
    said = purity_sentence(0, {"digit": Purity(99.2, 10.1), "shape": Purity(15.4, 10.0)})
    assert said == "Cells of stage 0 agree in: digit 99 % (chance 10 %), shape 15 % (chance 10 %)."


def test_labels_of_another_dataset_are_refused() -> None:
    with pytest.raises(DataError, match="digit: 3 labels but the partition has 4"):
        cell_purity(Partition.whole(4), {"digit": np.array([1, 1, 2])})
