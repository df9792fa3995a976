"""What an encoder is, and the two that make one of any module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from overtone.contracts import Batch
from overtone.embedding import evaluating
from overtone.errors import DataError, RecipeError
from overtone.views.pixels import unit_floats

if TYPE_CHECKING:
    from typing_extensions import Self

# Half grey and a quarter: near enough to any set of pictures to centre it.
MEAN, STD = 0.5, 0.25


class Encoder(nn.Module):
    """A module whose `forward` takes a batch and returns its embeddings, (B, dim) float.

    Attributes:
        dim: Width of the embeddings.
        spec: The arguments from which `build_encoder(**spec)` makes the same architecture again; None for
            a module of the user's own.
        frozen: Names of the submodules that stay in eval mode also in training (see `trainable`).
    """

    dim: int
    spec: dict[str, Any] | None = None
    frozen: tuple[str, ...] = ()

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but what is frozen stays in eval mode: batch norm keeps its statistics."""
        super().train(mode)
        for name in self.frozen:
            nn.Module.train(self.get_submodule(name), False)
        return self


class ImageEncoder(Encoder):
    """Normalises pictures and gives them to a backbone.

    Takes `batch["image"]`, (B, C, H, W): uint8 (divided by 255), uint16 (by 65535) or float in [0, 1].

    Args:
        backbone: Takes (B, C, H, W) normalised floats, returns (B, D).
        mean: Mean of each channel of the pictures in [0, 1]; its length is the number of channels.
        std: Standard deviation of each channel.
        dim: D; None finds it by running the backbone once on two black pictures.
        spec: See `Encoder`.
        image_size: Height and width of the black pictures.

    Raises:
        RecipeError: mean and std do not fit, or the backbone does not return (B, D).
        DataError: In use, the pictures have another number of channels.

    >>> encoder = ImageEncoder(nn.Flatten(), mean=[0.5], std=[0.5], image_size=(2, 2))
    >>> encoder.dim, encoder({"image": torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)}).tolist()
    (4, [[1.0, 1.0, 1.0, 1.0]])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        dim: int | None = None,
        spec: dict[str, Any] | None = None,
        image_size: tuple[int, int] = (64, 64),
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean or not min(std) > 0:
            raise RecipeError(
                f"mean={list(mean)}, std={list(std)}: expected one of each a channel, std above 0"
            )
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))
        self.spec = spec
        if dim is None:
            like = next(backbone.parameters(), self.mean)
            black = torch.zeros(2, len(mean), *image_size, dtype=like.dtype, device=like.device)
            dim = _dim_of(backbone, black, f"pictures of {image_size[0]} x {image_size[1]} pixels")
        self.dim = dim

    def forward(self, batch: Batch) -> Tensor:
        """(B, dim) embeddings of `batch["image"]`."""
        if "image" not in batch:
            raise DataError(f"a batch with the keys {sorted(batch)}: this encoder expects `image`")
        images = unit_floats(batch["image"], self.mean.dtype)
        if images.shape[1] != len(self.mean):
            raise DataError(
                f"images of shape {tuple(images.shape)} have {images.shape[1]} channels: the encoder was "
                f"built for {len(self.mean)}; build it with channels={images.shape[1]}"
            )
        return cast(Tensor, self.backbone((images - self.mean) / self.std))


class BatchEncoder(Encoder):
    """A module of the user's that takes the batch itself, of whatever modality, and returns (B, dim).

    >>> class Bag(nn.Module):
    ...     def forward(self, batch):
    ...         return batch["counts"].float()
    >>> BatchEncoder(Bag(), dim=3)({"counts": torch.tensor([[1, 0, 2]])}).tolist()
    [[1.0, 0.0, 2.0]]
    """

    def __init__(self, backbone: nn.Module, dim: int) -> None:
        super().__init__()
        self.backbone, self.dim = backbone, dim

    def forward(self, batch: Batch) -> Tensor:
        """(B, dim) embeddings of the batch."""
        return cast(Tensor, self.backbone(batch))


def as_encoder(
    module: nn.Module,
    dataset_modality: str = "image",
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dim: int | None = None,
    example: Batch | None = None,
) -> Encoder:
    """Makes an encoder of any module; an `Encoder` is returned as it is.

    Args:
        module: For pictures, takes (B, C, H, W) floats; for any other modality, takes the batch.
        dataset_modality: The key of the data's content in a batch.
        mean: Mean of each channel of pictures in [0, 1]; 0.5 by default.
        std: Their standard deviation; 0.25 by default.
        dim: Width of the embeddings; found by running the module once where it is not given.
        example: A batch to run it on. Without one, pictures of 3 channels and 64 x 64 pixels, black.

    Raises:
        RecipeError: The module does not return (B, D), or its width cannot be found.

    >>> as_encoder(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())).dim
    3
    """
    if isinstance(module, Encoder):
        return module
    if dataset_modality != "image":
        if dim is None:
            dim = _batch_dim(module, dataset_modality, example)
        return BatchEncoder(module, dim)
    shape = (1, 3, 64, 64) if example is None else tuple(example["image"].shape)
    channels, size = len(mean) if mean is not None else shape[1], (shape[2], shape[3])
    mean, std = mean or [MEAN] * channels, std or [STD] * channels
    return ImageEncoder(module, mean=mean, std=std, dim=dim, image_size=size)


def _batch_dim(module: nn.Module, modality: str, example: Batch | None) -> int:
    declared = getattr(module, "dim", None)
    if isinstance(declared, int):
        return declared
    if example is None:
        raise RecipeError(
            f"the width of {type(module).__name__}'s embeddings is unknown: give it an attribute `dim`, or "
            f"pass dim= or an example batch with the key `{modality}`"
        )
    return _dim_of(module, example, f"a batch with the keys {sorted(example)}")


def _dim_of(module: nn.Module, argument: Any, described: str) -> int:
    """D of the (B, D) that a module returns, found without leaving a trace in it."""
    with torch.no_grad(), evaluating(module):
        try:
            output = module(argument)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            raise RecipeError(
                f"{type(module).__name__} failed on {described}: {error}; give it what it expects, or say "
                "the width of its embeddings (dim=)"
            ) from error
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise RecipeError(
            f"{type(module).__name__} returned {shape} for {described}: expected embeddings of shape "
            "(batch, width); remove its head or pool its output"
        )
    return output.shape[1]
