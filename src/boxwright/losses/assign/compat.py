# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Four decisions of task-aligned assignment on which published code differs from what its authors meant.

Each is a switch of `TaskAligned`; its default is our reading, the other value repeats the published numbers.

Source: spec/losses H.3 to H.6.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

ZeroMetric = Literal["drop", "lowest_index"]
ConflictScope = Literal["containing", "all"]
Validity = Literal["mask", "sum"]


def counting_objects(
    boxes: Float[Tensor, "M box"], valid: Bool[Tensor, " M"], validity: Validity
) -> Bool[Tensor, " M"]:
    """Which slots count as objects: used ones with an area, or used ones whose box numbers add up to more than 0.

    The sum loses boxes that lie mostly left of or above the image (spec/losses H.5).
    """
    if validity == "sum":
        return valid & (boxes.sum(dim=-1) > 0)
    width, height = sides(boxes)
    return valid & (width > 0) & (height > 0)


def sides(boxes: Float[Tensor, "M box"]) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
    """Width and height, px."""
    if boxes.shape[-1] == 5:
        return boxes[:, 2], boxes[:, 3]
    return boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]


def large_enough(
    boxes: Float[Tensor, "M box"], smallest: float, image_size: tuple[int, int], swapped: bool
) -> Bool[Tensor, " M"]:
    """Whether both sides reach `smallest` px.

    Swapped: w is measured in heights of the image (H, W) and h in its widths (spec/losses H.6).
    """
    width, height = sides(boxes)
    if swapped:
        rows, columns = image_size
        width, height = width / columns * rows, height / rows * columns
    return (width >= smallest) & (height >= smallest)


def may_match(
    candidates: Bool[Tensor, "M A"], metric: Float[Tensor, "M A"], zero_metric: ZeroMetric
) -> Bool[Tensor, "M A"]:
    """Which of an object's best cells become its positives: candidates with a metric, or any candidates.

    A best-k over all cells of the image, of which most have the metric 0, fills up with whatever comes first
    (spec/losses H.3).
    """
    # Not `> 0`: a metric that is not a number has to reach the loss, where the run stops.
    return candidates if zero_metric == "lowest_index" else candidates & (metric != 0)


def rivals(inside: Bool[Tensor, "M A"], scope: ConflictScope) -> Bool[Tensor, "M A"]:
    """Which objects may win a contested cell: those that contain it, or all.

    Of all, slot 0 wins where no one overlaps the cell (spec/losses H.4).
    """
    return inside if scope == "containing" else torch.ones_like(inside)
