from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from overtone.datasets.captioned import Captioned
from overtone.datasets.opening import open_some


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty pictures, each as bright as its number says, in two folders."""
    for number in range(30):
        place = tmp_path / "photos" / ("even" if number % 2 == 0 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (12, 12), 8 * number).save(place / f"{number}.png")
    return tmp_path / "photos"


def test_a_draw_keeps_ids_pictures_and_labels_together_in_their_order(folder: Path) -> None:
    dataset, total = open_some(folder, 10, where={}, image_size=8, channels=1)
    assert (len(dataset), total) == (10, 30)
    assert list(dataset.ids) == sorted(dataset.ids)
    for row, name in enumerate(dataset.ids):
        number = int(Path(name).stem)
        assert dataset[row]["image"].unique().tolist() == [8 * number]
        assert dataset.label_names["class"][dataset.labels["class"][row]] == ("odd" if number % 2 else "even")


def test_the_draw_is_the_same_at_any_size_and_another_for_another_seed(folder: Path) -> None:
    small, _ = open_some(folder, 10, where={}, image_size=8)
    large, _ = open_some(folder, 10, where={}, image_size=16)
    other, _ = open_some(folder, 10, where={}, image_size=8, seed=1)
    assert list(small.ids) == list(large.ids) != list(other.ids)


def test_texts_stay_with_their_pictures_and_empty_ones_are_left_out(folder: Path) -> None:
    texts = ["" if number == 4 else f"the {number}th" for number in range(30)]
    lines = [f"{'odd' if n % 2 else 'even'}/{n}.png,{text}" for n, text in enumerate(texts)]
    table = folder / "texts.csv"
    table.write_text("\n".join(["file_name,caption", *lines]))
    dataset, total = open_some(table, 29, where={}, image_size=8, max_bad_fraction=0.1)
    assert isinstance(dataset, Captioned)
    assert total == 30
    assert len(dataset) in (28, 29)
    for name, text in zip(dataset.ids, dataset.texts, strict=True):
        assert text == f"the {Path(name).stem}th"


def test_everything_is_read_where_there_is_no_more(folder: Path) -> None:
    dataset, total = open_some(folder, 99, where={}, image_size=8)
    assert (len(dataset), total) == (30, 30)
    assert np.unique(dataset.ids).size == 30
