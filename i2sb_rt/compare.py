"""A picture of two pictures: before and after, side by side, each under its label."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from i2sb_rt.image import Picture, to_pil

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_SMALLEST_SIDE: Final = 256
_GAP: Final = 8
_PAPER: Final = (24, 24, 24)
_INK: Final = (235, 235, 235)


def compare(before: Picture, after: Picture, labels: tuple[str, str]) -> Picture:
    """Draw both pictures on one sheet, wide ones above each other, small ones enlarged by a whole factor.

    before, after: of one size, or before smaller by a whole factor. labels: one line for each, cut at the edge.
    Returns an RGB picture; transparency is shown over the sheet's dark grey, pixels are otherwise as they are.
    """
    ratio = after.width // before.width
    if not ratio or (before.width * ratio, before.height * ratio) != (after.width, after.height):
        raise ValueError("the two pictures differ in size")
    factor = -(-_SMALLEST_SIDE // max(after.width, after.height))
    width, height = after.width * factor, after.height * factor
    font_size = min(40, max(14, width // 40))
    bar = font_size * 2
    stacked = width > 2 * height
    step = (0, height + bar + _GAP) if stacked else (width + _GAP, 0)
    sheet = Image.new("RGB", (width + step[0], height + bar + step[1]), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(font_size)
    for index, (picture, label) in enumerate(zip((before, after), labels, strict=True)):
        left, top = index * step[0], index * step[1]
        image = to_pil(picture).convert("RGBA").resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(image, (left, top + bar), image)
        text = _fitted(draw, label, font, width - font_size)
        draw.text((left + font_size // 2, top + bar // 2), text, _INK, font, anchor="lm")
    icc = after.icc if after.colour.ndim == 3 else None
    return Picture(np.asarray(sheet), None, icc)


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    """Return the text, its end replaced by an ellipsis where it is wider than `width` pixels."""
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."
