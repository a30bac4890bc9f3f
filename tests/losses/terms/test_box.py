# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses

import pytest
import torch
from tests.losses.scenes import BINS, generator, make_targets, random_predictions
from tests.reference import overlap as reference

from boxwright.errors import ShapeError
from boxwright.losses.terms import BoxOverlap, DistanceBins
from boxwright.ops.distances import expected_distance
from boxwright.structures import Assignment, Predictions, Targets

TARGETS = make_targets([(3, 2, 40, 50), (20, 10, 90, 60)], [(0, 0, 30, 30), (1, 1, 2, 2)])


def pairs(valid: tuple[bool, ...] = (True, True, True, False)) -> Assignment:
    """Four pairs on both images, the last one an unused slot."""
    mask = torch.tensor(valid)
    return Assignment(
        image=torch.tensor([0, 0, 1, 1]),
        anchor=torch.tensor([10, 97, 3, 125]),
        target=torch.tensor([0, 1, 0, 1]),
        valid=mask,
        weight=torch.tensor([0.5, 1.0, 0.25, 0.0], dtype=torch.float64) * mask,
        normalizer=torch.tensor(2.0, dtype=torch.float64),
    )


def nothing() -> Assignment:
    index = torch.zeros(0, dtype=torch.int64)
    return Assignment(index, index, index, index.bool(), index.double(), torch.tensor(1.0, dtype=torch.float64))


def distances(preds: Predictions, pair: Assignment) -> list[tuple[list[float], list[float], float]]:
    """Predicted box and cell centre in px and the stride of each pair, decoded by hand."""
    found = []
    for image, anchor in zip(pair.image.tolist(), pair.anchor.tolist(), strict=True):
        (x, y), stride = preds.grid.points[anchor].tolist(), preds.grid.strides[anchor].item()
        left, top, right, bottom = (expected_distance(preds.box_raw[image, anchor], BINS) * stride).tolist()
        found.append(([x - left, y - top, x + right, y + bottom], [x, y], stride))
    return found


@pytest.mark.parametrize("unit", ["cell", "pixel", "normalized"])
@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_overlap_equals_the_reference_in_its_unit(name, unit):
    preds, chosen = random_predictions(generator(0), 2), pairs()

    got = BoxOverlap(overlap=name, unit=unit)(preds, TARGETS, chosen)

    expected = []
    for p, (box, _, stride) in enumerate(distances(preds, chosen)):
        wanted = TARGETS.boxes[chosen.image[p], chosen.target[p]].tolist()
        per_side = {"cell": (stride,) * 4, "pixel": (1.0,) * 4, "normalized": (96.0, 64.0, 96.0, 64.0)}[unit]
        a, b = ([v / s for v, s in zip(values, per_side, strict=True)] for values in (box, wanted))
        expected.append((1 - getattr(reference, name)(a, b)) * chosen.weight[p].item() / 2.0)
    assert got.tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("term", [BoxOverlap(overlap="giou"), BoxOverlap(overlap="iou"), DistanceBins()])
def test_gradcheck(term):
    preds = random_predictions(generator(1), 2)

    def run(raw: torch.Tensor) -> torch.Tensor:
        return term(dataclasses.replace(preds, box_raw=raw), TARGETS, pairs())

    assert torch.autograd.gradcheck(run, preds.box_raw, fast_mode=True)


def test_bins_of_a_hand_computed_pair():
    # Cell 10 of stride 8 has its centre at (84, 4); uniform logits cost log(bins) on every side, whatever the distance.
    preds = random_predictions(generator(0), 1)
    flat = dataclasses.replace(preds, box_raw=torch.zeros_like(preds.box_raw))

    got = DistanceBins()(flat, TARGETS, dataclasses.replace(pairs(), image=torch.zeros(4, dtype=torch.int64)))

    expected = [weight * torch.tensor(BINS).log().item() / 2 for weight in (0.5, 1.0, 0.25, 0.0)]
    assert got.tolist() == pytest.approx(expected, rel=1e-7)


def test_bins_are_silent_without_a_distribution():
    preds = random_predictions(generator(0), 2, bins=1)

    assert DistanceBins()(preds, TARGETS, pairs()).tolist() == [0, 0, 0, 0]


def test_bins_need_the_distance_decoder():
    preds = dataclasses.replace(random_predictions(generator(0), 2), decoder=lambda raw, points, strides: raw[..., :4])

    with pytest.raises(ShapeError, match="DistanceBins: expected predictions with the decoder Distance"):
        DistanceBins()(preds, TARGETS, pairs())


@pytest.mark.parametrize("term", [BoxOverlap(), DistanceBins()])
def test_no_pairs_keep_the_graph_and_give_zero_gradient(term):
    preds = random_predictions(generator(0), 2)

    contributions = term(preds, Targets(*(x[:, :0] for x in (TARGETS.labels, TARGETS.boxes, TARGETS.valid))), nothing())
    contributions.sum().backward()

    assert contributions.shape == (0,)
    assert preds.box_raw.grad.eq(0).all()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 1e300])
@pytest.mark.parametrize("term", [BoxOverlap(), DistanceBins()])
def test_an_extreme_value_under_an_unused_slot_reaches_nothing(term, value):
    preds = random_predictions(generator(0), 2)
    raw = preds.box_raw.detach().clone()
    raw[1, 125] = value
    raw.requires_grad_()

    got = term(dataclasses.replace(preds, box_raw=raw), TARGETS, pairs())
    got.sum().backward()

    assert got.isfinite().all()
    assert raw.grad.isfinite().all()


def test_an_infinite_value_of_a_matched_box_is_not_hidden():
    preds = random_predictions(generator(0), 2)
    raw = preds.box_raw.detach().clone()
    raw[0, 10] = torch.inf

    got = BoxOverlap()(dataclasses.replace(preds, box_raw=raw), TARGETS, pairs())

    assert got.isnan().tolist() == [True, False, False, False]
