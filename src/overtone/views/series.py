"""Random views of zero-padded series, a whole batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from overtone import rng
from overtone.contracts import Address, Batch
from overtone.errors import DataError
from overtone.views.arguments import Range, require, require_range


@dataclass
class SeriesViews:
    """Random window, amplitude, noise and masking of a batch of series.

    What is drawn for a sample belongs to (address, view, its index) alone, whatever the batch and its
    padding. Padding stays zero, and a view is padded to the length of the batch it came from.

    Attributes:
        n_views: How many views.
        crop: The window's share of the series, at least one step.
        scale: Range of the factor that multiplies a whole series.
        noise: Standard deviation of the Gaussian noise of each value, in the values' own units.
        mask: Share of the window's steps that are set to zero, as one stretch at a random place.

    Raises:
        RecipeError: An attribute is out of its range.

    >>> batch = {"index": torch.arange(2), "series": torch.ones(2, 6, 1), "length": torch.tensor([6, 4])}
    >>> view = SeriesViews(n_views=1, crop=(0.5, 0.5))(batch, Address(seed=0, stage=0, step=0))[0]
    >>> view["length"].tolist(), (view["series"] != 0).sum(1).flatten().tolist()
    ([3, 2], [3, 2])
    """

    n_views: int = 2
    crop: Range = (0.5, 1.0)
    scale: Range = (0.8, 1.25)
    noise: float = 0.05
    mask: float = 0.0

    def __post_init__(self) -> None:
        require(self.n_views >= 1, "views.n_views", self.n_views, "at least 1")
        require_range("views.crop", self.crop, most=1.0)
        require_range("views.scale", self.scale)
        require(0 <= self.noise < inf, "views.noise", self.noise, "0 or more")
        require(0 <= self.mask < 1, "views.mask", self.mask, "from 0 to less than 1")

    def __call__(self, batch: Batch, address: Address) -> list[Batch]:
        """Makes the views of `batch["series"]`, (B, L, C) float, and `batch["length"]`, (B,) int64.

        Returns:
            `n_views` batches with `series` and `length` replaced; all other keys are the batch's own.

        Raises:
            DataError: Shapes or lengths do not fit.
        """
        series, length = batch["series"], batch["length"]
        if series.ndim != 3 or length.shape != series.shape[:1]:
            raise DataError(
                f"series of shape {tuple(series.shape)} with lengths of shape {tuple(length.shape)}: "
                "expected (batch, steps, channels) and (batch,)"
            )
        return [{**batch, **self._view(batch, address, view)} for view in range(self.n_views)]

    def _view(self, batch: Batch, address: Address, view: int) -> dict[str, Tensor]:
        series, length, index = batch["series"], batch["length"], batch["index"]
        place = (address.stage, address.step, view)
        drawn = rng.uniforms(index, 4, address.seed, "views", *place, "window").to(series.device)
        share, start, factor, hole = drawn.unbind(1)
        window_length = (length * _between(self.crop, share)).round().long().clamp(min=1).minimum(length)
        first = (start * (length - window_length + 1)).long()
        step = torch.arange(series.shape[1], device=series.device)
        source = (first[:, None] + step).clamp(max=series.shape[1] - 1)
        window = series.gather(1, source[:, :, None].expand_as(series))
        window = window * _between(self.scale, factor)[:, None, None]
        if self.noise:
            # Value by value in order of time, so that a longer padding changes none of them.
            numbers = series[0].numel()
            noise = rng.uniforms(index, numbers, address.seed, "views", *place, "noise")
            window = window + self.noise * _normal(noise).to(window).view_as(window)
        hidden = _stretch(step, window_length, self.mask, hole)
        visible = (step < window_length[:, None]) & ~hidden
        return {"series": (window * visible[:, :, None]).to(series.dtype), "length": window_length}


def _stretch(step: Tensor, length: Tensor, share: float, place: Tensor) -> Tensor:
    """(B, L) bool: the steps of one stretch of `share` of each series."""
    width = (length * share).round().long()
    first = (place * (length - width + 1)).long()
    return (step >= first[:, None]) & (step < (first + width)[:, None])


def _normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers by the inverse of their distribution, from the middle of 2**-24 wide bins."""
    normal: Tensor = torch.special.ndtri(uniform.double() + 2**-25)
    return normal.float()


def _between(bounds: Range, uniform: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * uniform
