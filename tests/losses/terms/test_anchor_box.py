# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses

import pytest
import torch
from tests.losses.anchor_scenes import PRIORS, joined, pyramid, random_maps
from tests.losses.scenes import generator, make_targets, random_predictions
from tests.reference import anchor_based as reference
from tests.reference import overlap as corners

from boxwright.errors import ShapeError
from boxwright.losses.assign import AnchorRatio
from boxwright.losses.terms import AnchorOverlap
from boxwright.ops.decode import Anchor
from boxwright.structures import Assignment, Predictions, Targets

GRID = pyramid()
TARGETS = make_targets([(3, 2, 40, 50), (20, 10, 90, 60)], [(0, 0, 30, 30), (1, 1, 12, 12)])


def scene(seed: int = 0) -> tuple[Predictions, Assignment]:
    preds = joined(random_maps(generator(seed), 2, GRID), GRID).final
    return preds, AnchorRatio()(preds, TARGETS)


def unused(pairs: Assignment, *rows: int) -> Assignment:
    """The same pairs with some of them made unused slots."""
    valid = pairs.valid.clone()
    valid[list(rows)] = False
    return dataclasses.replace(pairs, valid=valid, weight=pairs.weight * valid)


def test_equals_the_reference_of_every_claim():
    preds, pairs = scene()

    got = AnchorOverlap()(preds, TARGETS, pairs)

    expected = []
    boxes = [[tuple(box) for box in image] for image in TARGETS.boxes.tolist()]
    for level, (priors, shape, stride) in enumerate(zip(PRIORS, GRID.shapes, GRID.level_strides, strict=False)):
        rows = reference.claims(boxes, priors, shape, stride)
        for image, _, prior, row, column, wanted in rows:
            anchor = sum(GRID.level_sizes[:level]) + (prior * shape[0] + row) * shape[1] + column
            found = reference.decoded(preds.box_raw[image, anchor].tolist(), priors[prior], stride)
            expected.append((1 - reference.centred_ciou(found, wanted)) / len(rows))
    assert got.tolist() == pytest.approx(expected, rel=1e-10)


def test_the_decoder_says_the_same_in_pixels():
    preds, pairs = scene(1)

    pixels = preds.boxes_at(pairs)

    stride, prior = GRID.strides[pairs.anchor, None], GRID.prior_wh[pairs.anchor]
    cells = Anchor().in_cells(preds.raw_at(pairs), (prior / stride).double())
    corner = GRID.points[pairs.anchor] - stride / 2
    centre, half = corner + cells[:, :2] * stride, cells[:, 2:] * stride / 2
    assert torch.allclose(pixels, torch.cat((centre - half, centre + half), dim=1), rtol=1e-12)
    assert torch.allclose(preds.boxes[pairs.image, pairs.anchor], pixels, rtol=1e-12)


def test_the_decoder_needs_priors():
    with pytest.raises(ShapeError, match="grid with priors"):
        Anchor()(torch.zeros(1, 4), torch.zeros(1, 2), torch.ones(1))


def test_other_decoders_are_read_in_cells_too():
    preds = random_predictions(generator(0), 2)
    pairs = dataclasses.replace(scene()[1], anchor=torch.arange(len(scene()[1].anchor)) % 126)

    got = AnchorOverlap(overlap="giou")(preds, TARGETS, pairs)

    boxes, stride = preds.boxes_at(pairs), preds.grid.strides[pairs.anchor, None]
    wanted = TARGETS.boxes[pairs.image, pairs.target]
    for p, (a, b) in enumerate(zip((boxes / stride).tolist(), (wanted / stride).tolist(), strict=True)):
        assert got[p].item() == pytest.approx((1 - corners.giou(a, b)) * pairs.weight[p].item(), rel=1e-4)


def test_gradcheck():
    preds, pairs = scene(2)
    pairs = unused(pairs, 0)

    def run(raw: torch.Tensor) -> torch.Tensor:
        return AnchorOverlap()(dataclasses.replace(preds, box_raw=raw, table=None), TARGETS, pairs)

    assert torch.autograd.gradcheck(run, preds.box_raw.detach().clone().requires_grad_(), fast_mode=True)


def test_no_pairs_keep_the_graph():
    preds = joined(random_maps(generator(0), 2, GRID), GRID).final
    raw = preds.box_raw.detach().clone().requires_grad_()
    none = Targets(*(x[:, :0] for x in (TARGETS.labels, TARGETS.boxes, TARGETS.valid)))
    preds = dataclasses.replace(preds, box_raw=raw, table=None)

    got = AnchorOverlap()(preds, none, AnchorRatio()(preds, none))
    got.sum().backward()

    assert got.shape == (0,)
    assert raw.grad.eq(0).all()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 1e300])
def test_an_extreme_value_under_an_unused_slot_reaches_nothing(value):
    preds, pairs = scene(3)
    pairs = unused(pairs, 0)
    raw = preds.box_raw.detach().clone()
    held = ((pairs.image == pairs.image[0]) & (pairs.anchor == pairs.anchor[0])).nonzero()[:, 0].tolist()
    pairs = unused(pairs, *held)
    raw[pairs.image[0], pairs.anchor[0]] = value
    raw.requires_grad_()

    got = AnchorOverlap()(dataclasses.replace(preds, box_raw=raw, table=None), TARGETS, pairs)
    got.sum().backward()

    assert got.isfinite().all()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("value", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_saturated_boxes_stay_finite(value, dtype):
    preds, pairs = scene(4)
    raw = torch.full_like(preds.box_raw, value, dtype=dtype).detach().requires_grad_()

    got = AnchorOverlap()(dataclasses.replace(preds, box_raw=raw, table=None), TARGETS, pairs)
    got.sum().backward()

    assert got.isfinite().all()
    assert raw.grad.isfinite().all()


def test_a_value_that_is_not_a_number_is_not_hidden():
    preds, pairs = scene(5)
    raw = preds.box_raw.detach().clone()
    raw[pairs.image[0], pairs.anchor[0], 2] = torch.nan

    assert AnchorOverlap()(dataclasses.replace(preds, box_raw=raw, table=None), TARGETS, pairs)[0].isnan()
