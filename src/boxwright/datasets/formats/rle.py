# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Run-length masks of COCO files: column by column, beginning with the number of unset pixels.

Source: spec/datasets 3. Counts come from strangers, so every one is checked before it is used.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool


class RleError(ValueError):
    """The mask cannot be decoded; the message says why."""


def decode_rle(rle: Any, size: tuple[int, int]) -> np.ndarray:
    """The bool mask, (height, width), of `{"size": [h, w], "counts": list or text}`.

    Raises:
        RleError: not such a mapping, another size than the image's, or counts that do not fill the mask.
    """
    stated = rle.get("size") if isinstance(rle, dict) else None
    if not isinstance(stated, list) or list(stated) != list(size):
        raise RleError(f"mask size is {stated}, the image has {list(size)} (height, width)")
    counts = _counts(rle.get("counts"))
    if (counts < 0).any() or counts.sum() != size[0] * size[1]:
        raise RleError(f"the counts of the mask add up to {counts.sum()}, the image has {size[0] * size[1]} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[::-1]).T


def encode_rle(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """A mask as `decode_rle` reads it, its counts as a list.

    >>> encode_rle(np.array([[False, True], [False, True]]))
    {'size': [2, 2], 'counts': [2, 2]}
    """
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    counts = np.diff(edges, prepend=0, append=flat.size).tolist()
    return {"size": list(mask.shape), "counts": counts}


def _counts(counts: Any) -> np.ndarray:
    if isinstance(counts, str):
        return np.array(_decompress(counts), np.int64)
    if isinstance(counts, list) and all(type(count) is int and abs(count) < 2**31 for count in counts):
        return np.array(counts, np.int64)
    raise RleError("counts of the mask: expected a list of whole numbers or a compressed text")


def _decompress(text: str) -> list[int]:
    """Five bits a character, lowest first, bit six says that more follow; from the third on, differences by two."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            raise RleError(f"counts of the mask: character {character!r} is not part of a compressed text")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise RleError("counts of the mask end in the middle of a number")
    return counts
