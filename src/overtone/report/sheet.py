"""A contact sheet: rows of pictures, each with a few words beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from overtone.views.pixels import unit_floats

_TILE = 96
_GAP, _MARGIN = 8, 16
_FONT, _TITLE_FONT = 14, 20
_INK, _QUIET = (25, 25, 25), (110, 110, 110)


def picture(image: Tensor, scale: int | None = None) -> Image.Image:
    """An image (C, H, W), uint8, uint16 or float in [0, 1], enlarged `scale` times, by default to fit a tile.

    >>> picture(torch.zeros(3, 32, 32)).size
    (96, 96)
    """
    shown = unit_floats(image[None])[0].nan_to_num().clamp(0, 1)
    shown = shown[:3] if len(shown) >= 3 else shown.mean(dim=0, keepdim=True).expand(3, -1, -1)
    pixels = (shown * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    tile = Image.fromarray(pixels)
    factor = scale or max(1, _TILE // max(tile.size))
    tile = tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
    if scale is None:
        tile.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
    return tile


def sheet(title: str, texts: Sequence[list[str]], rows: Sequence[list[Image.Image]]) -> Image.Image:
    """The rows below each other, the lines of each row's text at its left, a title above.

    >>> sheet("", [["one"], ["two"]], [[Image.new("RGB", (40, 40))]] * 2).mode
    'RGB'
    """
    font, large = ImageFont.load_default(_FONT), ImageFont.load_default(_TITLE_FONT)
    line = _FONT + 5
    widths = [max(row[i].width for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    heights = [max(line * len(t), *(p.height for p in row)) for t, row in zip(texts, rows, strict=True)]
    left = round(max(font.getlength(t) for text in texts for t in text)) + 2 * _MARGIN
    top = _MARGIN + (_TITLE_FONT + _MARGIN if title else 0)
    width = max(left + sum(widths) + _GAP * (len(widths) - 1), round(large.getlength(title)) + _MARGIN)
    page = Image.new(
        "RGB", (width + _MARGIN, top + sum(heights) + 2 * _GAP * (len(rows) - 1) + _MARGIN), "white"
    )
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), title, _INK, large)
    for text, row, height in zip(texts, rows, heights, strict=True):
        for number, words in enumerate(text):
            draw.text((_MARGIN, top + line * number), words, _QUIET if number else _INK, font)
        x = left
        for tile, column in zip(row, widths, strict=False):
            page.paste(tile, (x, top))
            x += column + _GAP
        top += height + 2 * _GAP
    return page
