"""Multistage training the published way, with the tools of its code; only the data are drawn as ours are.

Each stage: a sampler that holds Python lists draws batches of one cell at a time, in the fixed order of the
cells, round robin; a DataLoader with worker processes augments sample by sample with torchvision; the loss is
a dense matrix of logits. Then a DataLoader embeds the whole set, scikit-learn's MiniBatchKMeans makes ten
clusters, and Python loops multiply their labels with those of the stages before. In the end the raw
embeddings stand side by side, normalised once.

Encoder, head, optimiser, augmentations, batch size and epochs are those of `overtone demo`. Two things differ
from the published code. So that both see the same number of pictures, what does not fill a batch is a short
batch, not dropped for ever (which in the third stage would be everything, here); and the labels of all stages
are multiplied, as the paper says, where the code takes the newest alone.

    python benchmarks/speed/published.py OUT     # writes seconds.json and STAGE-{train,test}.npy
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_pictures import STAGES, drawn
from PIL import Image
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

BATCH, LR, TEMPERATURE, CLUSTERS, WORKERS = 256, 2e-3, 0.2, 10, 2  # a worker for each core


class Pictures(Dataset[Any]):
    """PIL pictures kept decoded, each transformed when it is asked for."""

    def __init__(self, images: np.ndarray[Any, Any], transform: Any) -> None:
        self.images = [Image.fromarray(image) for image in images]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.images[index])


class TwoViews:
    """Two views of a picture: the left half augmented, the right half, the digit, as it is."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.augment = transforms.Compose(
            [
                transforms.RandomResizedCrop(side, scale=(0.2, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.05)], p=0.8),
                transforms.ToTensor(),
            ]
        )
        self.plain = transforms.ToTensor()

    def __call__(self, image: Image.Image) -> tuple[Tensor, Tensor]:
        left = image.crop((0, 0, self.side, self.side))
        right = self.plain(image.crop((self.side, 0, image.width, image.height)))
        first, second = (torch.cat([self.augment(left), right], dim=2) for _ in range(2))
        return first, second


class CellSampler:
    """Batches of one cell at a time, round robin over the cells until all are used up."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels

    def __iter__(self) -> Iterator[list[int]]:
        cells: dict[int, list[int]] = defaultdict(list)
        for index in torch.randperm(len(self.labels)).tolist():
            cells[self.labels[index]].append(index)
        while any(cells.values()):
            for cell in sorted(cells):
                batch, cells[cell] = cells[cell][:BATCH], cells[cell][BATCH:]
                if len(batch) > 1:
                    yield batch

    def __len__(self) -> int:
        return sum(1 for _ in iter(self))


class Encoder(nn.Module):
    """Three convolutions with stride 2, then the mean over what is left of the picture."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width)]
            layers += [nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images)
        return features.mean((2, 3))


def head() -> nn.Module:
    return nn.Sequential(
        nn.Linear(128, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(inplace=True), nn.Linear(128, 128)
    )


def dense_loss(first: Tensor, second: Tensor) -> Tensor:
    """NT-Xent with all logits at once."""
    z = nn.functional.normalize(torch.cat([first, second]), dim=1)
    logits = z @ z.T / TEMPERATURE
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool), -math.inf)
    return nn.functional.cross_entropy(logits, torch.arange(len(z)).roll(len(z) // 2))


def train(images: np.ndarray[Any, Any], labels: list[int], epochs: int, seconds: dict[str, float]) -> Encoder:
    encoder, projection = Encoder(), head()
    model = nn.ModuleList([encoder, projection])
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=1e-2)
    sampler = CellSampler(labels)
    # The number of batches depends on the sizes of the cells alone.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(sampler))
    loader = DataLoader(
        Pictures(images, TwoViews(images.shape[1])), batch_sampler=sampler, num_workers=WORKERS
    )
    model.train()
    for _ in range(epochs):
        waiting = time.perf_counter()
        for views in loader:
            began = time.perf_counter()
            loss = dense_loss(*(projection(encoder(view)) for view in views))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            ended = time.perf_counter()
            seconds["pictures seen"] += len(views[0])
            seconds["views"] += began - waiting
            seconds["step"] += ended - began
            waiting = ended
    return encoder


@torch.no_grad()
def embed(encoder: Encoder, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    encoder.eval()
    loader = DataLoader(Pictures(images, transforms.ToTensor()), batch_size=512, num_workers=WORKERS)
    return torch.cat([encoder(batch) for batch in loader]).numpy()


def multiplied(labels: list[int], newest: list[int]) -> list[int]:
    """One label for each pair of labels."""
    numbers: dict[tuple[int, int], int] = {}
    return [numbers.setdefault(pair, len(numbers)) for pair in zip(labels, newest, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures = drawn(arguments.smoke)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (what the published code does)
    torch.manual_seed(0)
    seconds = {"views": 0.0, "step": 0.0, "embedding": 0.0, "clustering": 0.0, "pictures seen": 0.0}
    began = time.perf_counter()
    labels = [0] * len(pictures.train)
    for stage in range(STAGES):
        encoder = train(pictures.train, labels, pictures.epochs, seconds)
        since = time.perf_counter()
        for name, images in (("train", pictures.train), ("test", pictures.test)):
            np.save(arguments.out / f"{stage}-{name}.npy", embed(encoder, images))
        torch.save(encoder.state_dict(), arguments.out / f"{stage}.pt")
        seconds["embedding"] += time.perf_counter() - since
        if stage + 1 < STAGES:
            since = time.perf_counter()
            features = np.load(arguments.out / f"{stage}-train.npy")
            newest = MiniBatchKMeans(CLUSTERS).fit(features).labels_.tolist()
            labels = multiplied(labels, newest)
            seconds["clustering"] += time.perf_counter() - since
    seconds["all"] = time.perf_counter() - began
    (arguments.out / "seconds.json").write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
