"""Crops, flips and blurs of a whole batch as two small matrix products, each sample with its own.

All three are linear and act on rows and columns apart: out = R @ image @ C.T with R (out, in) for the
rows and C for the columns. As matrices they are exact (a crop is antialiased, as torchvision's is, also
where it is larger than the output), and a matrix product is what every device does best.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from overtone.views.arguments import Range


def resampled(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Applies each sample's pair of matrices.

    Args:
        images: (B, C, H, W) float.
        rows: (B, out_height, H).
        columns: (B, out_width, W).

    Returns:
        (B, C, out_height, out_width), contiguous.

    >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> resampled(image, torch.eye(2)[None], torch.eye(2).flip(0)[None]).tolist()
    [[[[2.0, 1.0], [4.0, 3.0]]]]
    """
    # Autocast would round the pictures to the mantissa of bfloat16.
    with torch.autocast(images.device.type, enabled=False):
        wide = torch.bmm(images.flatten(1, 2), columns.mT).view(*images.shape[:3], -1)
        out = wide.new_empty(*wide.shape[:2], rows.shape[1], wide.shape[3])
        # Channel by channel: `matmul` with a broadcast dimension takes three times as long.
        for channel, place in zip(wide.unbind(1), out.unbind(1), strict=True):
            torch.bmm(rows, channel, out=place)
        return out


def crop_matrix(start: Tensor, side: Tensor, size: int, out_size: int, flip: Tensor | None = None) -> Tensor:
    """Resizes [start, start + side) of an axis to `out_size`: bilinear, antialiased, optionally mirrored.

    The triangle filter of torch's `interpolate(mode="bilinear", antialias=True)`, which takes its support
    from within the crop alone.

    Args:
        start: (B,) first pixel of the crop.
        side: (B,) its length in pixels, at least 1.
        size: Length of the axis.
        out_size: Length wanted.
        flip: (B,) bool, which samples to mirror.

    Returns:
        (B, out_size, size) float32, each row summing to 1.
    """
    start, side = start.float().view(-1, 1, 1), side.float().view(-1, 1, 1)
    step = side / out_size
    target = torch.arange(out_size, device=start.device).view(1, -1, 1) + 0.5
    if flip is not None:
        target = torch.where(flip.view(-1, 1, 1), out_size - target, target)
    source = torch.arange(size, device=start.device).view(1, 1, -1) + 0.5
    # 1 - |distance| / width, cut at 0.
    weight = (source - (start + step * target)).abs_().div_(-step.clamp(min=1)).add_(1).clamp_(min=0)
    weight.mul_((source > start) & (source < start + side))
    return weight.div_(weight.sum(2, keepdim=True))


def blur_matrix(sigma: Tensor, size: int, radius: int) -> Tensor:
    """A Gaussian of 2 * radius + 1 pixels that reflects at the ends, as torchvision's `gaussian_blur`.

    Args:
        sigma: (B,) standard deviation in pixels, above 0.
        size: Length of the axis.
        radius: Less than `size`.

    Returns:
        (B, size, size) float32, each row summing to 1.
    """
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.softmax(-(offset / sigma.view(-1, 1)).square() / 2, dim=1)
    source = (torch.arange(size, device=sigma.device).view(-1, 1) + offset).abs()
    source = torch.where(source < size, source, 2 * (size - 1) - source)
    matrix = torch.zeros(len(sigma), size, size, device=sigma.device)
    return matrix.scatter_add_(2, source.expand(len(sigma), -1, -1), kernel[:, None].expand(-1, size, -1))


def crop_boxes(
    uniform: Tensor, size: tuple[int, int], scale: Range, ratio: Range
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes of a random area and aspect ratio at a random place, as torchvision's RandomResizedCrop.

    Half of the numbers are areas, half logarithms of ratios; the first pair that makes a box that fits
    into the picture counts. Where none does, the box is the largest of an allowed ratio (at a random
    place; torchvision: in the middle).

    Args:
        uniform: (B, 2 * attempts + 2) in [0, 1).
        size: Height and width of the pictures.
        scale: Least and largest share of the picture's area.
        ratio: Least and largest width over height.

    Returns:
        top, left, height, width: (B,) float32, whole pixels.
    """
    full_height, full_width = size
    areas, ratios = uniform[:, 2:].chunk(2, dim=1)
    areas = (scale[0] + (scale[1] - scale[0]) * areas) * full_height * full_width
    ratios = torch.exp(log(ratio[0]) + log(ratio[1] / ratio[0]) * ratios)
    heights, widths = (areas / ratios).sqrt().round(), (areas * ratios).sqrt().round()
    fits = (heights <= full_height) & (widths <= full_width) & (heights >= 1) & (widths >= 1)
    first = fits.float().argmax(1, keepdim=True)
    found = fits.any(1)
    height = torch.where(
        found, heights.gather(1, first)[:, 0], min(full_height, round(full_width / ratio[0]))
    )
    width = torch.where(found, widths.gather(1, first)[:, 0], min(full_width, round(full_height * ratio[1])))
    top = (uniform[:, 0] * (full_height - height + 1)).floor()
    left = (uniform[:, 1] * (full_width - width + 1)).floor()
    return top, left, height, width
