from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from overtone.datasets import trifeature
from overtone.errors import DataError
from overtone.evaluation import STATISTICS, image_statistics

COLOURS = {"red_green", "yellow_blue", "saturation"}
SIZES = [(32, 32), (24, 40)]


def blobs_of_noise(n: int = 6, channels: int = 3, size: tuple[int, int] = (24, 40), seed: int = 0) -> Tensor:
    """Smooth random pictures, different in every statistic."""
    noise = np.random.default_rng(seed).random((n, channels, *size))
    smooth = np.stack(
        [ndimage.gaussian_filter(x, (0, 0.5 + i / 2, 0.5 + i / 2)) for i, x in enumerate(noise)]
    )
    low, high = smooth.min(axis=(1, 2, 3), keepdims=True), smooth.max(axis=(1, 2, 3), keepdims=True)
    return torch.from_numpy((smooth - low) / (high - low)).float()


def value(images: Tensor, name: str) -> float:
    (found,) = image_statistics(images)[name]
    return float(found)


def grey(plane: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(plane, np.float32))[None, None]


def ramp(degrees: float, size: tuple[int, int] = (32, 32)) -> Tensor:
    """Grey that rises along a direction, counter-clockwise from the right as one sees it."""
    y, x = np.mgrid[: size[0], : size[1]]
    along = x * math.cos(math.radians(degrees)) - y * math.sin(math.radians(degrees))
    return grey(0.5 + along / 200)


def stripes(degrees: float, n: int = 48) -> Tensor:
    """Waves whose crests run along a direction."""
    y, x = np.mgrid[:n, :n]
    across = x * math.sin(math.radians(degrees)) + y * math.cos(math.radians(degrees))
    return grey(0.5 + 0.4 * np.sin(across * 2 * math.pi / 9))


def squares(places: list[tuple[int, int]], ground: float = 0.1, ink: float = 0.9) -> Tensor:
    plane = np.full((32, 32), ground)
    for top, left in places:
        plane[top : top + 4, left : left + 4] = ink
    return grey(plane)


def test_brightness_and_contrast_are_mean_and_deviation_of_the_grey_that_pillow_makes() -> None:
    from PIL import Image

    images = (blobs_of_noise() * 255).round().to(torch.uint8)
    found = image_statistics(images)
    for number, image in enumerate(images):
        plane = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")) / 255
        assert found["brightness"][number] == pytest.approx(plane.mean(), abs=1 / 255)
        assert found["contrast"][number] == pytest.approx(plane.std(), abs=1 / 255)


def test_saturation_is_that_of_colorsys_weighted_by_its_value() -> None:
    images = blobs_of_noise(3)
    for image, found in zip(images, image_statistics(images)["saturation"], strict=True):
        pixels = [colorsys.rgb_to_hsv(*rgb) for rgb in image.flatten(1).T.tolist()]
        expected = sum(s * v for _, s, v in pixels) / sum(v for _, _, v in pixels)
        assert found == pytest.approx(expected, rel=1e-4)


def test_the_opponent_axes_are_those_of_cielab_but_for_its_roots() -> None:
    from PIL import Image, ImageCms

    colours = np.random.default_rng(0).integers(0, 256, (300, 3), dtype=np.uint8)
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = np.asarray(ImageCms.applyTransform(Image.fromarray(colours[None]), to_lab))[0].view(np.int8)
    found = image_statistics(torch.from_numpy(colours)[:, :, None, None])
    assert np.corrcoef(found["red_green"], lab[:, 1])[0, 1] > 0.95
    assert np.corrcoef(found["yellow_blue"], lab[:, 2])[0, 1] > 0.95


def test_red_is_red_and_green_is_green_and_a_blue_sky_is_neither() -> None:
    colours = [(220, 40, 40), (60, 160, 60), (100, 160, 220), (240, 220, 60), (128, 128, 128)]
    found = image_statistics(torch.tensor(colours, dtype=torch.uint8)[:, :, None, None])
    red, green, sky, yellow, grey = found["red_green"]
    assert green < -0.2 < -0.1 < sky < 0.1 < red
    assert grey == pytest.approx(0, abs=1e-6)
    assert abs(yellow) < 0.2
    assert found["yellow_blue"][2] < -0.2 < 0.2 < found["yellow_blue"][3]


def test_only_three_channels_have_a_colour_and_grey_ones_have_none_to_speak_of() -> None:
    for channels in (1, 2, 4, 7):
        assert set(image_statistics(blobs_of_noise(channels=channels))) == set(STATISTICS) - COLOURS
    assert set(image_statistics(blobs_of_noise())) == set(STATISTICS)
    found = image_statistics(blobs_of_noise(channels=1).expand(-1, 3, -1, -1))
    assert all(np.abs(found[name]).max() < 1e-6 for name in COLOURS)


def test_eight_and_sixteen_bits_and_floats_of_a_picture_measure_the_same() -> None:
    eight = (blobs_of_noise() * 255).round().to(torch.uint8)
    sixteen = (eight.int() * 257).to(torch.uint16)
    expected = image_statistics(eight)
    for other in (sixteen, eight.float() / 255, eight.double() / 255):
        found = image_statistics(other)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=name)
            assert found[name].dtype == np.float32


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("degrees", [0, 20, 45, 90, 100, 135, 170])
def test_the_edges_of_a_ramp_run_across_its_direction(degrees: float, size: tuple[int, int]) -> None:
    assert value(ramp(degrees, size), "edge_orientation") == pytest.approx((degrees + 90) % 180, abs=0.05)
    assert value(ramp(degrees + 180, size), "edge_orientation") == pytest.approx(
        (degrees + 90) % 180, abs=0.05
    )


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 120, 160])
def test_the_edges_of_stripes_run_along_them_though_their_gradients_cancel(degrees: float) -> None:
    found = value(stripes(degrees), "edge_orientation")
    assert abs((found - degrees + 90) % 180 - 90) < 3


def test_edge_orientation_is_kept_by_half_a_turn_and_mirrored_by_a_flip() -> None:
    images = torch.cat([stripes(30), ramp(50, (48, 48))])
    kept = image_statistics(images)["edge_orientation"]
    turned = image_statistics(images.rot90(2, dims=(2, 3)))["edge_orientation"]
    flipped = image_statistics(images.flip(3))["edge_orientation"]
    quarter = image_statistics(images.rot90(1, dims=(2, 3)))["edge_orientation"]
    np.testing.assert_allclose(turned, kept, atol=1e-3)
    np.testing.assert_allclose(flipped, 180 - kept, atol=1e-3)
    np.testing.assert_allclose(quarter, (kept + 90) % 180, atol=1e-3)


def test_where_no_direction_prevails_there_is_no_edge_orientation() -> None:
    y, x = np.mgrid[:33, :33] - 16
    assert math.isnan(value(grey(np.hypot(x, y) < 9), "edge_orientation"))


def test_blur_lowers_sharpness_step_by_step() -> None:
    images = blobs_of_noise(4, seed=3).numpy()
    before = np.full(4, np.inf)
    for sigma in (0.01, 0.4, 0.8, 1.2, 2, 3):
        blurred = ndimage.gaussian_filter(images, (0, 0, sigma, sigma), mode="reflect")
        after = image_statistics(torch.from_numpy(blurred))["sharpness"]
        assert (after < before).all()
        before = after


def test_contrast_and_brightness_change_neither_sharpness_nor_texture_nor_orientation_nor_places() -> None:
    images = blobs_of_noise()
    kept, faint = image_statistics(images), image_statistics(0.6 + 0.1 * images)
    for name in ("sharpness", "texture", "edge_orientation", "horizontal_position", "vertical_position"):
        np.testing.assert_allclose(faint[name], kept[name], rtol=1e-3, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(faint["contrast"], 0.1 * kept["contrast"], rtol=1e-3)


@pytest.mark.parametrize("degrees", [0, 30, 45, 90])
@pytest.mark.parametrize(("profile", "height"), [(1.0, 0.8), (2.0, 0.8), (2.0, 0.1)])
def test_the_sharpness_of_an_edge_is_the_closed_form_of_its_profile(
    profile: float, height: float, degrees: float
) -> None:
    y, x = np.mgrid[:64, :64] - 31.7
    across = x * math.cos(math.radians(degrees)) + y * math.sin(math.radians(degrees))
    edge = np.vectorize(math.erf)(across / profile / math.sqrt(2))
    assert value(grey(0.5 + height / 2 * edge), "sharpness") == pytest.approx(
        1 / (2 * profile**2 + 2), rel=0.12
    )


def test_sharpness_is_the_ratio_that_scipy_gives() -> None:
    images = blobs_of_noise(channels=1)
    for image, found in zip(
        images[:, 0].double().numpy(), image_statistics(images)["sharpness"], strict=True
    ):
        plane = ndimage.gaussian_filter(image, 1, mode="reflect")
        gradient = (np.diff(plane, axis=0) ** 2).sum() + (np.diff(plane, axis=1) ** 2).sum()
        assert found == pytest.approx((ndimage.laplace(plane) ** 2).sum() / gradient, rel=1e-3)


def test_texture_tells_a_chessboard_from_halves_and_is_the_share_that_scipys_blur_takes_away() -> None:
    y, x = np.mgrid[:32, :32]
    assert value(grey((x + y) % 2), "texture") > 0.99
    assert value(grey(x < 16), "texture") < 0.1
    images = blobs_of_noise(channels=1)
    for image, found in zip(images[:, 0].double().numpy(), image_statistics(images)["texture"], strict=True):
        areas = ndimage.gaussian_filter(image, 24 / 16, mode="reflect")
        fine, coarse = (image - areas).var(), areas.var()
        assert found == pytest.approx(fine / (fine + coarse), rel=1e-3)


@pytest.mark.parametrize(("ground", "ink"), [(0.1, 0.9), (0.9, 0.1), (0.5, 0.55)])
def test_squares_are_counted_on_dark_and_on_bright_ground(ground: float, ink: float) -> None:
    places = [(2, 2), (2, 10), (12, 4), (20, 20), (26, 10)]
    images = torch.cat([squares(places[:n], ground, ink) for n in range(6)])
    assert image_statistics(images)["blobs"].tolist() == [0, 1, 2, 3, 4, 5]


def test_parts_that_meet_at_a_corner_are_one_and_specks_are_none() -> None:
    assert value(squares([(4, 4), (8, 8)]), "blobs") == 1
    speck = squares([(4, 4)])
    speck[..., 20, 20] = 0.9
    assert value(speck, "blobs") == 1


def test_parts_are_those_of_a_loop_over_thresholds_and_pictures() -> None:
    images = blobs_of_noise(8, channels=1, size=(20, 20), seed=5)
    for image, found in zip(images[:, 0].numpy(), image_statistics(images)["blobs"], strict=True):
        border = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
        distance = np.abs(image - np.sort(border)[(len(border) - 1) // 2])
        levels = np.minimum(distance / distance.max() * 256, 255).astype(int)
        within = {
            t: sum(p.var() * p.size for p in (levels[levels < t], levels[levels >= t])) for t in range(1, 256)
        }
        parts, n = ndimage.label(levels >= min(within, key=lambda t: within[t]), np.ones((3, 3)))
        assert found == sum((parts == part).sum() >= 1 for part in range(1, n + 1))


def test_the_weight_of_a_half_dark_picture_lies_in_the_middle_of_its_bright_half() -> None:
    plane = np.zeros((6, 8))
    plane[:, 4:] = 1
    assert value(grey(plane), "horizontal_position") == pytest.approx(0.75)
    assert value(grey(plane), "vertical_position") == pytest.approx(0.5)
    assert value(grey(plane.T), "vertical_position") == pytest.approx(0.75)


@pytest.mark.parametrize(("ground", "ink"), [(0.1, 0.9), (0.9, 0.1)])
def test_the_weight_of_a_picture_lies_where_its_ink_is(ground: float, ink: float) -> None:
    image = squares([(3, 20)], ground, ink)
    assert value(image, "horizontal_position") == pytest.approx(22 / 32, abs=1e-4)
    assert value(image, "vertical_position") == pytest.approx(5 / 32, abs=1e-4)
    row, column = ndimage.center_of_mass(np.abs(image[0, 0].numpy() - ground))
    assert value(image, "vertical_position") == pytest.approx((row + 0.5) / 32, abs=1e-4)
    assert value(image, "horizontal_position") == pytest.approx((column + 0.5) / 32, abs=1e-4)


def test_a_flip_mirrors_the_place_and_leaves_all_else_but_the_edges() -> None:
    images = blobs_of_noise()
    kept, flipped = image_statistics(images), image_statistics(images.flip(3))
    for name in set(kept) - {"edge_orientation", "horizontal_position"}:
        np.testing.assert_allclose(flipped[name], kept[name], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(flipped["horizontal_position"], 1 - kept["horizontal_position"], atol=1e-5)


def test_a_flat_picture_has_no_edges_and_no_places_and_black_no_saturation() -> None:
    for shade in (0.0, 0.3, 1.0):
        found = image_statistics(torch.full((1, 3, 9, 9), shade))
        undefined = {name for name, (measured,) in found.items() if math.isnan(measured)}
        edges = {"texture", "edge_orientation", "sharpness", "horizontal_position", "vertical_position"}
        assert undefined == edges | ({"saturation"} if shade == 0 else set())
        assert found["blobs"] == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (7, 1), (3, 3)])
def test_pictures_of_a_few_pixels_are_measured(size: tuple[int, int]) -> None:
    found = image_statistics(blobs_of_noise(2, size=size))
    assert all(values.shape == (2,) for values in found.values())
    assert found["aspect"] == pytest.approx(size[1] / size[0])


def test_each_picture_is_measured_by_itself() -> None:
    images = torch.stack([trifeature(12)[i]["image"] for i in range(12)])
    together = image_statistics(images)
    for name in together:
        alone = np.concatenate([image_statistics(image[None])[name] for image in images])
        np.testing.assert_allclose(together[name], alone, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        (torch.zeros(3, 8, 8), "expected .batch, channels, height, width"),
        (torch.zeros(1, 3, 0, 8), "at least one channel and pixel"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "expected uint8, uint16 or floats"),
        (torch.full((1, 3, 8, 8), math.nan), "NaN"),
    ],
)
def test_what_is_no_picture_is_an_error_that_says_so(images: Tensor, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        image_statistics(images)


def test_every_statistic_has_a_title_and_a_meaning_and_a_name_for_each_class() -> None:
    assert set(STATISTICS) == set(image_statistics(blobs_of_noise()))
    for name, statistic in STATISTICS.items():
        assert statistic.title
        assert statistic.meaning
        assert len(set(statistic.classes)) == {"blobs": 0, "edge_orientation": 4}.get(name, 5)
