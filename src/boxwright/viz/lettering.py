# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Text on pictures, in the font that comes with matplotlib."""

import math
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8

Image = UInt8[np.ndarray, "_ _ 3"]
Colour = tuple[int, int, int]  # RGB


def font_px(shape: tuple[int, ...]) -> int:
    """Height of letters, px, in an image of this shape."""
    return max(10, round(min(max(shape[:2]), 4000) / 40))


def tag(canvas: np.ndarray, text: str, corners: list[int], paint: Colour, thick: int) -> None:
    """Text on a filled strip at the top left corner of a box, moved inside where it would leave the image."""
    size = font_px(canvas.shape)
    mask = _letters(text, size)
    height, width = mask.shape[0] + size // 3, mask.shape[1] + size // 2
    left = int(np.clip(corners[0] - thick // 2, 0, max(canvas.shape[1] - width, 0)))
    above = corners[1] - height
    top = int(np.clip(above if above >= 0 else corners[1], 0, max(canvas.shape[0] - height, 0)))
    canvas[top : top + height, left : left + width] = paint
    red, green, blue = paint
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 150
    write(canvas, text, left + size // 4, top + size // 6, size, (0, 0, 0) if bright else (255, 255, 255))


def write(canvas: np.ndarray, text: str, left: int, top: int, size: int, paint: Colour) -> None:
    """Text with its upper left corner at (`left`, `top`), into the canvas; what leaves it is cut off."""
    mask = _letters(text, size)
    part = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    share = mask[: part.shape[0], : part.shape[1], None].astype(np.float32) / 255
    part[:] = np.round(part * (1 - share) + np.array(paint, np.float32) * share)


@lru_cache(maxsize=1024)
def _letters(text: str, size: int) -> np.ndarray:
    """Coverage 0..255 of a line of text, `size` px high, in the font of matplotlib; "?" for signs it lacks."""
    from matplotlib import font_manager, ft2font

    font = ft2font.FT2Font(font_manager.findfont("DejaVu Sans"))
    font.set_size(size * 0.75, 72)
    font.set_text("".join(sign if font.get_char_index(ord(sign)) else "?" for sign in text) or " ", 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    letters = np.asarray(font.get_image())
    # Lines of letters without and with parts below the base line must stand equally high: pad to a common box.
    below = math.ceil(font.get_descent() / 64)
    canvas = np.zeros((size, max(letters.shape[1], 1)), np.uint8)
    bottom = min(size, round(size * 0.78) + below)
    top = max(0, bottom - letters.shape[0])
    canvas[top:bottom] = letters[letters.shape[0] - (bottom - top) :]
    canvas.setflags(write=False)
    return canvas
