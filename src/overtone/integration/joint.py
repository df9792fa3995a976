"""Many stages as one encoder (cross-stage representation integration; Zhang et al., ECCV 2024, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as serialized
from torch import Tensor, nn
from torch.nn import functional as F

from overtone import artifacts, rng
from overtone.contracts import Batch
from overtone.datasets.decoding import Framing, decoded
from overtone.embedding import evaluating, to_device
from overtone.encoders import Encoder, TwoTowers, load_encoder, load_weights, save_encoder
from overtone.errors import DataError, RecipeError, RunError
from overtone.heads import ProjectionHead

_PROJECTION = "projection.safetensors"


def concatenated(embeddings: Sequence[NDArray[np.float32]], normalise: str = "each") -> NDArray[np.float32]:
    """The stages' embeddings (N, D_s) side by side, (N, sum of D_s).

    Args:
        embeddings: One array a stage.
        normalise: "each" gives every stage unit length, so that none outweighs another; "once"
            concatenates raw embeddings and gives the whole unit length, as the paper does.

    >>> a, b = np.array([[3.0, 4.0]], dtype=np.float32), np.array([[0.0, 2.0]], dtype=np.float32)
    >>> concatenated([a, b])
    array([[0.6, 0.8, 0. , 1. ]], dtype=float32)
    """
    tensors = [torch.from_numpy(np.array(e, dtype=np.float32)) for e in embeddings]
    joined: NDArray[np.float32] = _joined(tensors, normalise, None).numpy()
    return joined


class JointEncoder(Encoder):
    """All stages of a run as one encoder: batch in, (B, sum of D_s) out.

    Args:
        stages: The encoders, first stage first.
        normalise: See `concatenated`.
        modality: The key of the content in a batch.
        content: How a sample's content was read in training, for `encode`: its `shape`, and `fit` for images.
        weights: Factors on the stages before they are put side by side; all one by default.
        projection: Takes the concatenation and gives the embeddings: principal components, or the head with
            which a student was trained.

    Raises:
        RecipeError: The weights are not one positive number a stage.

    >>> from overtone.encoders import build_encoder
    >>> joint = JointEncoder([build_encoder("small_cnn"), build_encoder("small_cnn")])
    >>> joint.encode(np.zeros((5, 32, 32, 3), dtype=np.uint8)).shape
    (5, 256)
    """

    def __init__(
        self,
        stages: Sequence[Encoder],
        *,
        normalise: str = "each",
        modality: str = "image",
        content: dict[str, Any] | None = None,
        weights: Sequence[float] | None = None,
        projection: ProjectionHead | None = None,
    ) -> None:
        super().__init__()
        self.stages: Sequence[Encoder] = nn.ModuleList(stages)  # type: ignore[assignment]
        self.normalise, self.modality, self.content = normalise, modality, content or {}
        self.weights, self.projection = _checked(weights, len(stages)), projection
        self.dim = sum(stage.dim for stage in stages) if projection is None else projection.out_dim

    def forward(self, batch: Batch) -> Tensor:
        """The joint embeddings of a batch."""
        return self.join([stage(batch) for stage in self.stages])

    def join(self, embeddings: Sequence[Tensor]) -> Tensor:
        """The joint embeddings (B, dim) of what the stages gave for a batch, (B, D_s) each."""
        joined = _joined(embeddings, self.normalise, self.weights)
        if self.projection is None:
            return joined
        # Whitening multiplies small differences, which bf16 does not have.
        with torch.autocast(joined.device.type, enabled=False):
            return cast(Tensor, self.projection(joined.float()))

    def encode_image(self, images: Tensor) -> Tensor:
        """Of two towers: the joint features (B, sum of D_s) of pictures (B, C, H, W)."""
        return self.join([stage.encode_image(images) for stage in self._towers()])

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Of two towers: the joint features (B, sum of D_s) of B strings."""
        return self.join([stage.encode_text(texts) for stage in self._towers()])

    def _towers(self) -> list[TwoTowers]:
        towers = [stage for stage in self.stages if isinstance(stage, TwoTowers)]
        if len(towers) < len(self.stages) or self.projection is not None:
            raise RecipeError("encode_image, encode_text: need stages with two towers, side by side")
        return towers

    @torch.inference_mode()
    def encode(self, content: Any, *, batch_size: int = 256) -> NDArray[np.float32]:
        """Embeds arrays or files, in eval mode, on the device where the encoder is.

        Args:
            content: Images as (N, H, W, C) or (N, C, H, W) array or tensor (uint8, or float in [0, 1]),
                or a list of paths or PIL images, brought to the size of the training images; or a batch
                dict, for data that are not images.
            batch_size: Samples at a time.

        Returns:
            (N, dim) float32.

        Raises:
            DataError: The content cannot be read as what the encoder was trained on.
        """
        if isinstance(content, dict):
            return self._embedded(content)
        if self.modality != "image":
            raise DataError(
                f"encode: this encoder takes `{self.modality}`; give a batch dict, as the data set's collate "
                "makes it."
            )
        if isinstance(content, (str, Path)) or not hasattr(content, "__len__"):
            raise DataError(f"encode: {content!r}: expected an array or a list, also of a single image.")
        parts = [
            self._embedded({"image": self._images(content[start : start + batch_size])})
            for start in range(0, len(content), batch_size)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)

    def save(self, folder: Path) -> None:
        """Writes `joint.json` and a folder a stage into an existing folder; safetensors and JSON only."""
        for number, stage in enumerate(self.stages):
            place = folder / f"stage-{number}"
            place.mkdir()
            save_encoder(stage, place)
        settings = {name: getattr(self, name) for name in ("normalise", "modality", "content", "weights")}
        if self.projection is not None:
            settings["projection"] = self.projection.spec
            state = {name: value.cpu() for name, value in self.projection.state_dict().items()}
            (folder / _PROJECTION).write_bytes(serialized(state))
        artifacts.write_json(folder / "joint.json", {**settings, "stages": len(self.stages)})

    def _embedded(self, batch: Batch) -> NDArray[np.float32]:
        with evaluating(self):
            rows = self(to_device(batch, next(self.parameters()).device))
        embedded: NDArray[np.float32] = rows.float().cpu().numpy()
        return embedded

    def _images(self, content: Any) -> Tensor:
        shape = self.content.get("shape")
        fit = self.content.get("fit", "crop")
        framing = Framing.of(tuple(shape[1:]), shape[0], fit) if shape else Framing.of(None, None, fit)
        if isinstance(content, (np.ndarray, Tensor)):
            content = _channels_first(np.asarray(content), shape[0] if shape else 3)
        images = []
        for number, item in enumerate(content):
            try:
                data = Path(item).read_bytes() if isinstance(item, (str, Path)) else item
                images.append(torch.from_numpy(decoded(data, framing)))
            except (OSError, ValueError, TypeError) as error:
                name = item if isinstance(item, (str, Path)) else f"image {number}"
                raise DataError(f"encode: {name}: {error}") from None
        return torch.stack(images)


def _channels_first(images: NDArray[Any], channels: int) -> NDArray[Any]:
    if images.ndim == 4 and images.shape[1] == channels:
        return images
    if images.ndim == 4 and images.shape[3] == channels:
        return images.transpose(0, 3, 1, 2)
    raise DataError(
        f"encode: an array of shape {images.shape}; expected (N, H, W, {channels}) or (N, {channels}, H, W)."
    )


def load(path: str | Path, *, encoder: nn.Module | None = None) -> JointEncoder:
    """The joint encoder of a run, in eval mode; needs neither the recipe nor the data.

    Args:
        path: A run folder, or the `encoder` folder in it, wherever it was copied.
        encoder: A module of the architecture, for runs whose encoder is not a built-in one: files name
            no code.

    Raises:
        RunError: There is no complete run, or a file is damaged or foreign.
    """
    folder = Path(path)
    if not (folder / "joint.json").exists():
        folder = folder / "encoder"
    if not (folder / "joint.json").exists():
        raise RunError(
            f"{path}: holds no finished run (no encoder/joint.json); finish it with `overtone resume {path}`."
        )
    artifacts.verify(folder)
    settings = _settings(folder / "joint.json")
    stages = [load_encoder(folder / f"stage-{number}", encoder) for number in range(settings.pop("stages"))]
    try:
        if spec := settings.pop("projection", None):
            with rng.seeded(0, "load"):  # it draws weights, which are then replaced
                settings["projection"] = ProjectionHead(**spec)
            load_weights(settings["projection"], folder / _PROJECTION)
        return JointEncoder(stages, **settings).eval()
    except (TypeError, ValueError, RuntimeError, RecipeError) as error:
        raise RunError(f"{folder / 'joint.json'}: damaged: {error}") from error


def _settings(path: Path) -> dict[str, Any]:
    """What `save` wrote, as far as it is of use before anything is built."""
    settings = artifacts.read_json(path)
    content = settings.get("content") if isinstance(settings, dict) else None
    shape = content.get("shape", []) if isinstance(content, dict) else None
    holds = (
        isinstance(shape, list)
        and all(type(side) is int and side > 0 for side in shape)
        and type(settings.get("stages")) is int
        and settings["stages"] > 0
        and settings.get("normalise") in ("each", "once")
        and isinstance(settings.get("modality"), str)
    )
    if not holds:
        raise RunError(
            f"{path}: damaged: expected stages, normalise, modality and content, as `save` writes them."
        )
    return dict(settings)


def _checked(weights: Sequence[float] | None, n_stages: int) -> list[float] | None:
    if weights is None:
        return None
    if len(weights) != n_stages or not all(0 < weight < inf for weight in weights):
        raise RecipeError(f"weights: {list(weights)}; expected {n_stages} positive numbers, one a stage.")
    return [float(weight) for weight in weights]


def _joined(embeddings: Sequence[Tensor], normalise: str, weights: Sequence[float] | None) -> Tensor:
    if normalise == "each":
        embeddings = [F.normalize(e, dim=1) for e in embeddings]
    if weights is not None:
        embeddings = [weight * e for weight, e in zip(weights, embeddings, strict=True)]
    joined = torch.cat(list(embeddings), dim=1)
    return joined if normalise == "each" else F.normalize(joined, dim=1)
