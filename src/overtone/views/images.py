"""Random views of pictures, a whole batch at a time, on the device the batch is on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, prod

import torch
from torch import Tensor

from overtone import rng
from overtone.contracts import Address, Batch
from overtone.views import colour
from overtone.views.arguments import Range, require, require_range
from overtone.views.pixels import unit_floats
from overtone.views.resampling import blur_matrix, crop_boxes, crop_matrix, resampled

logger = logging.getLogger(__name__)

_CACHED = 2**20  # numbers, 4 MB


@dataclass
class ImageViews:
    """Random resized crop, flip, colour jitter, grey, blur and solarisation of a batch of pictures.

    The augmentations of SimCLR (Chen et al., arXiv 2002.05709, appendix A) as torchvision defines them.
    What is drawn for a sample belongs to (address, view, its index) alone, so its views are the same
    however a batch is split; only the order of the four jitters is drawn once for all samples of a view.
    Crops are bilinear and antialiased. Saturation, hue and grey need red, green and blue: with any other
    number of channels they are skipped, with a warning.

    Attributes:
        n_views: How many views.
        size: (height, width) of a view, or one number for both; None keeps the picture's.
        crop_scale: The crop's share of the picture's area.
        crop_ratio: The crop's width over its height.
        flip: Probability of a horizontal flip.
        brightness: Factors are drawn from [1 - brightness, 1 + brightness], never below 0.
        contrast: As brightness.
        saturation: As brightness.
        hue: Turns are drawn from [-hue, hue]; 0.5 is half the colour circle.
        jitter: Probability of the four jitters together.
        grey: Probability of a grey picture.
        blur: Probability of a Gaussian blur; it spans about a tenth of each side.
        blur_sigma: Its standard deviation in pixels.
        solarise: Probability of inverting everything from one half upwards.
        region: (top, left, height, width): only this part of the picture is augmented; the rest is the
            same in all views.

    Raises:
        RecipeError: An attribute is out of its range, or the region out of the picture.

    >>> batch = {"index": torch.arange(2), "image": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}
    >>> [view["image"].shape for view in ImageViews(size=4)(batch, Address(seed=0, stage=0, step=0))]
    [torch.Size([2, 3, 4, 4]), torch.Size([2, 3, 4, 4])]
    """

    n_views: int = 2
    size: int | tuple[int, int] | None = None
    crop_scale: Range = (0.2, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    flip: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    jitter: float = 0.8
    grey: float = 0.2
    blur: float = 0.0
    blur_sigma: Range = (0.1, 2.0)
    solarise: float = 0.0
    region: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        self._warned = False
        require(self.n_views >= 1, "views.n_views", self.n_views, "at least 1")
        for name in ("flip", "jitter", "grey", "blur", "solarise"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"views.{name}", value, "a probability from 0 to 1")
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            require(0 <= value < inf, f"views.{name}", value, "0 or more")
        require(0 <= self.hue <= 0.5, "views.hue", self.hue, "from 0 to 0.5, half the colour circle")
        require_range("views.crop_scale", self.crop_scale, most=1.0)
        require_range("views.crop_ratio", self.crop_ratio)
        require_range("views.blur_sigma", self.blur_sigma)
        self._require_sizes()

    def _require_sizes(self) -> None:
        if self.size is not None:
            pair = _pair(self.size)
            require(len(pair) == 2 and min(pair) >= 1, "views.size", self.size, "a number of pixels, or two")
        if self.region is not None:
            inside = len(self.region) == 4 and min(self.region) >= 0 and min(self.region[2:]) >= 1
            require(inside, "views.region", self.region, "(top, left, height, width) inside the picture")
            require(self.size is None, "views.size", self.size, "none, since views.region keeps the size")

    def __call__(self, batch: Batch, address: Address) -> list[Batch]:
        """Makes the views of `batch["image"]`, (B, C, H, W) uint8, uint16 or float in [0, 1].

        Returns:
            `n_views` batches whose `image` is float32 in [0, 1] up to rounding; all other keys are the
            batch's own.
        """
        images, index = batch["image"], batch["index"]
        size = _at_once(images)
        parts = [
            self._views(*part, address) for part in zip(images.split(size), index.split(size), strict=True)
        ]
        return [{**batch, "image": _joined(view)} for view in zip(*parts, strict=True)]

    def _views(self, images: Tensor, index: Tensor, address: Address) -> list[Tensor]:
        images = unit_floats(images)
        if images.shape[1] != 3:
            self._warn_once(images.shape[1])
        return [self._view(images, _Draws(index, address, view)) for view in range(self.n_views)]

    def _view(self, images: Tensor, draw: _Draws) -> Tensor:
        if self.region is None:
            return self._augmented(images, draw)
        top, left, height, width = self.region
        inside = top + height <= images.shape[2] and left + width <= images.shape[3]
        require(inside, "views.region", self.region, f"a part of {tuple(images.shape[2:])} pixels")
        whole = images.clone()
        part = whole[:, :, top : top + height, left : left + width]
        part.copy_(self._augmented(part.contiguous(), draw))
        return whole

    def _augmented(self, images: Tensor, draw: _Draws) -> Tensor:
        images = self._cropped(images, draw)
        self._jitter_(images, draw)
        if images.shape[1] == 3:
            _change_(images, draw("grey")[:, 0] < self.grey, lambda part, _: colour.grey(part))
        blurred, sigma = draw("blur", 2).unbind(1)
        sigma = _between(self.blur_sigma, sigma)
        _change_(images, blurred < self.blur, lambda part, rows: blur(part, sigma[rows]))
        _change_(images, draw("solarise")[:, 0] < self.solarise, lambda part, _: colour.solarise(part))
        return images

    def _cropped(self, images: Tensor, draw: _Draws) -> Tensor:
        size = images.shape[2], images.shape[3]
        out_size = size if self.size is None else _pair(self.size)
        boxes = crop_boxes(draw("crop", 22), size, self.crop_scale, self.crop_ratio)
        top, left, height, width = (side.to(images.device) for side in boxes)
        flip = (draw("flip")[:, 0] < self.flip).to(images.device)
        rows = crop_matrix(top, height, size[0], out_size[0])
        columns = crop_matrix(left, width, size[1], out_size[1], flip)
        return resampled(images, rows, columns)

    def _jitter_(self, images: Tensor, draw: _Draws) -> None:
        drawn = draw("jitter", 5)
        jitters = [
            (colour.brightness_, _between(_around_one(self.brightness), drawn[:, 1])),
            (colour.contrast_, _between(_around_one(self.contrast), drawn[:, 2])),
        ]
        if images.shape[1] == 3:
            jitters += [
                (colour.saturation_, _between(_around_one(self.saturation), drawn[:, 3])),
                (colour.hue_, _between((-self.hue, self.hue), drawn[:, 4])),
            ]

        def jittered(part: Tensor, rows: Tensor) -> Tensor:
            for i in draw.order(len(jitters)):
                operation_, strength = jitters[i]
                operation_(part, strength[rows].to(part.device))
            return part

        _change_(images, drawn[:, 0] < self.jitter, jittered)

    def _warn_once(self, channels: int) -> None:
        rgb = ("saturation", "hue", "grey") if self.jitter else ("grey",)
        skipped = [name for name in rgb if getattr(self, name) > 0]
        if skipped and not self._warned:
            logger.warning(
                "Images have %d channels: skipped views.%s, which need 3 (red, green, blue); set to 0 "
                "what should not be here.",
                channels,
                ", views.".join(skipped),
            )
        self._warned = True


class _Draws:
    """The random numbers of one view, by operation."""

    def __init__(self, index: Tensor, address: Address, view: int) -> None:
        self.index = index
        self.address = (address.seed, "views", address.stage, address.step, view)

    def __call__(self, operation: str, columns: int = 1) -> Tensor:
        """(B, columns) in [0, 1), on the CPU; a sample's depend on its index, not on the batch."""
        return rng.uniforms(self.index, columns, *self.address, operation)

    def order(self, n: int) -> list[int]:
        order: list[int] = torch.randperm(n, generator=rng.generator(*self.address, "order")).tolist()
        return order


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (n, C, H, W) with a standard deviation, (n,), for each; spans a tenth of a side.

    Equals torchvision's `gaussian_blur` with a kernel of 2 * radius + 1 pixels, radius = H / 20 and W / 20
    rounded and at least 1.
    """
    sizes = images.shape[2], images.shape[3]
    radii = [min(max(round(size / 20), 1), size - 1) for size in sizes]
    rows, columns = (blur_matrix(sigma.to(images.device), *pair) for pair in zip(sizes, radii, strict=True))
    return resampled(images, rows, columns)


def _at_once(images: Tensor) -> int:
    """How many pictures to work on together: on a CPU no more than its cache holds from one operation to
    the next, which saves a fifth of the time at 96 pixels and a third at 224."""
    if images.device.type != "cpu":
        return max(1, len(images))
    return max(1, _CACHED // max(1, prod(images.shape[1:])))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _change_(images: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Replaces the chosen samples by `change(those samples, their rows in the batch)`."""
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        where = rows.to(images.device)
        images[where] = change(images[where], rows)


def _between(bounds: Range, uniform: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * uniform


def _around_one(spread: float) -> Range:
    return max(0.0, 1 - spread), 1 + spread


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
