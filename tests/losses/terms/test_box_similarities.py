# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`BoxOverlap` with the similarities of `ops/box_losses.py`, and with the inner parts of boxes."""

import dataclasses

import pytest
import torch
from tests.losses.scenes import SIZE, generator, random_predictions
from tests.losses.terms.test_box import TARGETS, distances, nothing, pairs
from tests.reference import box_losses as reference
from tests.reference.overlap import ciou, iou

from boxwright.errors import ConfigError
from boxwright.losses.terms import BoxOverlap
from boxwright.structures import Targets

SIMILAR = {
    "eiou": reference.eiou,
    "siou": reference.siou,
    "mpdiou": lambda a, b: reference.mpdiou(a, b, SIZE),
    "wiou": reference.wiou,
    "nwd": lambda a, b: reference.nwd(a, b, 12.8),
}
TERMS = [*(BoxOverlap(overlap=name) for name in SIMILAR), BoxOverlap(inner_ratio=0.75)]


@pytest.mark.parametrize("unit", ["cell", "pixel", "normalized"])
@pytest.mark.parametrize("name", SIMILAR)
def test_compares_pixels_whatever_the_unit(name, unit):
    preds, chosen = random_predictions(generator(0), 2), pairs()

    got = BoxOverlap(overlap=name, unit=unit)(preds, TARGETS, chosen)

    expected = []
    for p, (box, _, _) in enumerate(distances(preds, chosen)):
        wanted = TARGETS.boxes[chosen.image[p], chosen.target[p]].tolist()
        expected.append((1 - SIMILAR[name](box, wanted)) * chosen.weight[p].item() / 2.0)
    # The epsilons, 1e-7 px squared of boxes of at least some px.
    assert got.tolist() == pytest.approx(expected, rel=1e-6)


def test_nwd_scale_is_a_setting():
    preds, chosen = random_predictions(generator(0), 2), pairs()

    got = BoxOverlap(overlap="nwd", nwd_scale=40.0)(preds, TARGETS, chosen)

    box, wanted = distances(preds, chosen)[0][0], TARGETS.boxes[0, 0].tolist()
    assert got[0].item() == pytest.approx((1 - reference.nwd(box, wanted, 40.0)) * 0.25, rel=1e-6)


@pytest.mark.parametrize("ratio", [0.7, 1.25])
def test_the_inner_parts_add_their_difference_in_iou(ratio):
    preds, chosen = random_predictions(generator(0), 2), pairs()

    got = BoxOverlap(overlap="ciou", unit="pixel", inner_ratio=ratio)(preds, TARGETS, chosen)

    for p, (box, _, _) in enumerate(distances(preds, chosen)):
        wanted = TARGETS.boxes[chosen.image[p], chosen.target[p]].tolist()
        loss = 1 - ciou(box, wanted) + iou(box, wanted) - reference.inner_iou(box, wanted, ratio)
        assert got[p].item() == pytest.approx(loss * chosen.weight[p].item() / 2.0, rel=1e-9)


@pytest.mark.parametrize("term", [term for term in TERMS if term.overlap not in ("wiou", "ciou")])
def test_gradcheck(term):
    preds = random_predictions(generator(1), 2)

    def run(raw: torch.Tensor) -> torch.Tensor:
        return term(dataclasses.replace(preds, box_raw=raw), TARGETS, pairs())

    assert torch.autograd.gradcheck(run, preds.box_raw, fast_mode=True)


@pytest.mark.parametrize("term", TERMS)
def test_no_pairs_keep_the_graph_and_give_zero_gradient(term):
    preds = random_predictions(generator(0), 2)

    contributions = term(preds, Targets(*(x[:, :0] for x in (TARGETS.labels, TARGETS.boxes, TARGETS.valid))), nothing())
    contributions.sum().backward()

    assert contributions.shape == (0,)
    assert preds.box_raw.grad.eq(0).all()


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 1e300])
@pytest.mark.parametrize("term", TERMS)
def test_an_extreme_value_under_an_unused_slot_reaches_nothing(term, value):
    preds = random_predictions(generator(0), 2)
    raw = preds.box_raw.detach().clone()
    raw[1, 125] = value
    raw.requires_grad_()

    got = term(dataclasses.replace(preds, box_raw=raw), TARGETS, pairs())
    got.sum().backward()

    assert got.isfinite().all()
    assert raw.grad.isfinite().all()


def test_mistakes_name_the_field():
    with pytest.raises(ConfigError, match=r"BoxOverlap.inner_ratio: expected null, or a number above 0 .*, got 0"):
        BoxOverlap(inner_ratio=0.0)
    with pytest.raises(ConfigError, match=r"got 0.5 with 'probiou'"):
        BoxOverlap(inner_ratio=0.5, overlap="probiou")
    with pytest.raises(ConfigError, match=r"BoxOverlap.nwd_scale: expected pixels above 0, got -1"):
        BoxOverlap(nwd_scale=-1.0)
