# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The overlap of masks beside that of boxes."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ShapeError
from boxwright.losses.terms.mask import resize_nearest
from boxwright.structures import Predictions, Targets, at_least_float32

CPU_PIXELS = 1 << 20  # worked on at once
DEVICE_PIXELS = 1 << 26


@component
class MaskFit:
    """Mean of the overlap of boxes and the IoU of masks, for an object's best candidates by boxes alone.

    A predicted mask is where coefficients times prototypes exceed 0 inside the predicted box; labels are brought to the
    size of the prototypes by nearest pixel. Only each object's 3 * topk best pairs are asked; the others' masks count
    as 0.

    Source: spec/losses F.8.
    """

    kind: Literal["mask_fit"] = "mask_fit"

    shortlist: ClassVar[int] = 3
    outside: ClassVar[float] = 0.5

    def __call__(
        self,
        preds: Predictions,
        targets: Targets,
        image: Int64[Tensor, " p"],
        anchor: Int64[Tensor, " p"],
        target: Int64[Tensor, " p"],
        overlap: Float[Tensor, " p"],
    ) -> Float[Tensor, " p"]:
        """The fit of each pair; all of one image.

        Raises:
            ShapeError: predictions without coefficients or prototypes, or targets without masks.
        """
        if preds.mask_coefs is None or preds.prototypes is None:
            raise ShapeError("Predictions: expected `mask_coefs` and `prototypes` for MaskFit, got None")
        if targets.instance_map is None and targets.masks is None:
            raise ShapeError("Targets.instance_map: expected (B, h, w), or `masks` (B, M, h, w), for MaskFit, got None")
        if len(image) == 0:
            return overlap
        pixels = preds.prototypes.shape[-2] * preds.prototypes.shape[-1]
        step = max((CPU_PIXELS if overlap.device.type == "cpu" else DEVICE_PIXELS) // max(pixels, 1), 1)
        # Tensors of one element, not numbers: nothing waits for the device.
        prototypes = at_least_float32(preds.prototypes.index_select(0, image[:1])[0])
        boxes = _in_pixels(preds, image, anchor, (prototypes.shape[1], prototypes.shape[2]))
        parts = []
        for first in range(0, len(image), step):
            rows = slice(first, first + step)
            coefs = at_least_float32(preds.mask_coefs[image[rows], anchor[rows]])
            mask = torch.einsum("pq,qhw->phw", coefs, prototypes) > 0
            mask &= _inside(boxes[rows], mask)
            truth = _truth(targets, image[:1], target[rows], (mask.shape[1], mask.shape[2]))
            both, either = ((of.sum(dim=(1, 2), dtype=overlap.dtype)) for of in (mask & truth, mask | truth))
            parts.append(both / either.clamp(min=1))
        return (overlap + torch.cat(parts)) / 2


def _in_pixels(preds: Predictions, image: Tensor, anchor: Tensor, size: tuple[int, int]) -> Tensor:
    """Predicted boxes in pixels of the prototypes."""
    grid, raw = preds.cells, at_least_float32(preds.box_raw[image, anchor])
    boxes = preds.decoder(raw, grid.points[anchor].to(raw.dtype), grid.strides[anchor].to(raw.dtype))
    height, width = preds.image_size
    x, y = size[1] / width, size[0] / height
    return torch.stack((boxes[:, 0] * x, boxes[:, 1] * y, boxes[:, 2] * x, boxes[:, 3] * y), dim=-1)


def _inside(boxes: Tensor, like: Tensor) -> Tensor:
    """Pixels whose index lies in the box, as the mask term crops."""
    x1, y1, x2, y2 = boxes[:, :, None].unbind(dim=1)
    row, column = (torch.arange(size, device=like.device) for size in like.shape[1:])
    across, down = (column >= x1) & (column < x2), (row >= y1) & (row < y2)
    return down[:, :, None] & across[:, None, :]


def _truth(targets: Targets, image: Tensor, target: Tensor, size: tuple[int, int]) -> Tensor:
    """(p, h, w) of the labels' masks."""
    if targets.masks is not None:
        masks = targets.masks.index_select(0, image)[0].index_select(0, target)
        return masks if tuple(masks.shape[-2:]) == size else resize_nearest(masks, size)
    assert targets.instance_map is not None
    held = targets.instance_map.index_select(0, image)
    held = held if tuple(held.shape[-2:]) == size else resize_nearest(held, size)
    return held == (target + 1)[:, None, None]
