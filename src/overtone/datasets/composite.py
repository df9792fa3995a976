"""Two pictures in one: planted competition between what the one and the other shows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from overtone.contracts import Dataset
from overtone.datasets.images import ImageDataset, Source
from overtone.datasets.reading import Reading, read_images
from overtone.datasets.subset import balanced
from overtone.errors import RecipeError
from overtone.rng import derive, permuted

if TYPE_CHECKING:
    from typing_extensions import Unpack

Layout: TypeAlias = Literal["side_by_side", "overlay"]


def composite(
    left: Dataset,
    right: Dataset,
    *,
    layout: Layout = "side_by_side",
    instances: int | None = None,
    names: tuple[str, str] | None = None,
    seed: int = 0,
    **options: Unpack[Reading],
) -> ImageDataset:
    """Each picture of `left` together with one of `right`, the dominant one.

    Which goes with which is a keyed permutation: every picture of `right` serves equally often, and
    only once where there are enough. `instances` keeps few distinct ones of them, as many of each class.
    A test set shares the very same when made from the same `right`, `instances` and `seed`:

        train = composite(cifar_train, mnist, instances=100)
        test = composite(cifar_test, mnist, instances=100)

    Args:
        left: Pictures of one size; ids and number of samples are its own.
        right: Pictures of the same height (`side_by_side`) or size (`overlay`), and as many channels.
        layout: `side_by_side`; or `overlay`, the brighter of both at each pixel, as digits are laid on
            photographs in Chen, Luo & Li, "Intriguing properties of contrastive losses", NeurIPS 2021.
        instances: Distinct pictures of `right`, over the classes of its only attribute; None: all.
        names: What to call the only attribute of each; by default their own names, with `left_` and
            `right_` before where they clash.
        seed: Address of the draws, with "balanced" and "composite".
        **options: See `Reading`.

    Raises:
        RecipeError: The pictures do not fit together, or `names` does not fit the attributes.

    >>> from overtone.datasets import digits, trifeature
    >>> both = composite(trifeature(20), digits(50), instances=10)
    >>> both.image_shape, sorted(both.labels)
    ((3, 32, 64), ['colour', 'digit', 'shape', 'texture'])
    """
    if instances is not None:
        right = balanced(right, instances, seed=seed)
    _check(left, right, layout)
    partner = _partners(len(left), len(right), seed)
    labels, label_names = {}, {}
    first, second = _attribute_names(left, right, names)
    for dataset, renamed, rows in ((left, first, slice(None)), (right, second, partner)):
        for own, new in renamed.items():
            labels[new], label_names[new] = dataset.labels[own][rows], dataset.label_names[own]
    stamp = repr((left.fingerprint, right.fingerprint, layout, seed))
    read = partial(_joined, left, right, partner, layout)
    source = Source("composite", left.ids, read, labels, label_names, stamp, parallel=False)
    return read_images(source, **options)


def _joined(left: Dataset, right: Dataset, partner: NDArray[np.int64], layout: Layout, row: int) -> Any:
    pair = left[row]["image"], right[int(partner[row])]["image"]
    image: Tensor = torch.cat(pair, dim=2) if layout == "side_by_side" else torch.maximum(*pair)
    return image.numpy()


def _partners(n: int, n_right: int, seed: int) -> NDArray[np.int64]:
    """Which picture of the right goes with each of the left, a new permutation each time all have served."""
    turns, position = np.divmod(np.arange(n, dtype=np.int64), n_right)
    keys = np.array([derive(seed, "composite", t) for t in range(int(turns[-1]) + 1)], dtype=np.uint64)
    return permuted(position, n_right, keys[turns])


def _check(left: Dataset, right: Dataset, layout: Layout) -> None:
    if layout not in ("side_by_side", "overlay"):
        raise RecipeError(f"layout={layout!r}: give 'side_by_side' or 'overlay'")
    if not len(left) or not len(right):
        raise RecipeError(f"composite of {len(left)} and {len(right)} pictures; both need at least one")
    one, other = left[0]["image"], right[0]["image"]
    same = (one.shape[:2], other.shape[:2]) if layout == "side_by_side" else (one.shape, other.shape)
    if same[0] != same[1] or one.dtype != other.dtype:
        raise RecipeError(
            f"composite: left pictures are {tuple(one.shape)} {one.dtype}, right ones {tuple(other.shape)} "
            f"{other.dtype}; read both with an image_size and channels that fit together for {layout!r}"
        )


def _attribute_names(
    left: Dataset, right: Dataset, names: tuple[str, str] | None
) -> tuple[dict[str, str], dict[str, str]]:
    if names is None:
        return _prefixed(left, right, "left"), _prefixed(right, left, "right")
    if len(left.labels) != 1 or len(right.labels) != 1:
        raise RecipeError(
            f"names={names!r}: each side must have one attribute, left has {list(left.labels)}, "
            f"right has {list(right.labels)}; leave names away"
        )
    return {next(iter(left.labels)): names[0]}, {next(iter(right.labels)): names[1]}


def _prefixed(dataset: Dataset, other: Dataset, side: str) -> dict[str, str]:
    return {name: f"{side}_{name}" if name in other.labels else name for name in dataset.labels}
