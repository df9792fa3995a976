"""Golden conversions: what each kind of picture becomes."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from overtone.datasets.decoding import Fit, Framing, decoded
from overtone.errors import RecipeError

AS_IS = Framing.of(None, None, "crop")


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def of_pixels(pixels: Any, dtype: Any = np.uint8) -> Image.Image:
    return Image.fromarray(np.array(pixels, dtype=dtype))


def colours(array: NDArray[Any]) -> list[Any]:
    """Row by row, each pixel as a tuple."""
    return [tuple(pixel.tolist()) for pixel in array.reshape(len(array), -1).T]


def test_grey_becomes_three_equal_channels() -> None:
    assert colours(decoded(saved(of_pixels([[0, 200]])), AS_IS)) == [(0, 0, 0), (200, 200, 200)]


def test_grey_stays_one_channel_when_asked() -> None:
    image = decoded(saved(of_pixels([[0, 200]])), Framing.of(None, 1, "crop"))
    assert image.shape == (1, 1, 2)
    assert image.dtype == np.uint8


def test_rgb_becomes_the_grey_that_pillow_makes_within_a_rounding() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    grey = decoded(saved(of_pixels(pixels)), Framing.of(None, 1, "crop"))
    assert np.abs(grey[0].astype(int) - np.asarray(of_pixels(pixels).convert("L"))).max() <= 1


def test_one_bit_becomes_0_and_255() -> None:
    image = of_pixels([[0, 255]]).convert("1")
    assert colours(decoded(saved(image), AS_IS)) == [(0, 0, 0), (255, 255, 255)]


def test_transparent_pixels_lie_on_white_whatever_colour_they_hide() -> None:
    image = of_pixels([[[255, 0, 0, 0], [255, 0, 0, 255]]])
    assert colours(decoded(saved(image), AS_IS)) == [(255, 255, 255), (255, 0, 0)]


def test_a_transparent_palette_colour_lies_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert colours(decoded(saved(image, transparency=0), AS_IS)) == [(255, 255, 255), (40, 50, 60)]


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    assert colours(decoded(saved(image, "JPEG"), AS_IS))[0] == (255, 255, 255)


def test_a_picture_is_rotated_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to show it upright
    image = of_pixels([[[255, 0, 0], [0, 0, 255]]])
    shown = decoded(saved(image, exif=exif), AS_IS)
    assert shown.shape == (3, 2, 1)
    assert colours(shown) == [(255, 0, 0), (0, 0, 255)]


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert colours(decoded(content, AS_IS))[0] == (255, 0, 0)


def test_16_bit_grey_becomes_float_from_0_to_1() -> None:
    image = decoded(saved(of_pixels([[0, 13107, 65535]], np.uint16)), Framing.of(None, 1, "crop"))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[0, 0], [0, 0.2, 1])


def test_arrays_of_every_type_become_uint8_or_float32() -> None:
    for dtype, expected in ((np.uint8, np.uint8), (np.float64, np.float32), (np.uint16, np.float32)):
        assert decoded(np.ones((2, 3, 3), dtype), AS_IS).dtype == expected
    assert decoded(np.ones((3, 3), np.bool_), AS_IS).max() == 255


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2), np.int64), "int64"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.zeros((1, 2, 2, 2), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array: NDArray[Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decoded(array, AS_IS)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1), (-2.1, 2.6)])
def test_floating_point_pictures_on_another_scale_are_refused_with_their_range(
    low: float, high: float
) -> None:
    reason = f"values from {low} to {high}, expected 0 to 1; divide by 255 or give uint8"
    with pytest.raises(ValueError, match=reason):
        decoded(np.linspace(low, high, 12).reshape(3, 4), AS_IS)
    with pytest.raises(ValueError, match=reason):
        decoded(saved(of_pixels([[low, high]], np.float32), "TIFF"), AS_IS)


def test_the_overshoot_of_bicubic_and_lanczos_resizing_is_no_other_scale() -> None:
    draw = np.random.default_rng(0)
    for way in (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS):
        edges = of_pixels(np.repeat(np.repeat(draw.integers(0, 2, (6, 6)), 4, 0), 4, 1), np.float32)
        larger = np.asarray(edges.resize((60, 60), way))
        assert larger.min() < 0
        assert larger.max() > 1
        np.testing.assert_array_equal(decoded(larger, AS_IS)[0], larger)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (300, 2), (7, 5), (32, 64)])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_every_size_is_brought_to_the_working_size(size: tuple[int, int], fit: Fit) -> None:
    image = decoded(np.full((3, *size), 77, np.uint8), Framing.of((8, 12), None, fit))
    assert image.shape == (3, 8, 12)
    assert (image == 77).all()


def test_crop_keeps_the_centre_and_squash_keeps_all() -> None:
    stripes = np.zeros((1, 4, 8), np.uint8)
    stripes[:, :, 2:6] = 200  # exactly the centred square
    assert (decoded(stripes, Framing.of(4, None, "crop")) == 200).all()
    assert decoded(stripes, Framing.of(4, None, "squash"))[0, 0, 0] < 50


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_halving_is_antialiased_the_same_for_any_number_of_channels(channels: int) -> None:
    plane = np.random.default_rng(1).integers(0, 256, (8, 8)).astype(np.uint8)
    small = decoded(np.repeat(plane[None], channels, 0), Framing.of(4, None, "crop"))
    oracle = np.asarray(Image.fromarray(plane).resize((4, 4), Image.Resampling.BILINEAR))
    assert (small == oracle).all()


def test_float_pictures_are_resized_without_rounding() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    small = decoded(ramp, Framing.of(4, None, "crop"))
    assert small.dtype == np.float32
    assert small.mean() == pytest.approx(0.5, abs=1e-3)


def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same() -> None:
    y, x = np.mgrid[0:400, 0:400]
    pixels = np.stack([x * 0.6, y * 0.6, (x + y) * 0.3], 2).astype(np.uint8)
    quick = decoded(saved(of_pixels(pixels), "JPEG", quality=95), Framing.of(16, None, "crop"))
    exact = decoded(saved(of_pixels(pixels)), Framing.of(16, None, "crop"))
    assert np.abs(quick.astype(int) - exact).max() <= 6


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 30_000])
def test_a_decompression_bomb_is_refused_from_its_header(side: int) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises((ValueError, Image.DecompressionBombError), match="pixels"):
        decoded(bomb, AS_IS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"<html><body>404</body></html>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"%PDF-1.7\n", "not an image"),
        (b"P6 1 1 255 \x00\x00\x00", "not an image"),
        (saved(Image.effect_noise((64, 64), 50), "JPEG")[:-900], "truncated"),
    ],
)
def test_what_is_no_whole_image_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises((ValueError, OSError), match=reason):
        decoded(content, AS_IS)


@pytest.mark.parametrize(
    ("image_size", "channels", "fit"),
    [(0, None, "crop"), ((8, 0), None, "crop"), (8, 0, "crop"), (8, None, "stretch")],
)
def test_a_wrong_framing_is_a_recipe_error(image_size: Any, channels: Any, fit: Any) -> None:
    with pytest.raises(RecipeError, match="give"):
        Framing.of(image_size, channels, fit)


def test_channels_that_cannot_be_had_are_refused() -> None:
    with pytest.raises(ValueError, match="5 channels cannot become 3"):
        decoded(np.zeros((5, 4, 4), np.uint8), Framing.of(None, 3, "crop"))
