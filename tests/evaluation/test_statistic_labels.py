from __future__ import annotations

import io
import logging
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from overtone.contracts import Dataset
from overtone.datasets import Source, arrays, digits, read_images, subset, tones, trifeature
from overtone.errors import DataError
from overtone.evaluation import evaluate_attributes, image_statistics, statistic_labels


def shades(*levels: int) -> Dataset:
    """Flat grey pictures of the given brightness."""
    return arrays(np.array(levels, np.uint8)[:, None, None] * np.ones((1, 6, 6), np.uint8))


def dots(*counts: int) -> Dataset:
    """Pictures of so many dots."""
    images = np.zeros((len(counts), 12, 12), np.uint8)
    for image, count in zip(images, counts, strict=True):
        for number in range(count):
            image[3 * (number // 4), 3 * (number % 4)] = 255
    return arrays(np.pad(images, ((0, 0), (1, 1), (1, 1))))


def stripes(degrees: list[float]) -> Dataset:
    y, x = np.mgrid[:24, :24]
    radians = np.deg2rad(degrees)[:, None, None]
    waves = np.sin((x * np.sin(radians) + y * np.cos(radians)) * 0.8)
    return arrays((127 + 100 * waves).astype(np.uint8))


def test_classes_are_equally_full_and_follow_the_values() -> None:
    found = statistic_labels(trifeature(200))
    for name, codes in found.labels.items():
        if name not in (
            "blobs",
            "edge_orientation",
            "red_green",
        ):  # a few values, directions, one colour often
            assert np.bincount(codes).tolist() == pytest.approx([40] * 5, abs=1), name
        if name != "edge_orientation":
            order = np.argsort(found.values[name], kind="stable")
            assert (np.diff(codes[order]) >= 0).all(), name
        assert len(found.label_names[name]) == len(set(found.label_names[name])) > codes.max()


def test_values_are_those_of_the_pictures_whatever_the_batches() -> None:
    dataset = trifeature(10)
    whole = image_statistics(dataset.collate([dataset[i] for i in range(10)])["image"])
    found = statistic_labels(dataset, batch_size=3)
    few = statistic_labels(dataset, rows=[7, 2, 2])
    assert list(found.values) == list(whole)
    for name, values in whole.items():
        np.testing.assert_allclose(found.values[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(few.values[name], values[[7, 2, 2]], rtol=1e-4, atol=1e-5, err_msg=name)


def test_equal_values_share_a_class_and_small_classes_are_joined() -> None:
    tied = statistic_labels(shades(*[10] * 30, *[20] * 28, *[30] * 2, *[40] * 40))
    codes = tied.labels["brightness"]
    assert np.bincount(codes).tolist() == [30, 28, 42]
    assert tied.label_names["brightness"] == ("darker", "medium", "brighter")


def test_what_is_constant_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="overtone"):
        found = statistic_labels(shades(10, 20, 30, 40))
    assert list(found.labels) == list(found.label_names) == list(found.cuts) == ["brightness"]
    assert found.left_out["contrast"] == found.left_out["aspect"] == "100 % of the pictures share one value"
    assert found.left_out["sharpness"] == "4 of 4 pictures have none"
    assert found.left_out["edge_orientation"] == "4 of 4 pictures have none"
    assert "contrast is left out: 100 % of the pictures share one value" in caplog.text
    assert set(found.labels) | set(found.left_out) == set(found.values)


def test_classes_of_a_count_are_named_by_their_range() -> None:
    found = statistic_labels(dots(*[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
    assert found.label_names["blobs"] == ("at most 1", "2 to 3", "4 to 5", "6 to 7", "8 or more")
    assert found.labels["blobs"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert statistic_labels(dots(0, 0, 1, 2, 2)).label_names["blobs"] == ("none", "1", "2 or more")


def test_edges_are_sorted_into_four_directions_around_the_half_circle() -> None:
    found = statistic_labels(stripes([0, 15, 165, 175, 45, 60, 90, 80, 100, 135, 120]))
    names = [found.label_names["edge_orientation"][code] for code in found.labels["edge_orientation"]]
    assert names[:4] == ["horizontal"] * 4
    assert names[4:6] == ["rising to the right"] * 2
    assert names[6:9] == ["vertical"] * 3
    assert names[9:] == ["falling to the right"] * 2


def test_a_picture_without_a_statistic_has_the_label_minus_one() -> None:
    flat = np.full((1, 24, 24), 90, np.uint8)
    wavy = stripes([0, 45, 90, 135])
    images = np.concatenate([flat, [wavy[i]["image"][0].numpy() for i in range(4)]])
    found = statistic_labels(arrays(images))
    assert found.labels["edge_orientation"].tolist() == [-1, 0, 1, 2, 3]
    assert found.labels["brightness"][0] >= 0


def test_cut_points_come_from_the_training_part_alone() -> None:
    train = statistic_labels(shades(*range(0, 100, 10)))
    test = statistic_labels(shades(5, 200, 250, 81), like=train)
    assert test.labels["brightness"].tolist() == [0, 4, 4, 4]
    assert test.label_names == train.label_names
    assert test.left_out == train.left_out
    assert statistic_labels(shades(*range(0, 100, 10)), like=train).labels["brightness"].tolist() == (
        train.labels["brightness"].tolist()
    )


def test_a_direction_that_the_training_part_lacks_is_no_class_of_the_test_part() -> None:
    train = statistic_labels(stripes([0, 3, 90, 87]))
    test = statistic_labels(stripes([0, 45, 90]), like=train)
    assert test.labels["edge_orientation"].tolist() == [0, -1, 2]


def files(*sizes: tuple[int, int], turned: bool = False) -> Source:
    """JPEG files of the given widths and heights; `turned` ones are stored on their side."""
    contents = []
    for width, height in sizes:
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6 if turned else 1
        Image.new("RGB", (height, width) if turned else (width, height), "teal").save(file, "JPEG", exif=exif)
        contents.append(file.getvalue())
    return Source("files", [f"{i}.jpg" for i in range(len(sizes))], contents.__getitem__)


@pytest.mark.parametrize("turned", [False, True])
def test_proportions_are_those_of_the_files_as_one_sees_them(turned: bool) -> None:
    source = files((30, 10), (10, 30), (20, 20), (30, 10), turned=turned)
    dataset = read_images(source, image_size=8)
    assert "aspect" in statistic_labels(dataset).left_out
    found = statistic_labels(subset(dataset, [3, 1, 2]), source=source)
    assert found.values["aspect"] == pytest.approx([3, 1 / 3, 1])
    assert [found.label_names["aspect"][code] for code in found.labels["aspect"]] == [
        "wider",
        "narrower",
        "medium",
    ]


def test_proportions_of_arrays_are_theirs() -> None:
    pictures = [np.zeros((3, 4, 8), np.uint8), np.zeros((8, 4), np.uint8)]
    source = Source("arrays", ["a", "b"], pictures.__getitem__)
    dataset = read_images(source, image_size=4, channels=3)
    assert statistic_labels(dataset, source=source).values["aspect"].tolist() == [2, 0.5]


@pytest.mark.parametrize("source", [trifeature, digits])
def test_a_linear_probe_reads_brightness_from_raw_pixels_far_above_chance(
    source: Callable[..., Dataset],
) -> None:
    dataset, n_train = source(1000, image_size=16), 800
    train = statistic_labels(dataset, rows=range(n_train))
    test = statistic_labels(dataset, rows=range(n_train, 1000), like=train)
    pixels = np.stack([dataset[i]["image"].flatten().numpy() for i in range(1000)]).astype(np.float32)
    brightness = [{"brightness": part.labels["brightness"]} for part in (train, test)]
    (score,) = evaluate_attributes(
        pixels[:n_train], brightness[0], pixels[n_train:], brightness[1], probes=["linear"]
    )
    assert score["chance"] < 30
    assert score["accuracy"] > score["chance"] + 20


def test_wrong_data_are_an_error_that_names_them() -> None:
    with pytest.raises(DataError, match="holds 'series'; expected pictures"):
        statistic_labels(tones(3))
    with pytest.raises(DataError, match="no samples"):
        statistic_labels(shades(1, 2), rows=[])
    with pytest.raises(DataError, match="red_green was measured in one set only"):
        statistic_labels(trifeature(4), like=statistic_labels(shades(1, 2)))
    with pytest.raises(DataError, match="files: has no '1'"):
        statistic_labels(shades(1, 2), source=Source("files", ["0"], [b""].__getitem__))
    with pytest.raises(DataError, match="files: '0' can no longer be read"):
        statistic_labels(shades(1, 2), source=Source("files", ["0", "1"], [b"", b""].__getitem__))
