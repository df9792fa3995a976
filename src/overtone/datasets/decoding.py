"""From whatever holds one picture to a (C, H, W) array of one size: every conversion is defined here.

- JPEG, PNG, WebP, BMP, GIF and TIFF, by the file's own first bytes, never by its name; nothing else
  is tried (Pillow would hand an EPS to Ghostscript).
- Rotated as its EXIF says; the first frame of an animation; palettes and CMYK to RGB; what is
  transparent lies on white; 1-bit becomes 0 and 255.
- 8 bits stay uint8. 16-bit grey becomes float32 in [0, 1], as do uint16 arrays; float arrays stay
  as they are, as float32, and are refused where they are clearly on another scale than [0, 1].
  (Pillow reads 16-bit *colour* PNGs as 8-bit.)
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from overtone.errors import RecipeError

Content: TypeAlias = bytes | NDArray[Any] | Image.Image
Fit: TypeAlias = Literal["crop", "squash"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 89_478_485
"""Pillow's own default: a quarter of a gibibyte at 24 bits. Larger files are refused from their header."""

OVERSHOOT = 0.25
"""How far floating-point values may lie outside of [0, 1]: bicubic and Lanczos resizing overshoot an edge by
up to a fifth, while pictures of 0 to 255, of -1 to 1 or standardised ones lie further outside."""

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's own "L"


@dataclass(frozen=True)
class Framing:
    """What every picture of a dataset is brought to.

    Attributes:
        image_size: (height, width), or None to leave pictures as they are.
        channels: How many, or None: 3 from files, and as they are from arrays.
        fit: `crop` keeps the largest centred part of the right proportions, `squash` the whole.
    """

    image_size: tuple[int, int] | None
    channels: int | None
    fit: Fit

    @classmethod
    def of(cls, image_size: int | tuple[int, int] | None, channels: int | None, fit: Fit) -> Framing:
        """Checks what a user gave; one number means a square.

        >>> Framing.of(32, None, "crop").image_size
        (32, 32)
        """
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise RecipeError(
                f"image_size={image_size!r}: give (height, width), both at least 1, or one number"
            )
        if size is not None and size[0] * size[1] > MAX_PIXELS:
            raise RecipeError(f"image_size={image_size!r}: more than {MAX_PIXELS:,} pixels; give less")
        if channels is not None and channels < 1:
            raise RecipeError(f"channels={channels}: give at least 1 (1 is grey, 3 is RGB)")
        if fit not in ("crop", "squash"):
            raise RecipeError(f"fit={fit!r}: give 'crop' (centred part) or 'squash' (whole picture)")
        return cls(None if size is None else (int(size[0]), int(size[1])), channels, fit)


def decoded(content: Content, framing: Framing) -> NDArray[Any]:
    """Decodes one picture.

    Args:
        content: The bytes of an image file, a PIL image, or an array (C, H, W) or (H, W).
        framing: What to bring it to.

    Returns:
        (C, H, W), uint8 or float32.

    Raises:
        Exception: Whatever Pillow raises on damaged files; `ValueError` for what is refused here.

    >>> decoded(np.zeros((28, 28), np.uint8), Framing.of(32, 3, "crop")).shape
    (3, 32, 32)
    """
    if isinstance(content, np.ndarray):
        planes, channels = _from_array(content), framing.channels
    else:
        planes, channels = _from_file(content, framing), framing.channels or 3
    if framing.image_size is not None:
        planes = _fitted(planes, framing.image_size, framing.fit)
    if channels is not None:
        planes = _with_channels(planes, channels)
    return np.ascontiguousarray(planes)


def _from_file(content: bytes | Image.Image, framing: Framing) -> NDArray[Any]:
    if isinstance(content, Image.Image):
        return _from_image(content)
    if not content:
        raise ValueError("0 bytes")
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"not an image of a known format ({', '.join(FORMATS)})") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
        if framing.image_size is not None:
            # A JPEG is decoded at a half, quarter or eighth where that is still twice the working size.
            image.draft(None, (2 * max(framing.image_size),) * 2)
        return _from_image(image)


def _from_image(image: Image.Image) -> NDArray[Any]:
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("32-bit integers; save it with 8 or 16 bits, or as floating point")
        return _from_array(values.astype(np.uint16))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")
    if image.mode not in ("L", "F"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    values = np.asarray(image)
    return _from_array(values if values.ndim == 2 else values.transpose(2, 0, 1))


def _from_array(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"shape {array.shape}; a picture is (channels, height, width) or (height, width)")
    planes = array if array.ndim == 3 else array[None]
    if planes.dtype == np.uint8:
        return planes
    if planes.dtype == np.bool_:
        return planes.astype(np.uint8) * np.uint8(255)
    if planes.dtype == np.uint16:
        return planes.astype(np.float32) / np.float32(0xFFFF)
    if not np.issubdtype(planes.dtype, np.floating):
        raise ValueError(f"values of type {planes.dtype}; give uint8, uint16, bool or floating point")
    if not np.isfinite(planes).all():
        raise ValueError("values that are NaN or infinite")
    low, high = float(planes.min()), float(planes.max())
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise ValueError(
            f"floating-point values from {low:.4g} to {high:.4g}, expected 0 to 1; divide by 255 or give "
            "uint8 where they are 0 to 255, and undo any other scaling"
        )
    return planes.astype(np.float32)


def _with_channels(planes: NDArray[Any], channels: int) -> NDArray[Any]:
    if len(planes) == channels:
        return planes
    if len(planes) == 1:
        return np.repeat(planes, channels, axis=0)
    if len(planes) == 3 and channels == 1:
        grey = np.tensordot(_LUMA, planes.astype(np.float32), axes=1)[None]
        return np.rint(grey).astype(np.uint8) if planes.dtype == np.uint8 else grey
    raise ValueError(f"{len(planes)} channels cannot become {channels}")


def _fitted(planes: NDArray[Any], size: tuple[int, int], fit: Fit) -> NDArray[Any]:
    """Resizes by an antialiased triangle filter; the crop is part of the same step."""
    height, width = planes.shape[1:]
    if (height, width) == size:
        return planes
    scale = min(height / size[0], width / size[1])
    kept = (size[0] * scale, size[1] * scale) if fit == "crop" else (float(height), float(width))
    top, left = (height - kept[0]) / 2, (width - kept[1]) / 2
    box = (left, top, left + kept[1], top + kept[0])
    together = len(planes) == 3 and planes.dtype == np.uint8  # as RGB in one go: twice as fast
    pictures = [planes.transpose(1, 2, 0)] if together else list(planes)
    resized = [
        np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR, box=box))
        for picture in pictures
    ]
    return resized[0].transpose(2, 0, 1) if together else np.stack(resized)
