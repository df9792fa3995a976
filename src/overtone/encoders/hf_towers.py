"""CLIP and SigLIP models of Hugging Face as two towers."""

from __future__ import annotations

import base64
import logging
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from overtone.encoders.encoder import ImageEncoder
from overtone.encoders.two_towers import Embeds, TwoTowerEncoder
from overtone.errors import RecipeError

logger = logging.getLogger(__name__)

_MODELS = {"clip": "CLIP", "siglip": "Siglip"}
# What a file may name; other classes would look for more than the files that are kept.
_TOKENIZERS = (
    "CLIPTokenizer", "SiglipTokenizer", "Siglip2Tokenizer", "GemmaTokenizer", "TokenizersBackend",
)  # fmt: skip
_SIGLIP_BEGINS = math.log(10), -10.0  # logit_scale and logit_bias, as its authors have them


class ImageSide(nn.Module):
    """A vision transformer and its projection: pictures (B, C, H, W), of any size -> (B, D).

    Attributes:
        image_size: The size that it was trained on.
    """

    def __init__(self, transformer: Any, projection: nn.Module) -> None:
        super().__init__()
        self.transformer, self.projection = transformer, projection
        self.image_size: int = transformer.config.image_size

    def forward(self, pixels: Tensor) -> Tensor:
        """Image features, not normalised; where the size is not the model's, positions are interpolated."""
        found = self.transformer(pixel_values=pixels, interpolate_pos_encoding=True)
        features: Tensor = self.projection(found.pooler_output)
        return features


class TextSide(nn.Module):
    """A text transformer with its projection and its tokenizer: B strings -> (B, D)."""

    def __init__(self, transformer: nn.Module, projection: nn.Module, tokens: Tokens) -> None:
        super().__init__()
        self.transformer, self.projection, self._tokens = transformer, projection, tokens

    def forward(self, texts: list[str]) -> Tensor:
        """Text features, not normalised."""
        ids = self._tokens(texts).to(next(self.parameters()).device)
        # Without a mask: CLIP looks back alone, and SigLIP was trained to see the padding.
        features: Tensor = self.projection(self.transformer(input_ids=ids).pooler_output)
        return features


class Tokens:
    """A tokenizer whose every text has the model's length, cut or padded."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def __deepcopy__(self, _: dict[int, Any]) -> Tokens:
        return self  # it never changes, and sentencepiece would look for its file again

    def __call__(self, texts: list[str]) -> Tensor:
        """(B, length) int64."""
        found = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        ids: Tensor = found["input_ids"]
        return ids


def hf_towers(
    model: str,
    *,
    pretrained: bool = False,
    image_size: tuple[int, int] | None = None,
    embeds: Embeds = "image",
    kept: dict[str, Any] | None = None,
) -> TwoTowerEncoder:
    """A CLIP or SigLIP model, with its own statistics of pictures and its own tokenizer.

    Args:
        model: ORG/MODEL on the hub, or a folder with config.json, the tokenizer and preprocessor_config.json.
        pretrained: Take its weights; otherwise its configuration alone, with new ones.
        image_size: Height and width of the pictures to come; it takes any from one patch on.
        embeds: See `TwoTowerEncoder`.
        kept: What the encoder's `spec` holds of the model's files, so that it is built again without them.

    Raises:
        RecipeError: transformers is not installed, a file cannot be had, or the model is of another kind.
    """
    place = f'encoder.name="hf:{model}"'
    try:
        import transformers
    except ImportError as error:
        raise RecipeError(f'{place}: install transformers with pip install "overtone[hf]"') from error
    try:
        kept = _read(transformers, model) if kept is None else kept
        found = _model(transformers, kept["config"], model if pretrained else None)
        _check_size(found.config.vision_config, image_size)
        tokenizer = _unpacked(transformers, **kept["tokenizer"])
        return _towers(found, tokenizer, kept, f"hf:{Path(model).name}", embeds)
    except RecipeError as error:
        raise RecipeError(f"{place}: {error}") from None
    # Files of anyone's and code of many authors: almost anything may be raised.
    except Exception as error:
        raise RecipeError(f"{place} cannot be built: {type(error).__name__}: {error}") from error


def _check_size(sizes: Any, image_size: tuple[int, int] | None) -> None:
    if image_size is None:
        return
    if min(image_size) < sizes.patch_size:
        raise RecipeError(
            f"pictures of {image_size[0]} x {image_size[1]} pixels, but its patches have {sizes.patch_size}; "
            "give the data a larger image_size"
        )
    if image_size != (sizes.image_size, sizes.image_size):
        logger.info(
            "hf: made for pictures of %d pixels; positions are interpolated to %d x %d.",
            sizes.image_size,
            *image_size,
        )


def _towers(found: Any, tokenizer: Any, kept: dict[str, Any], name: str, embeds: Embeds) -> TwoTowerEncoder:
    text = found.config.text_config
    if len(tokenizer) > text.vocab_size:
        raise RecipeError(
            f"its tokenizer has {len(tokenizer):,} tokens and its text tower {text.vocab_size:,}; they do "
            "not belong together"
        )
    if found.config.model_type == "clip":
        image_side, text_side, width = found.visual_projection, found.text_projection, found.projection_dim
    else:
        image_side, text_side, width = nn.Identity(), nn.Identity(), text.projection_size
    pictures = ImageEncoder(
        ImageSide(found.vision_model, image_side), mean=kept["mean"], std=kept["std"], dim=width
    )
    texts = TextSide(found.text_model, text_side, Tokens(tokenizer, text.max_position_embeddings))
    bias = getattr(found, "logit_bias", None)
    return TwoTowerEncoder(
        pictures,
        texts,
        width=width,
        embeds=embeds,
        logit_scale=found.logit_scale.item(),
        logit_bias=None if bias is None else bias.item(),
        spec={"name": name, "embeds": embeds, "kept": kept},
    )


def _read(transformers: Any, model: str) -> dict[str, Any]:
    """What is kept of a model's files: plain values and the tokenizer's files."""
    named: dict[str, Any] = {"pretrained_model_name_or_path": model, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(**named)
    if config.model_type not in _MODELS:
        raise RecipeError(
            f"a model of the type {config.model_type!r}; expected CLIP or SigLIP (model_type clip or siglip)"
        )
    processor = transformers.AutoImageProcessor.from_pretrained(**named)
    return {
        "config": _plain(transformers, config.to_dict()),
        "tokenizer": _packed(transformers.AutoTokenizer.from_pretrained(**named)),
        "mean": list(processor.image_mean) if processor.do_normalize else [0.0] * 3,
        "std": list(processor.image_std) if processor.do_normalize else [1.0] * 3,
    }


def _model(transformers: Any, config: dict[str, Any], source: str | None) -> Any:
    """A new model of a configuration, or with the weights of a source."""
    if config.get("model_type") not in _MODELS:
        raise RecipeError(f"model_type {config.get('model_type')!r}, expected clip or siglip")
    kind = _MODELS[config["model_type"]]
    built = getattr(transformers, f"{kind}Config")(**_plain(transformers, config))
    make = getattr(transformers, f"{kind}Model")
    if source is not None:
        found, loaded = make.from_pretrained(
            source, config=built, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
        if missing := sorted(loaded["missing_keys"]):
            raise RecipeError(f"its weights lack {len(missing)} of the model's, first {missing[0]}")
        return found
    found = make(built)
    if kind == "Siglip":  # which transformers begins at 0 and 0
        with torch.no_grad():
            found.logit_scale.fill_(_SIGLIP_BEGINS[0])
            found.logit_bias.fill_(_SIGLIP_BEGINS[1])
    return found


def _plain(transformers: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The sizes in a configuration; what else it may say (code, kernels to fetch) is left out."""
    kind = _MODELS[config["model_type"]]
    sides = {
        f"{side}_config": _fields(
            getattr(transformers, f"{kind}{side.title()}Config"), config[f"{side}_config"]
        )
        for side in ("text", "vision")
    }
    own = _fields(getattr(transformers, f"{kind}Config"), config)
    return {"model_type": config["model_type"], **own, **sides}


def _fields(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in kind.__annotations__ if name in values}


def _packed(tokenizer: Any) -> dict[str, Any]:
    kind = type(tokenizer).__name__
    if kind not in _TOKENIZERS:
        raise RecipeError(f"its tokenizer is a {kind}; expected one of {', '.join(_TOKENIZERS)}")
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {
            path.name: base64.b64encode(path.read_bytes()).decode() for path in sorted(Path(folder).iterdir())
        }
    return {"kind": kind, "files": files}


def _unpacked(transformers: Any, kind: str, files: dict[str, str]) -> Any:
    if kind not in _TOKENIZERS or any(Path(name).name != name for name in files):
        raise RecipeError(f"no tokenizer that was kept: {kind!r} of {', '.join(map(repr, files))}")
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(base64.b64decode(content))
        return getattr(transformers, kind).from_pretrained(folder, local_files_only=True)
