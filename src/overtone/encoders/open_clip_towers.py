"""Models of open_clip as two towers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from overtone.encoders.encoder import ImageEncoder
from overtone.encoders.two_towers import Embeds, TwoTowerEncoder
from overtone.errors import RecipeError


class TextTower(nn.Module):
    """A text transformer with its tokenizer: B strings -> (B, D)."""

    def __init__(self, transformer: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.transformer, self._tokenizer = transformer, tokenizer

    def forward(self, texts: list[str]) -> Tensor:
        """Text features, not normalised."""
        tokens = self._tokenizer(texts).to(next(self.parameters()).device)
        features: Tensor = self.transformer(tokens)
        return features


def open_clip_towers(
    model: str,
    *,
    pretrained: bool = False,
    tag: str | None = None,
    image_size: tuple[int, int] | None = None,
    embeds: Embeds = "image",
    quick_gelu: bool | None = None,
    **arguments: Any,
) -> TwoTowerEncoder:
    """A model of open_clip, with its own statistics of pictures and its own tokenizer.

    Args:
        model: Any name that open_clip lists, such as "ViT-B-32".
        pretrained: Start from published weights, or from a file.
        tag: Which: "openai", "laion2b_s34b_b79k", ..., or the path of a checkpoint of open_clip's.
        image_size: Height and width of the pictures; the model's own by default.
        embeds: See `TwoTowerEncoder`.
        quick_gelu: The activation that OpenAI's weights were trained with; by default as the weights say.
        **arguments: For `open_clip.create_model`.

    Raises:
        RecipeError: open_clip is not installed, or does not know the model or the tag.
    """
    try:
        import open_clip
    except ImportError as error:
        raise RecipeError(
            f'encoder.name="open_clip:{model}": install it with pip install "overtone[clip]"'
        ) from error
    _check(open_clip, model, pretrained, tag)
    if quick_gelu is None:
        quick_gelu = bool(tag and not Path(tag).exists() and _of(open_clip, model, tag).get("quick_gelu"))
    try:
        found = open_clip.create_model(
            model,
            pretrained=tag if pretrained else None,
            force_quick_gelu=quick_gelu,
            force_custom_text=True,
            force_image_size=image_size,
            **arguments,
        )
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise RecipeError(f'encoder.name="open_clip:{model}" cannot be built: {error}') from error
    visual = found.visual
    with torch.no_grad():
        width = int(found.text.text_projection.shape[-1]) if _has_matrix(found.text) else visual.output_dim
    spec = {
        "name": f"open_clip:{model}",
        "image_size": None if image_size is None else list(image_size),
        "embeds": embeds,
        "quick_gelu": quick_gelu,
        **arguments,
    }
    pictures = ImageEncoder(visual, mean=visual.image_mean, std=visual.image_std, dim=width)
    texts = TextTower(found.text, open_clip.get_tokenizer(model))
    bias = getattr(found, "logit_bias", None)
    return TwoTowerEncoder(
        pictures,
        texts,
        width=width,
        embeds=embeds,
        logit_scale=found.logit_scale.item(),
        logit_bias=None if bias is None else bias.item(),
        spec=spec,
    )


def _has_matrix(text: nn.Module) -> bool:
    return isinstance(getattr(text, "text_projection", None), Tensor)


def _of(open_clip: Any, model: str, tag: str) -> dict[str, Any]:
    found: dict[str, Any] = open_clip.get_pretrained_cfg(model, tag) or {}
    return found


def _check(open_clip: Any, model: str, pretrained: bool, tag: str | None) -> None:
    if model not in open_clip.list_models():
        from difflib import get_close_matches

        close = get_close_matches(model, open_clip.list_models(), n=3)
        guess = f"; did you mean {', '.join(close)}?" if close else ""
        raise RecipeError(f'encoder.name="open_clip:{model}": open_clip knows no such model{guess}')
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained and tag is None:
        raise RecipeError(
            f"encoder.tag: is missing; pretrained weights of {model}: {', '.join(tags) or 'none'}, or a file"
        )
    if pretrained and tag not in tags and not Path(str(tag)).exists():
        raise RecipeError(f"encoder.tag={tag!r}: expected one of {', '.join(tags) or 'none'}, or a file")
