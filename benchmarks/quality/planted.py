"""Data and views of the benchmark alone, which its recipes name as `planted:...`."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from overtone import rng
from overtone.contracts import Address, Batch, Dataset, Sample
from overtone.datasets import ImageDataset, arrays, digits
from overtone.views import ImageViews
from overtone.views.pixels import unit_floats

JPEG_QUALITY = 90
BRIGHTER = 8  # grey levels of 255


class LaidOn:
    """The right half of each picture laid on its left one, which stays beside it for `LaidOnViews`.

    A sample's `image` is the whole, (3, H, W); `ground` what lies below, `mark` what lies on it, `marked`,
    (1, H, W) bool, where.

    Args:
        pair: Pictures side by side: `overtone.datasets.composite`.
        place: "over" lays the strokes of the mark (brighter than half) over the ground; "corner" puts the
            whole mark at half its size into the upper left corner.
    """

    def __init__(self, pair: Dataset, place: Literal["over", "corner"]) -> None:
        self.modality = "image"
        self.ids, self.labels, self.label_names = pair.ids, pair.labels, pair.label_names
        self.fingerprint = f"{pair.fingerprint}-{place}"
        self._pair, self._place = pair, place

    def __len__(self) -> int:
        return len(self._pair)

    def __getitem__(self, index: int) -> Sample:
        ground, right = self._pair[index]["image"].chunk(2, dim=2)
        mark, marked = _over(right) if self._place == "over" else _corner(right)
        image = torch.where(marked, mark, ground)
        return {"index": index, "image": image, "ground": ground, "mark": mark, "marked": marked}

    def collate(self, samples: list[Sample]) -> Batch:
        index = torch.tensor([sample["index"] for sample in samples])
        pictures = ("image", "ground", "mark", "marked")
        return {"index": index, **{key: torch.stack([sample[key] for sample in samples]) for key in pictures}}


def _over(right: Tensor) -> tuple[Tensor, Tensor]:
    return right, right.amax(0, keepdim=True) > 127


def _corner(right: Tensor) -> tuple[Tensor, Tensor]:
    small = avg_pool2d(right.float(), 2).to(right.dtype)
    mark, marked = torch.zeros_like(right), torch.zeros_like(right[:1], dtype=torch.bool)
    height, width = small.shape[1:]
    mark[:, :height, :width], marked[:, :height, :width] = small, True
    return mark, marked


class LaidOnViews(ImageViews):
    """Augments the ground of a `LaidOn` picture; the mark is laid on afterwards, the same in all views.

    What something else has changed in `image` before (to hide a part of it) stays changed, below the
    mark and in it.
    """

    def __call__(self, batch: Batch, address: Address) -> list[Batch]:
        image, ground, mark = (unit_floats(batch[key]) for key in ("image", "ground", "mark"))
        kept = batch["marked"] & (image == mark).all(1, keepdim=True)
        views = super().__call__({**batch, "image": torch.where(kept, ground, image)}, address)
        return [{**view, "image": torch.where(kept, mark, view["image"])} for view in views]


def with_copies(dataset: Dataset, share: float) -> ImageDataset:
    """The pictures of a data set, the last `share` of them replaced by near-duplicates of others.

    A near-duplicate is a little brighter and was a JPEG in between; it keeps the label of its picture.
    """
    first = len(dataset) - round(share * len(dataset))
    originals = rng.permuted(np.arange(len(dataset) - first), first, rng.derive(0, "copies"))
    rows = np.concatenate([np.arange(first), originals])
    pictures = [dataset[int(row)]["image"].numpy() for row in rows]
    pictures[first:] = [_recoded(picture) for picture in pictures[first:]]
    names = {
        name: [dataset.label_names[name][code] for code in codes[rows]]
        for name, codes in dataset.labels.items()
    }
    ids = [dataset.ids[row] + (" again" if i >= first else "") for i, row in enumerate(rows)]
    return arrays(np.stack(pictures), names, ids)


def _recoded(picture: Any) -> Any:
    brighter = np.minimum(picture.astype(np.int64) + BRIGHTER, 255).astype(np.uint8)
    return np.asarray(Image.open(_file(brighter, "JPEG", quality=JPEG_QUALITY))).transpose(2, 0, 1)


def _file(picture: Any, form: str, **options: Any) -> BytesIO:
    file = BytesIO()
    Image.fromarray(picture.transpose(1, 2, 0)).save(file, form, **options)
    return file


def write_stand_ins(folder: Path, n: int) -> None:
    """Drawn digits in the place of CIFAR-10 and MNIST, to see whether everything runs without them."""
    for start, name in enumerate(("cifar10/train", "cifar10/test", "mnist/train", "mnist/test")):
        drawn = digits(n, start=start * n)
        pictures = [
            _file(sample["image"].numpy(), "PNG").getvalue() for sample in map(drawn.__getitem__, range(n))
        ]
        place = folder / f"{name}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": pictures, "label": drawn.labels["digit"]}), place)
