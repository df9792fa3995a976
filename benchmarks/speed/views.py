"""Two views of a batch of 256 pictures: a whole batch at a time, against torchvision's and kornia's.

    python benchmarks/speed/views.py            # 32, 96 and 224 pixels, all threads and one: 2 minutes
    python benchmarks/speed/views.py --smoke    # tiny, a few seconds

Crop, flip, colour jitter and grey of SimCLR, the same probabilities everywhere; no blur, as at 32 pixels.
torchvision works on one uint8 tensor at a time, kornia on the whole batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import measuring
import torch
from torch import Tensor

from overtone.contracts import Address
from overtone.views import ImageViews

# Read and written once by each of: conversion, two products, and the passes over all channels of brightness
# (2), contrast and saturation (5 each), hue (15) and grey (1).
PASSES = 31


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 96, 224])
    parser.add_argument("--batch-size", type=int, default=256)
    options = parser.parse_args()
    sizes, batch_size = ([8], 4) if options.smoke else (options.sizes, options.batch_size)
    rows: list[measuring.Row] = []
    threads = torch.get_num_threads()
    limits = measuring.Ceilings(1e11, 1e11, 1e10) if options.smoke else measuring.ceilings()
    for n_threads in (threads, 1) if threads > 1 else (1,):
        torch.set_num_threads(n_threads)
        rows += [_row(size, batch_size, limits if n_threads == threads else None) for size in sizes]
    torch.set_num_threads(threads)
    if options.smoke:
        print(rows)
    else:
        measuring.keep("views", rows, limits)


def _row(size: int, batch_size: int, limits: measuring.Ceilings | None) -> measuring.Row:
    images = torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8)
    works: dict[str, Callable[[], object]] = {"": _ours(images)}
    for name, made in {"torchvision v2": _torchvision, "kornia": _kornia}.items():
        try:
            works[name] = made(images)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    taken = measuring.in_turn(works)
    return measuring.Row(
        f"{batch_size} at {size} px, {torch.get_num_threads()} threads",
        taken.pop(""),
        taken,
        None if limits is None else _floor(images, limits),
        "5 x; 2 x",
    )


def _floor(images: Tensor, limits: measuring.Ceilings) -> float:
    """Of two views; a picture in the cache moves faster than the bandwidth says, so it may be passed."""
    n, channels, side = images.shape[:3]
    products = 2 * 2 * channels * side**3 * n
    return 2 * limits.floor(products, PASSES * 2 * 4 * images.numel())


def _ours(images: Tensor) -> Callable[[], object]:
    views, batch = ImageViews(), {"index": torch.arange(len(images)), "image": images}
    return lambda: views(batch, Address(0, 0, 0))


def _torchvision(images: Tensor) -> Callable[[], object]:
    from torchvision.transforms import v2

    size = images.shape[2]
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    return lambda: [torch.stack([transform(image) for image in images]) for _ in range(2)]


def _kornia(images: Tensor) -> Callable[[], object]:
    from kornia import augmentation

    size = images.shape[2]
    transform = augmentation.AugmentationSequential(
        augmentation.RandomResizedCrop((size, size), scale=(0.2, 1.0)),
        augmentation.RandomHorizontalFlip(),
        augmentation.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        augmentation.RandomGrayscale(p=0.2),
        data_keys=["input"],
    )

    def views() -> Mapping[int, Tensor]:
        floats = images.float() / 255
        return {view: transform(floats) for view in range(2)}

    return views


if __name__ == "__main__":
    main()
