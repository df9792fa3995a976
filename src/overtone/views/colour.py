"""Colour operations on whole batches, each sample with its own strength.

Every function takes (n, C, H, W) float32 in [0, 1] and (n,) strengths on the same device, and equals
torchvision.transforms.v2.functional sample by sample. A trailing underscore means, as in torch, that
the pictures are changed in place: a fresh tensor at each operation would cost more than the arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor


def brightness_(images: Tensor, factor: Tensor) -> Tensor:
    """Each picture times its factor, cut to [0, 1].

    >>> brightness_(torch.full((2, 1, 1, 1), 0.5), torch.tensor([0.5, 3.0])).flatten().tolist()
    [0.25, 1.0]
    """
    return images.mul_(_column(factor)).clamp_(0, 1)


def contrast_(images: Tensor, factor: Tensor) -> Tensor:
    """Each picture blended with the mean of its grey (of all channels, where they are not RGB)."""
    level = (grey(images) if images.shape[1] == 3 else images).mean((1, 2, 3), keepdim=True)
    return _blend_(images, level, factor)


def saturation_(images: Tensor, factor: Tensor) -> Tensor:
    """Each RGB picture blended with its grey."""
    return _blend_(images, grey(images), factor)


def hue_(images: Tensor, factor: Tensor) -> Tensor:
    """Turns the hue of RGB pictures by a fraction of the colour circle, -0.5 to 0.5.

    With the largest and smallest channel M and m, the hue h in sixths of a circle and k = (n + h) mod 6
    for n = 5, 3, 1, the channels of an HSV colour are M - (M - m) max(0, min(k, 4 - k, 1)) (Smith, "Color
    Gamut Transform Pairs", SIGGRAPH 1978), so neither saturation nor the six cases need to be computed.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> [round(c, 4) for c in hue_(red, torch.tensor([1 / 3])).flatten().tolist()]
    [0.0, 1.0, 0.0]
    """
    red, green, blue = images.unbind(1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    chroma = largest - torch.minimum(torch.minimum(red, green), blue)
    # Masks of 0.0 and 1.0 with `lerp`, since `where` on masks without pattern takes eight times as long.
    red_leads = torch.eq(largest, red, out=torch.empty_like(largest))
    green_leads = torch.eq(largest, green, out=torch.empty_like(largest))
    hue = torch.lerp(red - green, blue - red, green_leads).lerp_(green - blue, red_leads)
    # Where chroma is 0 so is the numerator, and the hue does not matter.
    hue.div_(chroma.clamp(min=torch.finfo(hue.dtype).tiny))
    hue.add_(green_leads.mul_(-2).add_(4).mul_(1 - red_leads))
    # In whole turns, lifted by 2 so that `frac_` (fast) is the remainder (slow): no term is below -1.
    hue.div_(6).add_(factor.view(-1, 1, 1) + 2)
    for channel, n in zip((red, green, blue), (5, 3, 1), strict=True):
        k = (hue + n / 6).frac_().mul_(6)
        weight = k.sub_(2).abs_().neg_().add_(2).clamp_(0, 1)
        torch.addcmul(largest, chroma, weight, value=-1, out=channel)
    return images


def grey(images: Tensor) -> Tensor:
    """RGB to luma, (n, 1, H, W), with the weights of ITU-R BT.601 as torchvision rounds them."""
    red, green, blue = images.unbind(1)
    luma = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    return luma[:, None]


def solarise(images: Tensor, threshold: float = 0.5) -> Tensor:
    """Inverts what is at least as bright as the threshold."""
    return torch.where(images >= threshold, 1 - images, images)


def _blend_(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = _column(factor)
    return images.mul_(factor).add_((1 - factor) * other).clamp_(0, 1)


def _column(factor: Tensor) -> Tensor:
    return factor.view(-1, 1, 1, 1)
