"""Any map-style torch Dataset, of pictures or of anything else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from overtone.contracts import Batch, Dataset, Sample
from overtone.datasets.decoding import Content
from overtone.datasets.images import Source
from overtone.datasets.labels import Labels, labelled, whole
from overtone.datasets.reading import Reading, read_images
from overtone.errors import DataError, RecipeError

if TYPE_CHECKING:
    from typing_extensions import Unpack

Collate = Callable[[list[Sample]], Mapping[str, Any]]


def torch_dataset(
    dataset: Any,
    *,
    modality: str = "image",
    collate: Collate | None = None,
    labels: Mapping[str, Sequence[Any]] | None = None,
    **options: Unpack[Reading],
) -> Dataset:
    """A dataset from an object with `__len__` and `__getitem__`, whose items are always the same.

    An item is the content alone, a tuple (content, label), or a dict with a key `modality`. The label,
    and whole numbers (floats without fractions too) and texts in a dict, become attributes; so does
    torchvision's `targets`, named by its `classes`. Unless there are `targets` or `labels`, this takes a
    pass over the items. Ids are row numbers. Of pictures, tensors are (C, H, W), arrays (H, W) or (H, W, C).

    Args:
        dataset: The torch dataset. Random augmentation belongs into views, not here.
        modality: What the content is.
        collate: Samples (dicts with `index`) -> batch, for other modalities than `image`; stacks by default.
        labels: Attribute -> N numbers or strings; None, blank or -1 where there is none.
        **options: See `Reading`; for pictures alone.

    Raises:
        RecipeError: Items or options do not fit the modality.
        DataError: Labels do not fit the samples, or a picture cannot be used.

    >>> series = torch_dataset([(torch.zeros(5), "low"), (torch.ones(5), "high")], modality="series")
    >>> series.labels["label"], series[1]["series"].shape
    (array([1, 0]), torch.Size([5]))
    """
    n_samples = len(dataset)
    if not n_samples:
        raise DataError("torch_dataset: no samples")
    _content(dataset[0], modality)
    if labels is None:
        found = _labels(dataset, modality, n_samples)
    else:
        found = labelled(labels, {}, n_samples, "torch_dataset")
    if modality != "image":
        if options:
            raise RecipeError(f"{sorted(options)[0]!r} is for images, not for modality={modality!r}; drop it")
        return _Items(dataset, modality, collate or default_collate, found)
    if collate is not None:
        raise RecipeError("collate is for other modalities; images of one size are stacked: leave it away")

    ids = list(map(str, range(n_samples)))
    source = Source("torch_dataset", ids, partial(_picture, dataset), *found, parallel=False)
    return read_images(source, **options)


class _Items:
    """Samples of another modality: the items' own keys and `index`."""

    def __init__(self, dataset: Any, modality: str, collate: Collate, labels: Labels) -> None:
        self.modality = modality
        self.ids: Sequence[str] = list(map(str, range(len(dataset))))
        self.labels = labels.codes
        self.label_names = labels.names
        self._dataset = dataset
        self._collate = collate

    @cached_property
    def fingerprint(self) -> str:
        """Takes a pass over the items, once."""
        digest = hashlib.blake2b(digest_size=16)
        for row in range(len(self)):
            feed(digest, self._dataset[row])
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        item = self._dataset[index]
        rest = item if isinstance(item, Mapping) else {self.modality: _content(item, self.modality)}
        return {**rest, "index": index}

    def collate(self, samples: list[Sample]) -> Batch:
        index = torch.tensor([sample["index"] for sample in samples], dtype=torch.int64)
        return {**self._collate(samples), "index": index}


def _content(item: Any, modality: str) -> Any:
    if isinstance(item, Mapping):
        if modality not in item:
            raise RecipeError(f"torch_dataset: items have the keys {list(item)}; give one as modality=")
        return item[modality]
    return item[0] if isinstance(item, tuple) else item


def _picture(dataset: Any, row: int) -> Content:
    """As `decoding.decoded` takes it: channels first."""
    content = _content(dataset[row], "image")
    if isinstance(content, Tensor):
        return content.numpy()
    if isinstance(content, np.ndarray) and content.ndim == 3:
        return content.transpose(2, 0, 1)
    if isinstance(content, (np.ndarray, bytes, Image.Image)):
        return content
    raise ValueError(f"a {type(content).__name__}; give a tensor, an array, a PIL image or a file's bytes")


def _labels(dataset: Any, modality: str, n_samples: int) -> Labels:
    targets = getattr(dataset, "targets", None)
    if targets is not None and len(targets) == n_samples:
        names = {"label": dataset.classes} if hasattr(dataset, "classes") else {}
        return labelled({"label": np.asarray(targets).tolist()}, names, n_samples, "targets")
    first = [name for name, value in _scalars(dataset[0], modality).items() if whole([value]) is not None]
    rows = [_scalars(dataset[row], modality) for row in range(n_samples)] if first else []
    found = {name: whole([row.get(name) for row in rows]) for name in first}
    kept = {name: values for name, values in found.items() if values is not None}
    return labelled(kept, {}, n_samples, "torch_dataset")


def _scalars(item: Any, modality: str) -> dict[str, Any]:
    """What in an item is a label."""
    if isinstance(item, tuple):
        item = {"label": item[1]} if len(item) > 1 else {}
    if not isinstance(item, Mapping):
        return {}
    found = {}
    for name, value in item.items():
        if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0:
            value = value.item()
        if isinstance(value, np.floating):
            value = float(value)
        if name not in (modality, "index") and isinstance(value, (int, float, str, np.integer, np.bool_)):
            found[name] = value
    return found


def feed(digest: hashlib.blake2b, value: Any) -> None:
    """Adds a content to a digest: tensors, numbers and text, and what is nested of them.

    Raises:
        DataError: It holds anything else.

    >>> digest = hashlib.blake2b(digest_size=4)
    >>> feed(digest, {"text": "a bird", "series": torch.zeros(3)})
    >>> digest.hexdigest()
    '6330841a'
    """
    if isinstance(value, Mapping):
        value = tuple(value.items())
    if isinstance(value, (tuple, list)):
        digest.update(f"{type(value).__name__} {len(value)}".encode())
        for part in value:
            feed(digest, part)
    elif isinstance(value, (Tensor, np.ndarray)):
        array = np.asarray(value)
        digest.update(repr((array.shape, str(array.dtype))).encode() + array.tobytes())
    elif value is None or isinstance(value, (str, bytes, int, float)):
        digest.update(repr(value).encode("utf-8", "surrogatepass"))
    else:
        raise DataError(
            f"an item of the data set holds a {type(value).__name__}; give tensors, numbers or text"
        )
