# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""From raw predictions to Detections: threshold, suppression, and back to the pixels of the original image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from boxwright.errors import ConfigError, ShapeError
from boxwright.ops.letterbox import Letterbox
from boxwright.ops.nms import class_aware_nms
from boxwright.ops.rotated_nms import rotated_nms
from boxwright.ops.scores import class_probabilities, score_limit
from boxwright.results import Detections
from boxwright.structures import ImageOutputs, Outputs, Predictions, at_least_float32
from boxwright.tasks.base import SelectOptions
from boxwright.tasks.extras import extras_at, masks_at, regularised
from boxwright.vocabulary import Vocabulary

MAX_CANDIDATES = 30_000  # best-scored rows of an image that suppression looks at


@dataclass(frozen=True, slots=True)
class Kept:
    """The rows of one image that suppression keeps, best first, on the host."""

    boxes: Float[Tensor, "N box"]  # px xyxy of the network input, or px cx cy w h and radians
    scores: Float[Tensor, " N"]
    labels: Int64[Tensor, " N"]
    anchors: Int64[Tensor, " N"]  # candidate each row comes from: what a task gathers its extra outputs by


def detections(
    outputs: Outputs | ImageOutputs,
    letterboxes: Sequence[Letterbox],
    *,
    options: SelectOptions,
    vocabulary: Vocabulary,
    paths: Sequence[str | None] | None = None,
) -> list[Detections]:
    """What was found in every image, whatever head found it: see `postprocess` and `finish`.

    Raises:
        ShapeError: these are the outputs of a classifier, or there is not one letterbox (and path) per image.
        ConfigError: a listed class does not exist.
    """
    if not isinstance(outputs, Outputs):
        raise ShapeError(f"{vocabulary.task}: expected the outputs of a detector, got those of a classifier")
    preds = outputs.detection
    return finish(preds, postprocess(preds, options), letterboxes, vocabulary=vocabulary, paths=paths)


def postprocess(preds: Predictions, options: SelectOptions) -> list[Kept]:
    """The kept rows of every image of the batch.

    A score is what `ops.scores.class_probabilities` says. A candidate counts when a score is above `conf`. With
    `multi_label` it gives one row per class above `conf`, otherwise one row of its best class; `classes` then keeps
    only the listed labels. What a better row overlaps is suppressed: boxes by their overlap, oriented ones by probIoU.
    A head that gives each object once (`Predictions.end_to_end`) needs none of that: its rows are the best (candidate,
    class) pairs. Only candidates that may count are decoded. Equal scores keep the order of candidates. Syncs with the
    device for the counts of rows and for the rows.

    Source: spec/architectures 6.4, 6.6 and 6.7. The two steps of 6.6 (best candidates, then best pairs of
    those) are one here: the best k pairs are always pairs of the best k candidates.

    Raises:
        ConfigError: a listed class does not exist.
    """
    conf, classes = options.conf, options.classes
    multi_label = options.multi_label or preds.end_to_end
    _check_classes(classes, preds.logits.shape[2])
    with torch.no_grad():
        # Reduce over classes first: nothing is above its limit.
        limit = score_limit(preds.logits, preds.exclusive, preds.objectness)
        image, anchor = (limit > conf).nonzero(as_tuple=True)
        logits = _pick(preds.logits, image, anchor)
        boxes = _decode(preds, image, anchor)
        if not multi_label and not preds.exclusive and preds.objectness is None:
            # The limit is the best score: no other class has to be looked at.
            row, label = torch.arange(len(image), device=image.device), logits.argmax(dim=1)
            score = limit[image, anchor]
        else:
            row, label, score = _above(preds, logits, image, anchor, conf, multi_label)
        if classes is not None:
            wanted = torch.isin(label, torch.tensor(list(classes), dtype=torch.int64, device=label.device))
            row, label, score = row[wanted], label[wanted], score[wanted]
        sizes = torch.bincount(image[row], minlength=preds.logits.shape[0]).tolist()
        columns = (boxes[row], score, label, anchor[row])
        parts = zip(*(torch.split(column.cpu(), sizes) for column in columns), strict=True)
        choose: Callable[..., Kept] = _best if preds.end_to_end else _suppress
        return [choose(*part, options) for part in parts]


def finish(
    preds: Predictions,
    kept: Sequence[Kept],
    letterboxes: Sequence[Letterbox],
    *,
    vocabulary: Vocabulary,
    paths: Sequence[str | None] | None = None,
) -> list[Detections]:
    """Detections in pixels of the original images, with everything that the kept candidates say beside box and class.

    Boxes and keypoints are clipped to the image, oriented boxes are not. A row whose mask has no pixel is dropped.

    Raises:
        ShapeError: there is not one letterbox (and path) per image.
    """
    paths = [None] * len(kept) if paths is None else paths
    if not len(kept) == len(letterboxes) == len(paths):
        raise ShapeError(f"finish: expected {len(kept)} letterboxes and paths, got {len(letterboxes)} and {len(paths)}")
    with torch.no_grad():
        rows = enumerate(zip(kept, letterboxes, paths, strict=True))
        return [_finished(preds, image, *row, vocabulary) for image, row in rows]


def _finished(
    preds: Predictions, image: int, kept: Kept, box: Letterbox, path: str | None, vocabulary: Vocabulary
) -> Detections:
    oriented = kept.boxes.shape[-1] == 5
    boxes = regularised(box.oriented_to_original(kept.boxes)) if oriented else box.to_original(kept.boxes)
    masks = None if oriented else masks_at(preds, image, kept.anchors, boxes, box)
    held = tuple(mask for mask in masks or () if mask is not None)
    rows = torch.arange(len(boxes))
    if masks is not None:
        rows = torch.tensor([row for row, mask in enumerate(masks) if mask is not None], dtype=torch.int64)
    extras: dict[str, Any] = extras_at(preds, image, kept.anchors[rows], box, vocabulary)
    return Detections(
        boxes=boxes[rows],
        scores=kept.scores[rows],
        labels=kept.labels[rows],
        names=vocabulary.names,
        image_size=box.source,
        class_ids=vocabulary.class_ids,
        path=path,
        masks=None if masks is None else held,
        **extras,
    )


def _above(
    preds: Predictions, logits: Tensor, image: Tensor, anchor: Tensor, conf: float, multi_label: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Row among the candidates, label and score of everything above `conf`: every class of each, or its best one."""
    objectness = None if preds.objectness is None else preds.objectness[image, anchor]
    scores = class_probabilities(logits, preds.exclusive, objectness)
    if multi_label:
        row, label = (scores > conf).nonzero(as_tuple=True)
    else:
        best = logits.argmax(dim=1)  # by logits: probabilities near 1 round to equal ones
        row = (scores.gather(1, best[:, None])[:, 0] > conf).nonzero()[:, 0]
        label = best[row]
    return row, label, scores[row, label]


def _pick(dense: Tensor, image: Tensor, anchor: Tensor) -> Tensor:
    """dense[image, anchor]; several times faster where images follow one another in memory."""
    batch, anchors = dense.shape[:2]
    if batch == 1 or dense.stride(0) == anchors * dense.stride(1):
        return dense.flatten(0, 1).index_select(0, image * anchors + anchor)
    return dense[image, anchor]


def _decode(preds: Predictions, image: Tensor, anchor: Tensor) -> Tensor:
    angle = None if preds.angle is None else at_least_float32(preds.angle[image, anchor])
    return preds.decode_rows(at_least_float32(_pick(preds.box_raw, image, anchor)), anchor, angle)


def _best(boxes: Tensor, scores: Tensor, labels: Tensor, anchors: Tensor, options: SelectOptions) -> Kept:
    first = torch.argsort(scores, descending=True, stable=True)[: options.max_det]
    return Kept(boxes[first], scores[first], labels[first], anchors[first])


def _suppress(boxes: Tensor, scores: Tensor, labels: Tensor, anchors: Tensor, options: SelectOptions) -> Kept:
    if len(scores) > MAX_CANDIDATES:
        first = torch.argsort(scores, descending=True, stable=True)[:MAX_CANDIDATES]
        boxes, scores, labels, anchors = boxes[first], scores[first], labels[first], anchors[first]
    nms = rotated_nms if boxes.shape[-1] == 5 else class_aware_nms
    keep = nms(boxes, scores, None if options.agnostic else labels, options.iou, options.max_det)
    return Kept(boxes[keep], scores[keep], labels[keep], anchors[keep])


def _check_classes(classes: Sequence[int] | None, num_classes: int) -> None:
    for label in classes or ():
        if not 0 <= label < num_classes:
            raise ConfigError(f"classes: expected class indices from 0 to {num_classes - 1}, got {label}")
