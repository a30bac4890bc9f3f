# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Scene: what was found in one image and what is really there, as numpy arrays on the host, small enough to send."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.evaluation.run_lengths import areas_of, mask_counts, outline_counts
from boxwright.results import Detections, GroundTruth


def _no_boxes() -> np.ndarray:
    return np.zeros((0, 4), np.float32)


def _no_labels() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class EvaluatedScene:
    """Detections (best first) and labels of one image, px of the original image."""

    index: int  # position in the dataset: the order that results are computed in, whatever rank saw the image
    boxes: Float32[np.ndarray, "n box"]  # xyxy, or cx cy w h and radians
    scores: Float32[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    true_boxes: Float32[np.ndarray, "m box"]
    true_labels: Int64[np.ndarray, " m"]
    image_size: tuple[int, int]
    # Detections inside are neither right nor wrong; the class of each region, -1 for all classes.
    ignore_boxes: Float32[np.ndarray, "i 4"] = field(default_factory=_no_boxes)
    ignore_labels: Int64[np.ndarray, " i"] = field(default_factory=_no_labels)
    ignore_masks: tuple[bytes, ...] | None = None  # of each region where masks are compared; None: the boxes
    true_areas: Float64[np.ndarray, " m"] | None = None  # px^2, of the file or the outline; None: of the boxes
    masks: tuple[bytes, ...] = ()  # compressed run lengths, see `run_lengths.py`
    true_masks: tuple[bytes, ...] = ()
    keypoints: Float32[np.ndarray, "n K 3"] | None = None
    true_keypoints: Float32[np.ndarray, "m K 3"] | None = None
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)  # (n, values) probabilities
    true_attributes: Mapping[str, np.ndarray] = field(default_factory=dict)  # (m,) or (m, values), -1 not labelled

    @staticmethod
    def of(index: int, found: Detections, truth: GroundTruth) -> "EvaluatedScene":
        """The scene of one image; detections are put best first (stable).

        Raises:
            ShapeError: only one of the two has oriented boxes.
        """
        scores = found.scores.detach().float().cpu().numpy()
        order = np.argsort(-scores, kind="stable")
        boxes, true_boxes = _numbers(found.boxes), _numbers(truth.boxes)
        width = boxes.shape[1] if len(boxes) else true_boxes.shape[1]
        if len(true_boxes) and true_boxes.shape[1] != width:
            raise ShapeError(
                f"Evaluator.update: image {index}: expected labels with boxes of {width} numbers, as the detections "
                f"have, got {true_boxes.shape[1]}"
            )
        regions, classes = _regions(truth)
        true_masks = _true_masks(truth, true_boxes)
        found_masks = found.masks or ()
        return EvaluatedScene(
            index=index,
            boxes=boxes.reshape(-1, width)[order],
            scores=scores[order],
            labels=found.labels.cpu().numpy().astype(np.int64)[order],
            true_boxes=true_boxes.reshape(-1, width),
            true_labels=truth.labels.cpu().numpy().astype(np.int64),
            image_size=truth.image_size,
            ignore_boxes=regions,
            ignore_labels=classes,
            ignore_masks=_ignore_masks(truth, regions),
            true_areas=_true_areas(truth, true_masks),
            masks=tuple(mask_counts(found_masks[row], truth.image_size) for row in order) if found_masks else (),
            true_masks=true_masks,
            keypoints=None if found.keypoints is None else _numbers(found.keypoints)[order],
            true_keypoints=None if truth.keypoints is None else _numbers(truth.keypoints),
            attributes={name: _numbers(part)[order] for name, part in (found.attributes or {}).items()},
            true_attributes={name: part.cpu().numpy() for name, part in (truth.attributes or {}).items()},
        )

    @property
    def region_masks(self) -> tuple[bytes, ...]:
        """Compressed run lengths of the ignore regions, of their boxes where no shape is known."""
        if self.ignore_masks is not None:
            return self.ignore_masks
        return tuple(outline_counts((), region, self.image_size) for region in self.ignore_boxes)

    @property
    def oriented(self) -> bool:
        """Whether boxes are cx cy w h and radians."""
        return int(self.boxes.shape[1]) == 5


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Areas, px^2, of boxes of either form, in float64.

    >>> box_areas(np.float32([[0, 0, 4, 2]])).tolist(), box_areas(np.float32([[9, 9, 4, 2, 1]])).tolist()
    ([8.0], [8.0])
    """
    wide = boxes.astype(np.float64)
    if boxes.shape[-1] == 5:
        return np.abs(wide[..., 2] * wide[..., 3])
    return (wide[..., 2] - wide[..., 0]) * (wide[..., 3] - wide[..., 1])


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _true_masks(truth: GroundTruth, boxes: np.ndarray) -> tuple[bytes, ...]:
    if truth.outlines is None:
        return ()
    rows = zip(truth.outlines, boxes, strict=True)
    return tuple(outline_counts(outline, box, truth.image_size) for outline, box in rows)


def _ignore_masks(truth: GroundTruth, regions: np.ndarray) -> tuple[bytes, ...] | None:
    if truth.ignore_outlines is None:
        return None
    rows = zip(truth.ignore_outlines, regions, strict=True)
    return tuple(outline_counts(outline, region, truth.image_size) for outline, region in rows)


def _true_areas(truth: GroundTruth, masks: tuple[bytes, ...]) -> np.ndarray | None:
    if truth.areas is not None:
        return truth.areas.double().cpu().numpy()
    return areas_of(masks, truth.image_size) if truth.outlines is not None else None


def _regions(truth: GroundTruth) -> tuple[np.ndarray, np.ndarray]:
    if truth.ignore is None:
        return _no_boxes(), _no_labels()
    boxes = truth.ignore.float().cpu().numpy().reshape(-1, 4)
    if truth.ignore_labels is None:
        return boxes, np.full(len(boxes), -1, np.int64)
    return boxes, truth.ignore_labels.cpu().numpy().astype(np.int64)
