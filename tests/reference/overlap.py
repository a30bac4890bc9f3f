# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Overlaps of two corner boxes as plain numbers, from spec/losses B.2."""

import math

EPSILON = 1e-7


def iou(a, b):
    inside = _length(a[0], a[2], b[0], b[2]) * _length(a[1], a[3], b[1], b[3])
    return inside / _union(a, b, inside)


def giou(a, b):
    inside = _length(a[0], a[2], b[0], b[2]) * _length(a[1], a[3], b[1], b[3])
    width, height = _hull(a, b)
    hull = width * height + EPSILON
    return iou(a, b) - (hull - _union(a, b, inside)) / hull


def diou(a, b):
    width, height = _hull(a, b)
    gap = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    return iou(a, b) - gap / (width**2 + height**2 + EPSILON)


def ciou(a, b):
    (wa, ha), (wb, hb) = _sides(a), _sides(b)
    v = 4 / math.pi**2 * (math.atan(wa / ha) - math.atan(wb / hb)) ** 2
    return diou(a, b) - v / (1 - iou(a, b) + v + EPSILON) * v


def _sides(box):
    return box[2] - box[0], box[3] - box[1] + EPSILON


def _length(low_a, high_a, low_b, high_b):
    return max(0.0, min(high_a, high_b) - max(low_a, low_b))


def _union(a, b, inside):
    (wa, ha), (wb, hb) = _sides(a), _sides(b)
    return wa * ha + wb * hb - inside + EPSILON


def _hull(a, b):
    return max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
