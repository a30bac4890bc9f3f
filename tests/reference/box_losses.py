# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Similarities of two corner boxes (px) as plain numbers, as their papers write them."""

import math

from tests.reference.overlap import iou


def eiou(a, b):
    (cx, cy), (width, height) = _gap(a, b), _hull(a, b)
    (wa, ha), (wb, hb) = _sides(a), _sides(b)
    penalty = (cx**2 + cy**2) / (width**2 + height**2) + (wa - wb) ** 2 / width**2 + (ha - hb) ** 2 / height**2
    return iou(a, b) - penalty


def siou(a, b):
    (cx, cy), (width, height) = _gap(a, b), _hull(a, b)
    (wa, ha), (wb, hb) = _sides(a), _sides(b)
    sigma = math.hypot(cx, cy)
    angle = 1 - 2 * math.sin(math.asin(abs(cy) / sigma) - math.pi / 4) ** 2 if sigma > 0 else 0.0
    gamma = 2 - angle
    distance = sum(1 - math.exp(-gamma * (gap / side) ** 2) for gap, side in ((cx, width), (cy, height)))
    shape = sum((1 - math.exp(-abs(p - q) / max(p, q))) ** 4 for p, q in ((wa, wb), (ha, hb)))
    return iou(a, b) - (distance + shape) / 2


def mpdiou(a, b, image_size):
    diagonal = image_size[0] ** 2 + image_size[1] ** 2
    upper = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
    lower = (a[2] - b[2]) ** 2 + (a[3] - b[3]) ** 2
    return iou(a, b) - upper / diagonal - lower / diagonal


def wiou(a, b):
    (cx, cy), (width, height) = _gap(a, b), _hull(a, b)
    return 1 - math.exp((cx**2 + cy**2) / (width**2 + height**2)) * (1 - iou(a, b))


def nwd(a, b, scale):
    (cx, cy), (wa, ha), (wb, hb) = _gap(a, b), _sides(a), _sides(b)
    return math.exp(-math.sqrt(cx**2 + cy**2 + ((wa - wb) / 2) ** 2 + ((ha - hb) / 2) ** 2) / scale)


def inner_iou(a, b, ratio):
    def scaled(box):
        cx, cy, (w, h) = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, _sides(box)
        return [cx - w * ratio / 2, cy - h * ratio / 2, cx + w * ratio / 2, cy + h * ratio / 2]

    return iou(scaled(a), scaled(b))


def _gap(a, b):
    return (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2


def _sides(box):
    return box[2] - box[0], box[3] - box[1]


def _hull(a, b):
    return max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
