"""Embedding pictures in memory: `overtone.embedding.embed` against the loop that one writes by hand.

    python benchmarks/speed/embedding.py --only resnet18-32   # 1 minute; also vit-tiny-96
    python benchmarks/speed/embedding.py --smoke              # tiny, a few seconds

The plain loop reads one picture at a time (`ToTensor` and `Normalize`), which is also how lightly's and
open_clip's examples do it. `forward` is the encoder alone on tensors that are ready: nothing can be faster
without another network.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import measuring
import numpy as np
import torch
from numpy.typing import NDArray
from step import CASES, SMOKE, Case
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from overtone.datasets import arrays
from overtone.embedding import embed
from overtone.encoders import build_encoder
from overtone.rng import seeded

BATCH = 256


class Pictures(torch.utils.data.Dataset[Tensor]):
    """As users write it."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> Tensor:
        sample: Tensor = self.transform(self.pixels[row])
        return sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true")
    cases = ["resnet18-32", "vit-tiny-96"]
    parser.add_argument("--only", choices=cases, nargs="+", default=cases)
    parser.add_argument("--samples", type=int, default=2 * BATCH)
    options = parser.parse_args()
    if options.smoke:
        print(_row("smoke", SMOKE, 16, None))
        return
    limits = measuring.ceilings()
    rows = [_row(name, CASES[name], options.samples, limits) for name in options.only]
    measuring.keep("embedding", rows, limits)


def _row(name: str, case: Case, n: int, limits: measuring.Ceilings | None) -> measuring.Row:
    pixels = np.random.default_rng(0).integers(0, 256, (n, case.size, case.size, 3), dtype=np.uint8)
    with seeded(0, "embedding"):
        encoder = build_encoder(case.encoder, channels=3, image_size=case.size)
    backbone = encoder.get_submodule("backbone")
    dataset, plain = arrays(pixels, channels_last=True), Pictures(pixels)
    ready = [
        torch.stack([plain[row] for row in range(first, min(first + BATCH, n))])
        for first in range(0, n, BATCH)
    ]
    taken = measuring.in_turn(
        {
            "": lambda: embed(encoder, dataset),
            "forward": lambda: _loop(backbone, ready),
            "plain loop": _loader(backbone, plain, 0),
            "plain loop, 2 workers": _loader(backbone, plain, 2),
        }
    )
    ours = taken.pop("")
    floor = limits and limits.floor(2 * case.multiply_adds * n)
    return measuring.Row(f"{name}, {n}: {n / ours:,.0f} samples/s", ours, taken, floor, "2 x")


def _loader(backbone: nn.Module, dataset: Pictures, workers: int) -> Callable[[], Tensor]:
    return lambda: _loop(backbone, DataLoader(dataset, BATCH, num_workers=workers))


def _loop(backbone: nn.Module, batches: list[Tensor] | DataLoader[Tensor]) -> Tensor:
    backbone.eval()
    with torch.no_grad():
        return torch.cat([backbone(batch) for batch in batches])


if __name__ == "__main__":
    main()
