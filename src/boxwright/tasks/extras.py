# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What kept rows say beside box and class, in pixels of the original image: masks, keypoints, angles, attributes.

Everything is gathered by the kept candidates of one image; nothing is computed for the others.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.ops.keypoints import decode_keypoints
from boxwright.ops.letterbox import Letterbox
from boxwright.ops.masks import instance_masks
from boxwright.results import InstanceMask
from boxwright.structures import Predictions, at_least_float32
from boxwright.vocabulary import AttributeSpec, Vocabulary


def masks_at(
    preds: Predictions, image: int, anchors: Int64[Tensor, " N"], boxes: Float[Tensor, "N 4"], box: Letterbox
) -> tuple[InstanceMask | None, ...] | None:
    """The mask of every row, None where it has no pixel; None where the model has no masks. `boxes` are original px."""
    if preds.mask_coefs is None or preds.prototypes is None:
        return None
    coefs = at_least_float32(preds.mask_coefs[image, anchors.to(preds.mask_coefs.device)]).cpu().numpy()
    if not len(coefs):
        return ()
    prototypes = at_least_float32(preds.prototypes[image]).cpu().numpy()
    return tuple(instance_masks(coefs, prototypes, boxes.numpy(), box))


def keypoints_at(
    preds: Predictions, image: int, anchors: Int64[Tensor, " N"], box: Letterbox
) -> Float[Tensor, "N K 3"] | None:
    """Keypoints, px of the original image and clipped to it, with visibility in [0, 1]; None without a keypoint head.

    Visibility is 1 where the head gives none. Source: spec/architectures 6.2 and 6.3.
    """
    if preds.keypoints_raw is None:
        return None
    rows = anchors.to(preds.keypoints_raw.device)
    raw = at_least_float32(preds.keypoints_raw[image, rows])
    grid = preds.cells
    points, strides = grid.points[rows].to(raw.dtype), grid.strides[rows].to(raw.dtype)
    places = decode_keypoints(raw[..., :2], points, strides, preds.keypoint_form).cpu()
    seen = raw[..., 2:3].sigmoid().cpu() if raw.shape[-1] == 3 else torch.ones_like(places[..., :1])
    return torch.cat((box.points_to_original(places), seen), dim=-1)


def attributes_at(
    preds: Predictions, image: int, anchors: Int64[Tensor, " N"], specs: Sequence[AttributeSpec]
) -> Mapping[str, Float[Tensor, "N values"]] | None:
    """Probability of every value of every attribute; None without attributes.

    Raises:
        ShapeError: the model has no answer for one of them.
    """
    if not specs:
        return None
    found = {}
    for spec in specs:
        logits = (preds.attribute_logits or {}).get(spec.name)
        if logits is None or logits.shape[-1] != len(spec.values):
            got = "none" if logits is None else f"{logits.shape[-1]}"
            raise ShapeError(f"attributes.{spec.name}: expected {len(spec.values)} raw values, got {got}")
        rows = at_least_float32(logits[image, anchors.to(logits.device)]).cpu()
        found[spec.name] = rows.sigmoid() if spec.multi_label else rows.softmax(dim=-1)
    return found


def regularised(boxes: Float[Tensor, "N 5"]) -> Float[Tensor, "N 5"]:
    """The same oriented boxes with w >= h and the angle in [0, pi).

    >>> [round(value, 4) for value in regularised(torch.tensor([[5.0, 5.0, 2.0, 4.0, 0.0]]))[0].tolist()]
    [5.0, 5.0, 4.0, 2.0, 1.5708]

    Source: spec/architectures 6.4.
    """
    cx, cy, w, h, theta = boxes.unbind(dim=-1)
    swap = h > w
    turned = torch.where(swap, theta + math.pi / 2, theta) % math.pi
    turned = torch.where(turned >= math.pi, torch.zeros_like(turned), turned)  # the remainder may round up to pi
    return torch.stack((cx, cy, torch.where(swap, h, w), torch.where(swap, w, h), turned), dim=-1)


def extras_at(
    preds: Predictions, image: int, anchors: Int64[Tensor, " N"], box: Letterbox, vocabulary: Vocabulary
) -> dict[str, object]:
    """Fields of `Detections` that do not decide which rows stay."""
    keypoints = keypoints_at(preds, image, anchors, box)
    attributes = attributes_at(preds, image, anchors, vocabulary.attributes)
    return {
        "keypoints": keypoints,
        "keypoint_spec": None if keypoints is None else vocabulary.keypoints,
        "attributes": attributes,
        "attribute_specs": vocabulary.attributes if attributes is not None else (),
    }
