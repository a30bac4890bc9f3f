# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Overlap of two oriented boxes as plain numbers, from spec/losses B.3, by the textbook form of the determinants."""

import math

EPSILON = 1e-7


def probiou(a, b, floor=0.0):
    (xx_a, yy_a, xy_a), (xx_b, yy_b, xy_b) = _covariance(a, floor), _covariance(b, floor)
    x, y, z = xx_a + xx_b, yy_a + yy_b, xy_a + xy_b
    dx, dy = a[0] - b[0], a[1] - b[1]
    det = x * y - z * z
    det_a, det_b = max(xx_a * yy_a - xy_a**2, 0.0), max(xx_b * yy_b - xy_b**2, 0.0)
    distance = 0.25 * (x * dy**2 + y * dx**2) / (det + EPSILON) - 0.5 * z * dx * dy / (det + EPSILON)
    distance += 0.5 * math.log(det / (4 * math.sqrt(det_a * det_b) + EPSILON) + EPSILON)
    distance = min(max(distance, EPSILON), 100.0)
    return 1 - math.sqrt(1 - math.exp(-distance) + EPSILON)


def _covariance(box, floor):
    p, q, theta = box[2] ** 2 / 12 + floor, box[3] ** 2 / 12 + floor, box[4]
    cos, sin = math.cos(theta), math.sin(theta)
    return p * cos**2 + q * sin**2, p * sin**2 + q * cos**2, (p - q) * cos * sin
