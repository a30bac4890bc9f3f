# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Terms on oriented boxes: overlap, distances in both frames, angle."""

import dataclasses
import math

import pytest
import torch
from tests.losses.scenes import BINS, generator, make_targets, random_predictions
from tests.losses.terms.test_box import nothing, pairs
from tests.reference.probiou import probiou

from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.terms import Angle, BoxOverlap, DistanceBins, DistanceL1
from boxwright.ops.decode import Oriented
from boxwright.structures import Predictions, Targets

BOXES = torch.tensor(
    [
        [[20.0, 26.0, 37.0, 48.0, 0.3], [55.0, 35.0, 70.0, 50.0, -1.2]],
        [[15.0, 15.0, 30.0, 30.0, 2.0], [1.5, 1.5, 1.0, 1.0, 0.0]],
    ],
    dtype=torch.float64,
)
TARGETS = Targets(torch.zeros(2, 2, dtype=torch.int64), BOXES, torch.ones(2, 2, dtype=torch.bool))
TERMS = [BoxOverlap(overlap="probiou", cov_floor=0.01), DistanceBins(), DistanceBins(rotated=False), Angle()]


def scene(bins: int = BINS, dtype: torch.dtype = torch.float64) -> Predictions:
    source = generator(0)
    preds = random_predictions(source, 2, bins=bins, dtype=dtype)
    angle = torch.rand(preds.logits.shape[:2], generator=source, dtype=torch.float64) * 3 - 0.7
    return dataclasses.replace(preds, decoder=Oriented(num_bins=bins), angle=angle.to(dtype).requires_grad_())


def expected_distances(preds: Predictions, image: int, anchor: int) -> list[float]:
    """In cells, by hand."""
    if preds.decoder.num_bins == 1:
        return preds.box_raw[image, anchor].tolist()
    found = []
    for side in preds.box_raw[image, anchor].view(4, -1).tolist():
        total = sum(math.exp(z) for z in side)
        found.append(sum(k * math.exp(z) / total for k, z in enumerate(side)))
    return found


def wanted_distances(preds: Predictions, image: int, anchor: int, slot: int, rotated: bool) -> list[float]:
    """From the cell's centre to the sides of the true box, in cells."""
    cx, cy, w, h, theta = BOXES[image, slot].tolist()
    theta = theta if rotated else 0.0
    (px, py), stride = preds.grid.points[anchor].tolist(), preds.grid.strides[anchor].item()
    dx, dy = cx - px, cy - py
    u, v = dx * math.cos(theta) + dy * math.sin(theta), -dx * math.sin(theta) + dy * math.cos(theta)
    return [x / stride for x in (w / 2 - u, h / 2 - v, w / 2 + u, h / 2 + v)]


def shares() -> list[tuple[int, int, int, float]]:
    chosen = pairs()
    parts = (chosen.image, chosen.anchor, chosen.target, chosen.share)
    return list(zip(*(part.tolist() for part in parts), strict=True))


@pytest.mark.parametrize("floor", [0.0, 0.01])
@pytest.mark.parametrize("unit", ["cell", "pixel"])
def test_overlap_equals_the_reference_in_its_unit(unit, floor):
    preds = scene()

    got = BoxOverlap(overlap="probiou", unit=unit, cov_floor=floor)(preds, TARGETS, pairs())

    expected = []
    for image, anchor, slot, share in shares():
        (px, py), stride = preds.grid.points[anchor].tolist(), preds.grid.strides[anchor].item()
        left, top, right, bottom = (d * stride for d in expected_distances(preds, image, anchor))
        theta, u, v = preds.angle[image, anchor].item(), (right - left) / 2, (bottom - top) / 2
        cos, sin = math.cos(theta), math.sin(theta)
        box = [px + u * cos - v * sin, py + u * sin + v * cos, left + right, top + bottom]
        size = stride if unit == "cell" else 1.0
        wanted = BOXES[image, slot].tolist()
        a, b = ([*(x / size for x in values[:4]), turn] for values, turn in ((box, theta), (wanted, wanted[4])))
        expected.append((1 - probiou(a, b, floor)) * share)
    assert got.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rotated", [True, False])
def test_bins_equal_a_loop_in_both_frames(rotated):
    preds = scene()

    got = DistanceBins(rotated=rotated)(preds, TARGETS, pairs())

    expected = []
    for image, anchor, slot, share in shares():
        total = 0.0
        sides = preds.box_raw[image, anchor].view(4, -1).log_softmax(dim=1).tolist()
        for log_p, d in zip(sides, wanted_distances(preds, image, anchor, slot, rotated), strict=True):
            d = min(max(d, 0), BINS - 1.01)
            low = math.floor(d)
            total -= (1 - d + low) * log_p[low] + (d - low) * log_p[low + 1]
        expected.append(total / 4 * share)
    assert got.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rotated", [True, False])
def test_l1_equals_a_loop_in_both_frames(rotated):
    preds = scene(bins=1)

    got = DistanceL1(rotated=rotated)(preds, TARGETS, pairs())

    expected = []
    for image, anchor, slot, share in shares():
        stride = preds.grid.strides[anchor].item()
        wanted = wanted_distances(preds, image, anchor, slot, rotated)
        errors = [abs(a - b) for a, b in zip(expected_distances(preds, image, anchor), wanted, strict=True)]
        sizes = (stride / 96, stride / 64, stride / 96, stride / 64)
        expected.append(sum(error * size for error, size in zip(errors, sizes, strict=True)) / 4 * share)
    assert got.tolist() == pytest.approx(expected, rel=1e-9)


def test_l1_of_an_axis_aligned_hand_computed_pair():
    # Cell 0 of stride 8 at (4, 4); one cell to every side is (-4, -4, 12, 12); wanted (0, 0, 8, 16).
    preds = random_predictions(generator(0), 1, bins=1)
    preds = dataclasses.replace(preds, box_raw=torch.ones_like(preds.box_raw))
    one = pairs((True, False, False, False))
    chosen = dataclasses.replace(one, anchor=torch.zeros_like(one.anchor), image=torch.zeros_like(one.image))

    got = DistanceL1()(preds, make_targets([(0, 0, 8, 16), (0, 0, 1, 1)]), chosen)

    # Errors 4 of 96, 4 of 64, 4 of 96, 4 of 64 px; share 0.5 / 2.
    assert got.tolist() == pytest.approx([(4 / 96 + 4 / 64) / 2 * 0.25, 0, 0, 0])


def test_l1_needs_a_head_with_one_bin():
    with pytest.raises(ShapeError, match=f"DistanceL1: expected a head with one bin, got {BINS}; use DistanceBins"):
        DistanceL1()(scene(), TARGETS, pairs())


@pytest.mark.parametrize("term", [*TERMS, DistanceL1()], ids=repr)
def test_gradcheck(term):
    preds = scene(bins=1 if isinstance(term, DistanceL1) else BINS)

    def run(raw: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        return term(dataclasses.replace(preds, box_raw=raw, angle=angle), TARGETS, pairs())

    assert torch.autograd.gradcheck(run, (preds.box_raw, preds.angle), fast_mode=True)


@pytest.mark.parametrize("term", [*TERMS, DistanceL1()], ids=repr)
def test_no_pairs_keep_the_graph_and_give_zero_gradient(term):
    preds = scene(bins=1 if isinstance(term, DistanceL1) else BINS)
    empty = Targets(*(x[:, :0] for x in (TARGETS.labels, TARGETS.boxes, TARGETS.valid)))

    contributions = term(preds, empty, nothing())
    contributions.sum().backward()

    assert contributions.shape == (0,)
    reached = preds.angle if isinstance(term, Angle) else preds.box_raw
    assert reached.grad.eq(0).all()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 1e300])
@pytest.mark.parametrize("term", [*TERMS, DistanceL1()], ids=repr)
def test_an_extreme_value_under_an_unused_slot_reaches_nothing(term, value):
    preds = scene(bins=1 if isinstance(term, DistanceL1) else BINS)
    raw, angle = preds.box_raw.detach().clone(), preds.angle.detach().clone()
    raw[1, 125], angle[1, 125] = value, value
    raw.requires_grad_()
    angle.requires_grad_()

    got = term(dataclasses.replace(preds, box_raw=raw, angle=angle), TARGETS, pairs())
    got.sum().backward()

    assert got.isfinite().all()
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in (raw, angle))
    assert got[3] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_a_box_collapsed_to_a_point_has_a_finite_gradient(term, dtype):
    # Logits of 1e4 put all distances into the first bin: width and height are exactly 0.
    preds = scene(dtype=dtype)
    raw = torch.full_like(preds.box_raw, -1e4).unflatten(-1, (4, BINS))
    raw[..., 0] = 1e4
    raw = raw.flatten(-2).detach().requires_grad_()

    got = term(dataclasses.replace(preds, box_raw=raw), TARGETS, pairs())
    got.sum().backward()

    assert got.isfinite().all()
    assert raw.grad is None or raw.grad.isfinite().all()


@pytest.mark.parametrize(
    ("overlap", "turned", "message"),
    [("ciou", True, "'ciou' expects boxes of 4 numbers, got Predictions with 5"), ("probiou", False, "5 numbers, got")],
)
def test_the_overlap_has_to_be_one_of_the_boxes_kind(overlap, turned, message):
    preds = scene() if turned else random_predictions(generator(0), 2)

    with pytest.raises(ShapeError, match=message):
        BoxOverlap(overlap=overlap)(preds, TARGETS, pairs())


def test_a_floor_belongs_to_probiou():
    with pytest.raises(ConfigError, match=r"cov_floor: expected 0, .* got 0.01 with 'ciou'"):
        BoxOverlap(cov_floor=0.01)
