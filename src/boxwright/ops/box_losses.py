# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Further similarities of paired boxes for box terms, beside the IoU family of `ops/overlap.py`.

Each is at most 1, and 1 (up to the epsilons) for equal boxes with area; a term's loss is one minus it. Boxes are px
xyxy. Values and slopes are finite for boxes without area, equal boxes and boxes far apart.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.overlap import EPSILON, paired_overlap

BoxSimilarityName = Literal["eiou", "siou", "mpdiou", "wiou", "nwd"]
SHAPE_POWER = 4  # theta of SIoU's shape cost; the paper finds values from 2 to 6 and uses 4
NWD_SCALE = 12.8  # px, the mean object size of the paper's data set (AI-TOD); a dataset's own mean size fits better
TINY_SQUARE = 1e-12  # px squared; keeps the slope of a root finite where two boxes are equal


def eiou(a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"]) -> Float[Tensor, "*#n"]:
    """IoU minus three shares of the smallest enclosing box: centre distance, difference of widths, of heights; squared.

    >>> round(eiou(torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([0.0, 0.0, 10.0, 5.0])).item(), 4)
    0.2188

    Source: Zhang et al. 2021, arXiv:2101.08158, eq. 8 (without the focal factor).
    """
    dx, dy = _centre_gap(a, b)
    (wa, ha), (wb, hb) = _sides(a), _sides(b)
    hull_w, hull_h = _hull(a, b)
    wide, high = hull_w**2 + EPSILON, hull_h**2 + EPSILON
    distance = (dx**2 + dy**2) / (hull_w**2 + hull_h**2 + EPSILON)
    return paired_overlap(a, b) - distance - (wa - wb) ** 2 / wide - (ha - hb) ** 2 / high


def siou(a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"]) -> Float[Tensor, "*#n"]:
    """IoU minus half of a distance cost, which is larger off the axes, and of a cost of the difference in shape.

    >>> round(siou(torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([0.0, 0.0, 10.0, 5.0])).item(), 4)
    0.4293

    Source: Gevorgyan 2022, arXiv:2205.12740. The angle cost 1 - 2 sin^2(asin(x) - pi / 4) is written as the sine of
    twice the angle, 2 |dx dy| / (dx^2 + dy^2), whose slope is bounded everywhere but at equal centres.
    """
    dx, dy = _centre_gap(a, b)
    (wa, ha), (wb, hb) = _sides(a), _sides(b)
    hull_w, hull_h = _hull(a, b)
    angle = 2 * (dx * dy).abs() / (dx**2 + dy**2 + EPSILON)
    steep = 2 - angle
    distance = (
        2 - torch.exp(-steep * (dx / (hull_w + EPSILON)) ** 2) - torch.exp(-steep * (dy / (hull_h + EPSILON)) ** 2)
    )
    wide, high = (
        -torch.expm1(-(p - q).abs() / (torch.maximum(p.abs(), q.abs()) + EPSILON)) for p, q in ((wa, wb), (ha, hb))
    )
    return paired_overlap(a, b) - (distance + wide**SHAPE_POWER + high**SHAPE_POWER) / 2


def mpdiou(a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"], image_size: tuple[int, int]) -> Float[Tensor, "*#n"]:
    """IoU minus the squared distances of the two upper left and of the two lower right corners by the image's diagonal.

    >>> a, b = torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([0.0, 0.0, 10.0, 5.0])
    >>> round(mpdiou(a, b, (30, 40)).item(), 4)  # 0.5 - 25 / 2500
    0.49

    Source: Ma and Xu 2023, arXiv:2307.07662.
    """
    height, width = image_size
    upper = (a[..., 0] - b[..., 0]) ** 2 + (a[..., 1] - b[..., 1]) ** 2
    lower = (a[..., 2] - b[..., 2]) ** 2 + (a[..., 3] - b[..., 3]) ** 2
    return paired_overlap(a, b) - (upper + lower) / (height**2 + width**2)


def wiou(a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"]) -> Float[Tensor, "*#n"]:
    """One minus the loss of Wise-IoU v1: 1 - IoU, scaled up by the distance of the centres.

    The factor is exp(squared distance / squared diagonal of the enclosing box), whose denominator is a constant for
    differentiation, so that it does not pull boxes apart.

    >>> a, b = torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([0.0, 0.0, 10.0, 5.0])
    >>> round(wiou(a, b).item(), 4)  # 1 - 0.5 * exp(6.25 / 200)
    0.4841

    Source: Tong et al. 2023, arXiv:2301.10051, eq. 6.
    """
    dx, dy = _centre_gap(a, b)
    hull_w, hull_h = _hull(a.detach(), b.detach())
    factor = torch.exp((dx**2 + dy**2) / (hull_w**2 + hull_h**2 + EPSILON))
    return 1 - factor * (1 - paired_overlap(a, b))


def nwd(a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"], scale: float = NWD_SCALE) -> Float[Tensor, "*#n"]:
    """exp(-W / scale), W the Wasserstein distance (px) of two normal distributions with the boxes' centres and sides.

    Smooth where small boxes miss each other and the IoU is 0.

    >>> a, b = torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([3.0, 4.0, 13.0, 14.0])
    >>> round(nwd(a, b, scale=5.0).item(), 4)  # centres 5 px apart: exp(-1)
    0.3679

    Source: Wang et al. 2021, arXiv:2110.13389.
    """
    dx, dy = _centre_gap(a, b)
    (wa, ha), (wb, hb) = _sides(a), _sides(b)
    squared = dx**2 + dy**2 + ((wa - wb) ** 2 + (ha - hb) ** 2) / 4
    return torch.exp(-torch.sqrt(squared + TINY_SQUARE) / scale)


def inner_change(a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"], ratio: float) -> Float[Tensor, "*#n"]:
    """IoU of both boxes scaled by `ratio` around their centres, minus their IoU: what Inner-IoU adds to a similarity.

    Below 1 it sharpens the slope of boxes that overlap well, above 1 it reaches boxes that hardly overlap.

    >>> a, b = torch.tensor([0.0, 0.0, 10.0, 10.0]), torch.tensor([0.0, 0.0, 10.0, 5.0])
    >>> round(inner_change(a, b, 0.5).item(), 4)  # heights 2.5..7.5 and 1.25..3.75: 6.25 / 31.25 - 0.5
    -0.3

    Source: Zhang et al. 2023, arXiv:2311.02877.
    """
    return paired_overlap(_scaled(a, ratio), _scaled(b, ratio)) - paired_overlap(a, b)


def box_similarity(
    a: Float[Tensor, "*#n 4"],
    b: Float[Tensor, "*#n 4"],
    name: BoxSimilarityName,
    image_size: tuple[int, int],
    scale: float = NWD_SCALE,
) -> Float[Tensor, "*#n"]:
    """The similarity of that name; `image_size` (H, W) is for "mpdiou", `scale` (px) for "nwd"."""
    if name == "mpdiou":
        return mpdiou(a, b, image_size)
    return nwd(a, b, scale) if name == "nwd" else PLAIN[name](a, b)


PLAIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"eiou": eiou, "siou": siou, "wiou": wiou}
SIMILARITY_NAMES = get_args(BoxSimilarityName)


def _centre_gap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return (
        (a[..., 0] + a[..., 2] - b[..., 0] - b[..., 2]) / 2,
        (a[..., 1] + a[..., 3] - b[..., 1] - b[..., 3]) / 2,
    )


def _sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


def _hull(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Sides of the smallest box around both, also when a predicted one is turned inside out."""
    low = torch.minimum(torch.minimum(a[..., :2], a[..., 2:]), torch.minimum(b[..., :2], b[..., 2:]))
    high = torch.maximum(torch.maximum(a[..., :2], a[..., 2:]), torch.maximum(b[..., :2], b[..., 2:]))
    width, height = (high - low).unbind(dim=-1)
    return width, height


def _scaled(boxes: Tensor, ratio: float) -> Tensor:
    low, high = boxes[..., :2], boxes[..., 2:]
    centre, half = (low + high) / 2, (high - low) * (ratio / 2)
    return torch.cat((centre - half, centre + half), dim=-1)
