# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math

import pytest
import torch
from tests.losses.query_scenes import query_predictions
from tests.losses.scenes import SIZE, generator, make_targets
from tests.reference import set_prediction as reference

from boxwright.errors import ShapeError
from boxwright.losses.normalized_boxes import matched_boxes, predicted_boxes
from boxwright.losses.terms import BoxL1, QueryOverlap
from boxwright.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from boxwright.structures import Assignment, Predictions, Targets

TARGETS = make_targets([(3, 2, 40, 50), (20, 10, 90, 60)], [(0, 0, 30, 30), (1, 1, 1, 2)])
TERMS = [BoxL1(), QueryOverlap(), QueryOverlap(overlap="ciou")]


def pairs(valid: tuple[bool, ...] = (True, True, True, False)) -> Assignment:
    """Four pairs on both images, one with a box without area, the last one an unused slot."""
    mask = torch.tensor(valid)
    return Assignment(
        image=torch.tensor([0, 0, 1, 1]),
        anchor=torch.tensor([4, 0, 3, 2]),
        target=torch.tensor([0, 1, 1, 0]),
        valid=mask,
        weight=torch.tensor([1.0, 0.5, 1.0, 0.0], dtype=torch.float64) * mask,
        normalizer=torch.tensor(3.0, dtype=torch.float64),
    )


def boxes(preds: Predictions, pair: Assignment) -> list[tuple[list[float], list[float], float]]:
    """Predicted and true box, normalised centre form, and share of each pair."""
    height, width = SIZE
    wanted = xyxy_to_cxcywh(TARGETS.boxes / torch.tensor([width, height, width, height]))
    index = zip(pair.image.tolist(), pair.anchor.tolist(), pair.target.tolist(), pair.share.tolist(), strict=True)
    return [(preds.box_raw[i, a].tolist(), wanted[i, t].tolist(), share) for i, a, t, share in index]


def test_l1_equals_the_reference():
    preds = query_predictions(generator(0), 2, 5)

    got = BoxL1()(preds, TARGETS, pairs())

    expected = [sum(abs(x - y) for x, y in zip(a, b, strict=True)) * share for a, b, share in boxes(preds, pairs())]
    assert got.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("name", "index"), [("iou", 0), ("giou", 1)])
def test_overlap_equals_the_reference(name, index):
    preds = query_predictions(generator(1), 2, 5)

    got = QueryOverlap(overlap=name)(preds, TARGETS, pairs())

    expected = [(1 - reference.centre_overlaps(a, b)[index]) * share for a, b, share in boxes(preds, pairs())]
    assert got.tolist() == pytest.approx(expected, rel=1e-12)


# Without CIoU, whose weight of the aspect is a constant for differentiation.
@pytest.mark.parametrize("term", [BoxL1(), QueryOverlap(), QueryOverlap(overlap="iou"), QueryOverlap(overlap="diou")])
def test_gradcheck(term):
    preds = query_predictions(generator(2), 2, 5)
    pair = dataclasses.replace(pairs(), target=torch.tensor([0, 1, 0, 0]))

    def run(raw: torch.Tensor) -> torch.Tensor:
        return term(dataclasses.replace(preds, box_raw=raw), TARGETS, pair)

    assert torch.autograd.gradcheck(run, preds.box_raw)


@pytest.mark.parametrize("term", TERMS)
def test_pixels_from_another_decoder_give_the_same(term):
    # A decoder that gives px takes another way to shares of the image.
    preds = query_predictions(generator(3), 2, 5)
    height, width = SIZE
    pixels = cxcywh_to_xyxy(preds.box_raw.detach()) * torch.tensor([width, height, width, height])
    other = dataclasses.replace(preds, box_raw=pixels, decoder=lambda raw, points, strides, extra=None: raw)

    assert torch.allclose(term(other, TARGETS, pairs()), term(preds, TARGETS, pairs()), rtol=1e-12)
    assert torch.allclose(predicted_boxes(other), predicted_boxes(preds), rtol=1e-12)
    assert torch.allclose(matched_boxes(other, pairs())[:3], matched_boxes(preds, pairs())[:3], rtol=1e-12)


@pytest.mark.parametrize("term", TERMS)
def test_no_pairs_keep_the_graph_and_give_zero_gradient(term):
    preds, index = query_predictions(generator(4), 2, 5), torch.zeros(0, dtype=torch.int64)
    none = Assignment(index, index, index, index.bool(), index.double(), torch.tensor(1.0, dtype=torch.float64))

    contributions = term(preds, make_targets([], []), none)
    contributions.sum().backward()

    assert contributions.shape == (0,)
    assert preds.box_raw.grad.eq(0).all()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e300])
@pytest.mark.parametrize("term", TERMS)
def test_an_extreme_value_under_an_unused_slot_reaches_nothing(term, value):
    preds = query_predictions(generator(5), 2, 5)
    raw = preds.box_raw.detach().clone()
    raw[1, 2] = value
    raw.requires_grad_()

    got = term(dataclasses.replace(preds, box_raw=raw), TARGETS, pairs())
    got.sum().backward()

    assert got.isfinite().all()
    assert raw.grad.isfinite().all()
    assert raw.grad[1, 2].eq(0).all()


@pytest.mark.parametrize("term", TERMS)
def test_a_value_of_a_matched_box_is_not_hidden(term):
    preds = query_predictions(generator(5), 2, 5)
    raw = preds.box_raw.detach().clone()
    raw[0, 4] = math.nan

    got = term(dataclasses.replace(preds, box_raw=raw), TARGETS, pairs())

    assert got.isnan().tolist() == [True, False, False, False]


def test_oriented_boxes_are_refused():
    oriented = Targets(torch.zeros(2, 2).long(), torch.ones(2, 2, 5), torch.ones(2, 2).bool())

    with pytest.raises(ShapeError, match=r"Targets.boxes: set prediction expects axis-aligned boxes of 4"):
        BoxL1()(query_predictions(generator(0), 2, 5), oriented, pairs())
