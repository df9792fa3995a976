"""A training step end to end, beside lightly's and beside forward and backward alone.

    python benchmarks/speed/step.py --only resnet18-32   # 4 minutes; also resnet18-96, vit-tiny-96
    python benchmarks/speed/step.py --smoke              # tiny, a few seconds

SimCLR in fp32, pictures decoded and in memory. lightly as its users run it: its transform of PIL pictures,
two worker processes, its head and loss, the same backbone, SGD. All take blocks of steps in turn, of
which the first half does not count. lightly's workers fill their queue meanwhile, and have batches to make
up to the end. A row is the median step.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import measuring
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from overtone.contracts import Address, Batch
from overtone.datasets import arrays
from overtone.datasets.images import ImageDataset
from overtone.encoders import build_encoder
from overtone.methods import SimCLR
from overtone.optim import build_optimizer
from overtone.partition import Partition
from overtone.rng import seeded
from overtone.sampling import CellBatchSampler
from overtone.training import Material, Pace, place, train
from overtone.views import ImageViews


class Case(NamedTuple):
    encoder: str
    size: int
    multiply_adds: float  # of one forward of one picture, by the layers' shapes


CASES = {
    "resnet18-32": Case("resnet18_cifar", 32, 0.557e9),
    "resnet18-96": Case("torchvision:resnet18", 96, 0.334e9),
    "vit-tiny-96": Case("timm:vit_tiny_patch16_224", 96, 0.205e9),
}
SMOKE = Case("small_cnn", 16, 1e6)
AIMS = {"resnet18-32": "2.5 x", "resnet18-96": "2.1 x", "vit-tiny-96": "2.1 x"}
LR = 0.06
AHEAD = 4  # batches that two workers hold ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4, help="of a block that count")
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--layout", choices=["channels_last"], help="of ours and of the bare step")
    options = parser.parse_args()
    if options.smoke:
        print(_row("smoke", SMOKE, 8, 1, 1, None, None))
        return
    limits = measuring.ceilings()
    numbers = options.batch_size, options.steps, options.blocks, options.layout, limits
    rows = [_row(name, CASES[name], *numbers) for name in options.only]
    measuring.keep("step" if len(rows) == len(CASES) else f"step-{'-'.join(options.only)}", rows, limits)


def _row(
    name: str,
    case: Case,
    batch_size: int,
    steps: int,
    blocks: int,
    layout: str | None,
    limits: measuring.Ceilings | None,
) -> measuring.Row:
    shape = (2 * steps + AHEAD) * batch_size, case.size, case.size, 3
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    dataset = arrays(pixels[: 2 * steps * batch_size], channels_last=True)
    works: dict[str, Callable[[], list[float]]] = {
        "": lambda: _ours(case, dataset, batch_size, layout),
        "bare": lambda: _bare(case, dataset, batch_size, 2 * steps, layout),
    }
    try:
        works["lightly"] = _lightly(case, pixels, batch_size, 2 * steps)
    except ImportError as error:
        print(f"lightly is left out: {error}")
    taken: dict[str, list[float]] = {kind: [] for kind in works}
    for _ in range(blocks):
        for kind, work in works.items():
            taken[kind] += work()[steps:]
    found = {kind: statistics.median(seconds) for kind, seconds in taken.items()}
    ours, batch = found.pop(""), _batch(dataset, batch_size)
    views = measuring.in_turn({"": lambda: ImageViews()(batch, Address(0, 0, 0))})[""]
    note = f"{found['bare'] / ours:.0%} of bare; views {views / ours:.1%} of the step; {layout or ''}"
    # Two operations a multiply-add, two views, and a backward pass costs twice the forward.
    floor = limits and limits.floor(2 * 2 * 3 * case.multiply_adds * batch_size)
    case_text = f"{name}, {batch_size}: {batch_size / ours:,.1f} samples/s"
    return measuring.Row(case_text, ours, found, floor, AIMS.get(name, ""), note.strip("; "))


def _method(case: Case) -> SimCLR:
    with seeded(0, "step"):
        return SimCLR(build_encoder(case.encoder, channels=3, image_size=case.size))


def _optimizer(module: nn.Module) -> torch.optim.Optimizer:
    return build_optimizer(module, name="sgd", lr=LR, weight_decay=5e-4)


def _batch(dataset: ImageDataset, batch_size: int) -> Batch:
    batch = dataset.collate([dataset[row] for row in range(batch_size)])
    return {**batch, "cell": torch.zeros(batch_size, dtype=torch.int64), "identity": batch["index"]}


def _ours(case: Case, dataset: ImageDataset, batch_size: int, layout: str | None) -> list[float]:
    method, rows, ends = _method(case), np.arange(len(dataset)), [time.perf_counter()]
    material = Material(dataset, CellBatchSampler(Partition.whole(len(rows)), batch_size), ImageViews(), rows)
    with tempfile.TemporaryDirectory() as folder:
        train(
            method,
            _optimizer(method),
            material,
            Pace(epochs=1, checkpoint_seconds=1e9, log_every=1, layout=layout),
            device=torch.device("cpu"),
            folder=Path(folder),
            inputs={},
            log=lambda record, z: ends.append(time.perf_counter()),
            on_epoch=lambda done: None,
        )
    return np.diff(ends).tolist()


def _bare(case: Case, dataset: ImageDataset, batch_size: int, steps: int, layout: str | None) -> list[float]:
    """Forward and backward alone, of views that are ready."""
    method, taken = _method(case).train(), []
    place(method, "fp32", torch.device("cpu"), layout)
    views = ImageViews()(_batch(dataset, batch_size), Address(0, 0, 0))
    for _ in range(steps):
        began = time.perf_counter()
        method.zero_grad()
        method.step(views)[0].backward()  # type: ignore[no-untyped-call]
        taken.append(time.perf_counter() - began)
    return taken


def _lightly(case: Case, pixels: NDArray[np.uint8], batch_size: int, steps: int) -> Callable[[], list[float]]:
    from lightly.data import LightlyDataset
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms.simclr_transform import SimCLRTransform

    class Pictures(torch.utils.data.Dataset[tuple[list[Tensor], int]]):
        transform: Callable[[Image.Image], list[Tensor]]  # which lightly sets

        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, row: int) -> tuple[list[Tensor], int]:
            return self.transform(Image.fromarray(pixels[row])), 0

    # For small pictures its documentation says half the strength and no blur.
    transform = SimCLRTransform(input_size=case.size, cj_strength=0.5, gaussian_blur=0.0)
    dataset = LightlyDataset.from_torch_dataset(Pictures(), transform=transform)

    def block() -> list[float]:
        encoder = _method(case).encoder
        backbone = encoder.get_submodule("backbone")
        head = SimCLRProjectionHead(encoder.dim, encoder.dim, 128)
        model, criterion = nn.ModuleList([backbone, head]).train(), NTXentLoss()
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4)
        loader = torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, drop_last=True, num_workers=2)
        ends = [time.perf_counter()]
        for views, *_ in itertools.islice(loader, steps):
            optimizer.zero_grad()
            first, second = (head(backbone(view)) for view in views)
            criterion(first, second).backward()
            optimizer.step()
            ends.append(time.perf_counter())
        return np.diff(ends).tolist()

    return block


if __name__ == "__main__":
    main()
