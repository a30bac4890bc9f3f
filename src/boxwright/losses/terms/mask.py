# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The mask term: each pair's coefficients times its image's prototypes, against the target's mask inside its box."""

from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor
from torch.nn import functional

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.losses.functional import bce_with_logits
from boxwright.losses.terms.base import Divisor, Scope
from boxwright.ops.collective import sum_over_ranks, world_size
from boxwright.structures import Assignment, Predictions, Targets


@component
class PrototypeMasks:
    """Binary cross-entropy of each pair's mask inside the target's box, divided by the area of the box.

    So a pair's value is its mean over the box, up to the rounding of the crop to whole pixels. Not weighted by the
    pair's quality. Labels are `Targets.instance_map`, or `Targets.masks` where both or only those are given.

    Source: YOLACT, Bolya et al. 2019, arXiv:1904.02689. Deviation: the crop follows the target box, and no term on
    the prototypes; as YOLOv5 and YOLOv8 train.
    """

    kind: Literal["prototype_masks"] = "prototype_masks"
    # Mean over all pairs of the batch (YOLOv8); or over the pairs of each image and level, summed over levels (YOLOv5).
    reduction: Literal["pairs", "image_levels"] = "pairs"
    # A pixel is inside by its index, half a pixel off, as published; or by its centre.
    crop: Literal["index", "centre"] = "index"
    # Where labels and prototypes differ in size: labels take the nearest pixel, or prototypes are interpolated.
    resize: Literal["labels", "prototypes"] = "labels"

    scope: ClassVar[Scope] = "pair"
    divides_by: ClassVar[Divisor] = "own"

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " P"]:
        """Contribution of each pair.

        Raises:
            ShapeError: predictions without coefficients or prototypes, targets without masks or with oriented boxes.
        """
        maps = self.maps(preds, targets, coefs := preds.coefs_at(pairs))
        logits = torch.einsum("pq,pqhw->phw", coefs, maps.prototypes[pairs.image])
        costs = bce_with_logits(logits, seen_by(maps.truth, pairs).to(logits.dtype))
        sums = torch.where(inside(maps.crops[pairs.image, pairs.target], costs), costs, torch.zeros_like(costs))
        return self.mean_over_boxes(sums.sum(dim=(1, 2)), maps, preds, pairs)

    def maps(self, preds: Predictions, targets: Targets, coefs: Float[Tensor, "P Q"]) -> "MaskMaps":
        """Prototypes and labels of one size, and where each target's box lies on them.

        Raises:
            ShapeError: predictions without prototypes, targets without masks or with oriented boxes.
        """
        prototypes, truth = self._one_size(preds, targets, coefs)
        boxes = targets.boxes.to(coefs.dtype)
        boxes = torch.where(targets.valid[..., None], boxes, torch.zeros_like(boxes))
        size, mask_size = preds.image_size, (prototypes.shape[-2], prototypes.shape[-1])
        x1, y1, x2, y2 = boxes.unbind(dim=-1)
        area = (x2 - x1) * (y2 - y1) * (mask_size[0] * mask_size[1] / (size[0] * size[1]))
        return MaskMaps(prototypes, truth, self._crops(boxes, size, mask_size), area)

    def mean_over_boxes(
        self, sums: Float[Tensor, " P"], maps: "MaskMaps", preds: Predictions, pairs: Assignment
    ) -> Float[Tensor, " P"]:
        """Each pair's sum over its crop divided by the area of its box, as a share of the mean over pairs."""
        pixels = maps.area[pairs.image, pairs.target]
        counts = pairs.valid & (pixels > 0)
        value = torch.where(counts, sums / torch.where(counts, pixels, 1.0), torch.zeros_like(sums))
        return value / self._divisor(preds, pairs).to(value.dtype)

    def _one_size(self, preds: Predictions, targets: Targets, coefs: Tensor) -> tuple[Tensor, Tensor]:
        if preds.prototypes is None:
            raise ShapeError(f"Predictions.prototypes: expected (B, Q, h, w), got None for role '{preds.role}'")
        truth = targets.instance_map if targets.masks is None else targets.masks
        if truth is None:
            raise ShapeError("Targets.instance_map: expected (B, h, w), or `masks` (B, M, h, w), got neither")
        if targets.oriented:
            raise ShapeError("Targets.boxes: PrototypeMasks expected (B, M, 4), got oriented boxes")
        batch, channels = preds.prototypes.shape[:2]
        if (batch, channels) != (len(truth), coefs.shape[-1]):
            raise ShapeError(
                f"Predictions.prototypes: expected (B, Q) = ({len(truth)}, {coefs.shape[-1]}) as in the targets and "
                f"Predictions.mask_coefs, got ({batch}, {channels})"
            )
        prototypes = preds.prototypes.to(coefs.dtype)
        size = (prototypes.shape[-2], prototypes.shape[-1])
        if truth.shape[-2:] == size:
            return prototypes, truth
        if self.resize == "labels":
            return prototypes, resize_nearest(truth, size)
        wanted = (truth.shape[-2], truth.shape[-1])
        return functional.interpolate(prototypes, size=wanted, mode="bilinear", align_corners=False), truth

    def _crops(self, boxes: Tensor, size: tuple[int, int], mask_size: tuple[int, int]) -> Int64[Tensor, "B M 4"]:
        """First column and row of each box in mask pixels, and those behind the last."""
        (height, width), (rows, columns) = size, mask_size
        shift = 0.0 if self.crop == "index" else -0.5
        # A pixel is inside from the edge on: the first one is the edge rounded up.
        x = torch.ceil(boxes[..., 0::2] * (columns / width) + shift).clamp(0, columns)
        y = torch.ceil(boxes[..., 1::2] * (rows / height) + shift).clamp(0, rows)
        return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1).long()

    def _divisor(self, preds: Predictions, pairs: Assignment) -> Float[Tensor, ""] | Float[Tensor, " P"]:
        valid = pairs.valid.to(pairs.weight.dtype)
        if self.reduction == "pairs":
            return sum_over_ranks(valid.sum()).clamp(min=1)
        grid, batch = preds.cells, preds.logits.shape[0]
        group = pairs.image * len(grid.shapes) + grid.level[pairs.anchor]
        count = valid.new_zeros(batch * len(grid.shapes)).index_add_(0, group, valid)
        images: float | Tensor = float(batch)
        if world_size() > 1:
            images = sum_over_ranks(torch.full((), float(batch), device=valid.device))
        return count.clamp(min=1)[group] * images


class MaskMaps(NamedTuple):
    """What the masks of pairs are computed from, in mask pixels."""

    prototypes: Float[Tensor, "B Q h w"]
    truth: Int32[Tensor, "B h w"] | Bool[Tensor, "B M h w"]
    crops: Int64[Tensor, "B M 4"]  # first column, first row, and the column and row behind the last, of every slot
    area: Float[Tensor, "B M"]  # of every slot's box, before it is rounded to whole pixels


def seen_by(truth: Int32[Tensor, "B h w"] | Bool[Tensor, "B M h w"], pairs: Assignment) -> Bool[Tensor, "P h w"]:
    """Where each pair's target is seen."""
    if truth.ndim == 4:
        return truth[pairs.image, pairs.target]
    return truth[pairs.image] == pairs.target[:, None, None] + 1


def inside(crops: Int64[Tensor, "P 4"], like: Float[Tensor, "P h w"]) -> Bool[Tensor, "P h w"]:
    """Whether each pixel lies in its crop."""
    left, top, right, bottom = crops[..., None, None].unbind(dim=1)
    row, column = (torch.arange(size, device=like.device) for size in like.shape[1:])
    down = (row[:, None] >= top) & (row[:, None] < bottom)
    return down & (column >= left) & (column < right)


def resize_nearest(
    maps: Bool[Tensor, "*n H W"] | Int32[Tensor, "*n H W"] | Int64[Tensor, "*n H W"], size: tuple[int, int]
) -> Bool[Tensor, "*n h w"] | Int32[Tensor, "*n h w"] | Int64[Tensor, "*n h w"]:
    """Maps at another size, each pixel that of index floor(index * source / size).

    >>> resize_nearest(torch.arange(6).view(1, 6), (1, 4)).tolist()
    [[0, 1, 3, 4]]
    """
    rows, columns = (
        torch.arange(new, device=maps.device) * old // new for new, old in zip(size, maps.shape[-2:], strict=True)
    )
    return maps.index_select(-2, rows).index_select(-1, columns)
