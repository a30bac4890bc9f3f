# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the adapters say to mistakes that everybody makes once."""

import textwrap
from collections.abc import Callable

import torch

from boxwright.errors import BoxwrightError
from boxwright.losses import from_yolov5_maps, from_yolov8_maps, targets_from_rows

WIDTH = 120


def refusals() -> str:
    """A block of messages, by making the mistakes."""
    image, boxes = torch.zeros(1), torch.tensor([[0.5, 0.5, 0.98, 0.2]])
    maps = [torch.zeros(1, 4 * 8 + 3, 64 // stride, 96 // stride) for stride in (8, 16, 32)]
    cells = [[(1.25, 1.625)], [(1.875, 3.8125)], [(3.625, 2.8125)]]
    size = (64, 96)
    mistakes: tuple[Callable[[], object], ...] = (
        lambda: from_yolov8_maps(maps, (8, 16, 32), num_classes=3),
        lambda: from_yolov8_maps(maps, (8, 16, 32), num_classes=3, num_bins=8, image_size=(64, 100)),
        lambda: from_yolov5_maps(maps, cells, (8, 16, 32), anchor_unit="pixel", num_classes=30),
        lambda: targets_from_rows(image, image, boxes, batch=1, image_size=size, unit="pixel_cxcywh"),
        lambda: targets_from_rows(image, image, boxes * 96, batch=1, image_size=size),
        lambda: targets_from_rows(image, image + 80, boxes, batch=1, image_size=size, num_classes=80),
    )
    said = []
    for mistake in mistakes:
        try:
            mistake()
        except BoxwrightError as error:
            said.append(textwrap.fill(f"{type(error).__name__}: {error}", WIDTH, subsequent_indent="    "))
        else:
            raise AssertionError("a mistake was accepted")
    return "\n".join(("```text", *said, "```"))
