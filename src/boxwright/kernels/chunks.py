# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Cutting a batch into pieces that stay in the processor's cache; one piece on an accelerator."""

from collections.abc import Sequence

import torch

# Elementwise work on 2 MB of float32 stays in a core's cache; larger pieces run at memory speed.
CACHE_ELEMENTS = 1 << 19
DEVICE_ELEMENTS = 1 << 27  # an accelerator prefers few large kernels; this only bounds the memory of temporaries


def image_chunks(sizes: Sequence[int], device: torch.device, cache_elements: int | None = None) -> list[slice]:
    """Consecutive images whose sizes add up to what the device likes to work on at once, at least one image each.

    >>> image_chunks([3, 3, 3, 9], torch.device("cpu"), cache_elements=6)
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    limit = (cache_elements or CACHE_ELEMENTS) if device.type == "cpu" else DEVICE_ELEMENTS
    chunks: list[slice] = []
    first = held = 0
    for image, size in enumerate(sizes):
        if image > first and held + size > limit:
            chunks.append(slice(first, image))
            first, held = image, 0
        held += size
    return [*chunks, slice(first, len(sizes))]


def pieces(total: int, device: torch.device, cache_items: int) -> list[slice]:
    """Consecutive items, at most `cache_items` at once on a CPU, all at once on an accelerator.

    >>> pieces(5, torch.device("cpu"), 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = cache_items if device.type == "cpu" else max(total, 1)
    return [slice(first, min(first + step, total)) for first in range(0, total, step)]
