"""One scale for all pictures: floats from 0 to 1."""

from __future__ import annotations

import torch
from torch import Tensor

from overtone.errors import DataError

_LARGEST = {torch.uint8: 255, torch.uint16: 65535}


def unit_floats(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pictures as floats: 8 and 16 bit ones divided by their largest value, floats as they come.

    Args:
        images: (B, C, H, W) uint8, uint16 or any float, floats from 0 to 1.
        dtype: The floating type wanted.

    Returns:
        (B, C, H, W) of `dtype`; the input itself where it is that already.

    Raises:
        DataError: The tensor is of another type or not (B, C, H, W).

    >>> unit_floats(torch.full((1, 1, 1, 2), 51, dtype=torch.uint8)).flatten().tolist()
    [0.20000000298023224, 0.20000000298023224]
    """
    if images.ndim != 4:
        raise DataError(f"images of shape {tuple(images.shape)}: expected (batch, channels, height, width)")
    if images.is_floating_point():
        return images.to(dtype)
    if images.dtype not in _LARGEST:
        raise DataError(f"images of type {images.dtype}: expected uint8, uint16 or floats from 0 to 1")
    return images.to(dtype).div_(_LARGEST[images.dtype])
