# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Random scenes of every task: detections are labels moved a little, with wild ones, empty images and classes."""

import math

import cv2
import numpy as np
import torch

from boxwright.results import Detections, GroundTruth, InstanceMask
from boxwright.vocabulary import KeypointSpec

SIZE = (160, 220)
NAMES = ("a", "b", "c", "d")
KEYPOINTS = KeypointSpec(count=3, dims=3)
CLASSES = 3  # the last name is never labelled


def star(rng, centre, radius, tips=7):
    """A polygon around a centre."""
    angle = np.linspace(0, 2 * np.pi, tips, endpoint=False)
    far = radius * rng.uniform(0.5, 1, tips)
    return np.stack((centre[0] + far * np.cos(angle), centre[1] + far * np.sin(angle)), axis=1).astype(np.float32)


def fill(polygon):
    """Its pixels as an InstanceMask, or None where it is outside."""
    canvas = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(canvas, [np.round(polygon).astype(np.int32)], 1)
    rows, columns = np.flatnonzero(canvas.any(1)), np.flatnonzero(canvas.any(0))
    if not len(rows):
        return None
    pixels = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] > 0
    return InstanceMask(int(columns[0]), int(rows[0]), pixels)


def random_truths(images, seed, *, areas=False, ignore=False):
    """Labels of some images with everything; every fifth has none."""
    rng = np.random.default_rng(seed)
    truths = []
    for image in range(images):
        count = 0 if image % 5 == 3 else int(rng.integers(1, 7))
        outlines, boxes, points = [], np.zeros((count, 4), np.float32), np.zeros((count, 3, 3), np.float32)
        for n in range(count):
            polygon = star(rng, rng.uniform((30, 30), (190, 130)), rng.uniform(8, 60))
            outlines.append((polygon,) if n % 3 else (polygon, star(rng, polygon.mean(0) + 20, 10)))
            boxes[n] = (*polygon.min(0), *polygon.max(0))
            points[n, :, :2] = polygon[:3]
            points[n, :, 2] = rng.integers(0, 3, 3) * (image % 4 != 1 or n > 0)  # some objects have no point
        points[points[..., 2] == 0] = 0
        truths.append(
            GroundTruth(
                boxes=torch.from_numpy(boxes),
                labels=torch.from_numpy(rng.integers(0, CLASSES, count)),
                image_size=SIZE,
                outlines=tuple(outlines),
                keypoints=torch.from_numpy(points),
                areas=torch.from_numpy(rng.uniform(100, 12_000, count).astype(np.float32)) if areas else None,
                ignore=torch.tensor([[10.0, 10, 120, 90]]) if ignore and image % 2 else None,
                ignore_labels=torch.tensor([image % CLASSES]) if ignore and image % 2 else None,
            )
        )
    return truths


def random_found(truths, seed, wild=3):
    """Detections near the labels, of mostly the right class, and some anywhere."""
    rng = np.random.default_rng(seed + 1000)
    found = []
    for number, truth in enumerate(truths):
        boxes, masks, points, labels = [], [], [], []
        nothing = number % 7 == 5
        for _ in range(0 if nothing else 2):
            for outline, label in zip(truth.outlines, truth.labels.tolist(), strict=True):
                polygon = outline[0] + rng.normal(0, 3, 2).astype(np.float32)
                if (mask := fill(polygon)) is None:
                    continue
                masks.append(mask)
                boxes.append((*polygon.min(0), *polygon.max(0)))
                points.append(polygon[:3] + rng.normal(0, 2, (3, 2)))
                labels.append(label if rng.random() < 0.8 else int(rng.integers(0, len(NAMES))))
        for _ in range(0 if nothing else wild):
            polygon = star(rng, rng.uniform((30, 30), (190, 130)), 30)
            masks.append(fill(polygon))
            boxes.append((*polygon.min(0), *polygon.max(0)))
            points.append(polygon[:3])
            labels.append(int(rng.integers(0, len(NAMES))))
        scores = torch.from_numpy(rng.permutation(np.linspace(0.05, 0.95, len(labels)))).float()
        order = scores.argsort(descending=True)
        places = torch.from_numpy(np.array(points, np.float32).reshape(-1, 3, 2))[order]
        found.append(
            Detections(
                boxes=torch.tensor(np.array(boxes, np.float32).reshape(-1, 4))[order],
                scores=scores[order],
                labels=torch.tensor(labels, dtype=torch.int64)[order],
                names=NAMES,
                image_size=SIZE,
                masks=tuple(masks[i] for i in order.tolist()),
                keypoints=torch.cat((places, torch.ones(len(labels), 3, 1)), dim=-1),
                keypoint_spec=KEYPOINTS,
            )
        )
    return found


def perfect(truths):
    """Detections that say exactly what is labelled, except that hidden keypoints are in the middle."""
    found = []
    for truth in truths:
        count = len(truth.labels)
        points = truth.keypoints.clone()
        hidden = points[..., 2] == 0
        centres = (truth.boxes[:, None, :2] + truth.boxes[:, None, 2:]) / 2
        points[..., :2] = torch.where(hidden[..., None], centres, points[..., :2])
        found.append(
            Detections(
                truth.boxes,
                torch.linspace(0.9, 0.5, count),
                truth.labels,
                NAMES,
                truth.image_size,
                masks=tuple(painted(outline) for outline in truth.outlines),
                keypoints=points,
                keypoint_spec=KEYPOINTS,
            )
        )
    return found


def painted(outline):
    """The pixels that COCO's rule gives an outline."""
    from faster_coco_eval.core import mask as coder

    parts = coder.frPyObjects([part.reshape(-1).tolist() for part in outline], *SIZE)
    return InstanceMask(0, 0, np.asarray(coder.decode(coder.merge(parts))).astype(bool))


def turned(truths, seed=0):
    """The same labels with oriented boxes."""
    rng = np.random.default_rng(seed)
    made = []
    for truth in truths:
        x1, y1, x2, y2 = truth.boxes.unbind(1)
        theta = torch.from_numpy(rng.uniform(0, math.pi, len(x1)).astype(np.float32))
        boxes = torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, (y2 - y1) / 3, theta), dim=1)
        made.append(
            GroundTruth(boxes, truth.labels, truth.image_size, ignore=truth.ignore, ignore_labels=truth.ignore_labels)
        )
    return made


def found_turned(truths, seed=0, noise=1.5, wild=4, times=2):
    """Oriented detections near oriented labels."""
    rng = np.random.default_rng(seed + 7)
    found = []
    for truth in truths:
        near = truth.boxes.repeat(times, 1)
        near = near + torch.from_numpy(rng.normal(0, noise, near.shape)).float() * torch.tensor([1, 1, 1, 1, 0.05])
        far = torch.from_numpy(rng.uniform((0, 0, 5, 5, 0), (220, 160, 60, 30, 3), (wild, 5))).float()
        boxes = torch.cat((near, far))
        boxes[:, 2:4] = boxes[:, 2:4].abs()
        labels = torch.cat((truth.labels.repeat(times), torch.from_numpy(rng.integers(0, len(NAMES), wild))))
        scores = torch.from_numpy(rng.permutation(np.linspace(0.05, 0.95, len(labels)))).float()
        found.append(Detections(boxes, scores, labels, NAMES, truth.image_size))
    return found
