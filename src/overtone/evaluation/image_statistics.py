"""What can be measured in any picture without a label: brightness, colour, detail, edges, parts, places.

A statistic says what its name says and as little else as possible: contrast does not decide sharpness or
texture, nor brightness saturation, and an edge has an orientation but no sign.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from overtone.errors import DataError
from overtone.views.pixels import unit_floats


class Statistic(NamedTuple):
    """What to call a statistic, what it is (to follow "the statistic is ..."), and its classes, ascending.

    The classes compare a picture with the others of its data set. A count has none: its are ranges.
    """

    title: str
    meaning: str
    classes: tuple[str, ...]


_LEVELS = ("lowest", "lower", "medium", "higher", "highest")

STATISTICS = {
    "brightness": Statistic(
        "brightness",
        "how light the picture is as a whole",
        ("darkest", "darker", "medium", "brighter", "brightest"),
    ),
    "contrast": Statistic("contrast", "how far light and dark parts differ", _LEVELS),
    "red_green": Statistic(
        "red or green",
        "whether red or green prevails",
        ("greenest", "greener", "in between", "redder", "reddest"),
    ),
    "yellow_blue": Statistic(
        "yellow or blue",
        "whether yellow or blue prevails",
        ("bluest", "bluer", "in between", "yellower", "yellowest"),
    ),
    "saturation": Statistic(
        "saturation",
        "how vivid the colours are, from grey to pure",
        ("greyest", "greyer", "medium", "more vivid", "most vivid"),
    ),
    "texture": Statistic(
        "fine detail",
        "how much of what varies is small detail instead of large areas",
        ("coarsest", "coarser", "medium", "finer", "finest"),
    ),
    "edge_orientation": Statistic(
        "direction of edges",
        "along which direction the edges run",
        ("horizontal", "rising to the right", "vertical", "falling to the right"),
    ),
    "sharpness": Statistic(
        "sharpness",
        "how crisp edges and details are, pixel by pixel, whatever their contrast",
        ("softest", "softer", "medium", "crisper", "crispest"),
    ),
    "aspect": Statistic(
        "proportions",
        "how wide the picture is for its height",
        ("narrowest", "narrower", "medium", "wider", "widest"),
    ),
    "blobs": Statistic("number of parts", "how many separate parts stand out from the background", ()),
    "horizontal_position": Statistic(
        "position across",
        "where the weight of the picture (what differs from its background) lies, from left to right",
        ("furthest left", "further left", "middle", "further right", "furthest right"),
    ),
    "vertical_position": Statistic(
        "position in height",
        "where the weight of the picture (what differs from its background) lies, from top to bottom",
        ("highest up", "higher up", "middle", "lower down", "lowest down"),
    ),
}
"""Every statistic by its name as an attribute, in the order in which they are shown."""

_LUMA = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601
_FLAT = 1e-4  # a fortieth of an 8-bit step: what deviates less on average is rounding
_ISOTROPIC = 0.1  # below this coherence the strongest direction is hardly stronger than the one across it
_AREA = 1 / 16  # of the shorter side: the blur that parts fine detail from large areas
_SPECK = 1 / 400  # of the picture: smaller parts are not counted


def image_statistics(images: Tensor) -> dict[str, NDArray[np.float32]]:
    """Measures every statistic of every picture.

    - `brightness`, `contrast`: mean and standard deviation of grey (luma of three channels, else their mean).
    - `red_green`, `yellow_blue`: mean of (2 R + B) / 3 - G and of (R + 3 G) / 4 - B: the axes a* and b* of
      CIELAB without its cube roots, rounded. Linear, unlike a hue, which is an angle; and a blue sky is not
      green, as it is by R - G.
    - `saturation`: HSV's, averaged with HSV's value as weight, so that black has no say.
    - `texture`: the share of the variance that a blur of 1/16 of the shorter side takes away.
    - `edge_orientation`: degrees in [0, 180), counter-clockwise from horizontal, of the axis of the structure
      tensor (Bigün & Granlund, "Optimal orientation detection of linear symmetry", 1987).
    - `sharpness`: energy of the Laplacian over energy of the gradient, after a blur of one pixel. Of edges
      with a Gaussian profile of s pixels it is 1 / (2 s² + 2), whatever their number, height and direction,
      as long as they lie apart; detail of single pixels has more.
    - `aspect`: width over height.
    - `blobs`: 8-connected parts of at least 1/400 of the picture that stand out by Otsu's threshold ("A
      threshold selection method from gray-level histograms", 1979) on the distance from the background.
    - `horizontal_position`, `vertical_position`: centre of the distance from the background, from 0 (left,
      top) to 1. The background is the median colour of the picture's border.

    Args:
        images: (B, C, H, W) uint8, uint16 or floats from 0 to 1. Three channels are RGB; any other number has
            no colour.

    Returns:
        Statistic -> (B,) float32, NaN where a picture has none: everything about edges and places of a flat
        picture, the edge orientation where no direction prevails, the saturation of black.

    Raises:
        DataError: Not pictures as above, or values that are not finite.

    >>> right_half = torch.zeros(1, 1, 8, 8)
    >>> right_half[..., 4:] = 1
    >>> found = image_statistics(right_half)
    >>> [float(found[name][0]) for name in ("brightness", "edge_orientation", "blobs", "horizontal_position")]
    [0.5, 90.0, 1.0, 0.75]
    """
    pictures = unit_floats(images)
    if 0 in pictures.shape[1:]:
        raise DataError(f"images of shape {tuple(images.shape)}: expected at least one channel and pixel")
    if images.is_floating_point() and not torch.isfinite(pictures).all():
        raise DataError("images with NaN or infinite values; expected floats from 0 to 1")
    colour = pictures.shape[1] == 3
    grey = (pictures * _LUMA.view(3, 1, 1)).sum(dim=1) if colour else pictures.mean(dim=1)
    distance = _from_background(pictures)
    across, down = _centre(distance)
    found = {
        "brightness": grey.mean(dim=(1, 2)),
        "contrast": _variance(grey).sqrt(),
        **(_colours(pictures) if colour else {}),
        "texture": _texture(grey),
        "edge_orientation": _edge_orientation(grey),
        "sharpness": _sharpness(grey),
        "aspect": grey.new_full((len(grey),), grey.shape[2] / grey.shape[1]),
        "blobs": _blobs(distance),
        "horizontal_position": across,
        "vertical_position": down,
    }
    return {name: values.numpy() for name, values in found.items()}


def _variance(planes: Tensor) -> Tensor:
    return planes.var(dim=(1, 2), correction=0)


def _ratio(part: Tensor, whole: Tensor, smallest: float) -> Tensor:
    """NaN where the whole is nothing but rounding."""
    return torch.where(whole > smallest, part / whole, torch.nan)


def _colours(pictures: Tensor) -> dict[str, Tensor]:
    red, green, blue = pictures.mean(dim=(2, 3)).unbind(dim=1)
    value = pictures.amax(dim=1)
    vivid = value - pictures.amin(dim=1)  # HSV's saturation times HSV's value
    return {
        "red_green": (2 * red + blue) / 3 - green,
        "yellow_blue": (red + 3 * green) / 4 - blue,
        "saturation": _ratio(vivid.mean(dim=(1, 2)), value.mean(dim=(1, 2)), _FLAT),
    }


def _texture(grey: Tensor) -> Tensor:
    areas = _blurred(grey, _AREA * min(grey.shape[1:]))
    fine, coarse = _variance(grey - areas), _variance(areas)
    return _ratio(fine, fine + coarse, _FLAT**2)


def _blurred(grey: Tensor, sigma: float) -> Tensor:
    return _blur(grey.shape[1], sigma) @ grey @ _blur(grey.shape[2], sigma).T


@cache
def _blur(n: int, sigma: float) -> Tensor:
    """A Gaussian blur of n pixels, mirrored at the ends, as a matrix (n, n)."""
    from scipy.ndimage import gaussian_filter1d  # here, not above: training imports this package

    return torch.from_numpy(gaussian_filter1d(np.eye(n), sigma, axis=0, mode="reflect")).float()


def _edge_orientation(grey: Tensor) -> Tensor:
    """Scharr's derivatives, whose direction errs least of all 3 x 3 ones, inside the picture alone."""
    if min(grey.shape[1:]) < 3:
        return grey.new_full((len(grey),), torch.nan)
    across, down = grey[:, :, 2:] - grey[:, :, :-2], grey[:, 2:] - grey[:, :-2]
    x = (3 * across[:, :-2] + 10 * across[:, 1:-1] + 3 * across[:, 2:]) / 32
    y = -(3 * down[:, :, :-2] + 10 * down[:, :, 1:-1] + 3 * down[:, :, 2:]) / 32  # upwards, as one sees it
    xx, yy, xy = (product.mean(dim=(1, 2)) for product in (x * x, y * y, x * y))
    # Doubled angles: opposite gradients are one axis and must add up, not cancel.
    coherence = _ratio(torch.hypot(xx - yy, 2 * xy), xx + yy, _FLAT**2)
    gradient = torch.rad2deg(torch.atan2(2 * xy, xx - yy)) / 2
    return torch.where(coherence >= _ISOTROPIC, (gradient + 90) % 180, torch.nan)


def _sharpness(grey: Tensor) -> Tensor:
    # Unblurred, the staircase of a slanting edge is twice as sharp as the same edge upright.
    grey = _blurred(grey, 1.0)
    framed = functional.pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across, down = framed[:, 1:-1].diff(dim=2), framed[:, :, 1:-1].diff(dim=1)
    laplacian = across.diff(dim=2) + down.diff(dim=1)
    pixels = grey.shape[1] * grey.shape[2]
    gradient = (across.square().sum(dim=(1, 2)) + down.square().sum(dim=(1, 2))) / pixels
    return _ratio(laplacian.square().mean(dim=(1, 2)), gradient, _FLAT**2)


def _from_background(pictures: Tensor) -> Tensor:
    """How far each pixel's colour is from the median colour of the picture's border: (B, H, W)."""
    sides = (pictures[:, :, 0], pictures[:, :, -1], pictures[:, :, 1:-1, 0], pictures[:, :, 1:-1, -1])
    background = torch.cat(sides, dim=2).median(dim=2).values
    return (pictures - background[:, :, None, None]).abs().mean(dim=1)


def _centre(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The centre of mass of each plane, across and down, each from 0 to 1."""
    height, width = weight.shape[1:]
    across, down = (torch.arange(n) / n + 0.5 / n for n in (width, height))
    total = weight.mean(dim=(1, 2))
    return (
        _ratio((weight.mean(dim=1) * across).mean(dim=1), total, _FLAT),
        _ratio((weight.mean(dim=2) * down).mean(dim=1), total, _FLAT),
    )


def _blobs(distance: Tensor) -> Tensor:
    from scipy.ndimage import label

    b, height, width = distance.shape
    planes = distance.numpy()
    within = np.zeros((3, 3, 3), dtype=bool)
    within[1] = True  # pictures of a batch touch nowhere
    parts, n = label(planes > _otsu(planes)[:, None, None], within)
    sizes = np.bincount(parts.ravel(), minlength=n + 1)
    picture = np.zeros(n + 1, dtype=np.int64)
    picture[parts.reshape(b, -1)] = np.arange(b)[:, None]
    counted = np.flatnonzero(sizes[1:] >= _SPECK * height * width) + 1
    return torch.from_numpy(np.bincount(picture[counted], minlength=b)).float()


def _otsu(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The threshold of each plane of numbers from 0 that parts it best in two; infinite for a flat one."""
    b, bins = len(planes), 256
    flat = planes.reshape(b, -1)
    top = flat.max(axis=1)
    scaled = np.minimum(flat * (bins / np.maximum(top, _FLAT))[:, None], bins - 1).astype(np.int64)
    counts = np.bincount((scaled + bins * np.arange(b)[:, None]).ravel(), minlength=b * bins).reshape(b, bins)
    below = counts.cumsum(axis=1)
    mass = (counts * np.arange(bins)).cumsum(axis=1)
    n, total = below[:, -1:], mass[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mass * n - total * below) ** 2.0 / (below * (n - below))
    cut = np.nan_to_num(between, nan=0.0, posinf=0.0).argmax(axis=1) + 1
    return np.where(top > _FLAT, cut / bins * top, np.inf).astype(np.float32)
