# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math

import pytest
import torch
from tests.losses.scenes import generator, make_targets, random_predictions
from tests.reference import keypoints as reference

from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.terms import KeypointLikelihood, KeypointLocation, KeypointVisibility
from boxwright.structures import Assignment, Predictions, Targets

BOXES = ([(3, 2, 41, 51), (20, 10, 93, 60)], [(0, 0, 30, 30), (1, 1, 2, 9)])
SIGMAS = (0.1, 0.2, 0.3, 0.05)


def standard_normal(residuals: torch.Tensor) -> torch.Tensor:
    """The log density of a standard normal distribution."""
    return -0.5 * residuals.square().sum(dim=1) - math.log(2 * math.pi)


def targets(seed: int = 0, count: int = 4) -> Targets:
    source, plain = generator(seed), make_targets(*BOXES)
    low, high = plain.boxes[:, :, None, :2], plain.boxes[:, :, None, 2:]
    places = low + (high - low) * torch.rand(2, 2, count, 2, generator=source, dtype=torch.float64)
    seen = torch.randint(0, 3, (2, 2, count, 1), generator=source).double()
    seen[1, 0] = 0  # nothing of this object is visible
    return dataclasses.replace(plain, keypoints=torch.cat((places, seen), dim=-1))


def predictions(seed: int = 0, count: int = 4, values: int = 3) -> Predictions:
    source, plain = generator(seed), random_predictions(generator(seed), 2)
    shape = (2, plain.logits.shape[1], count)
    raw = torch.randn(*shape, values, generator=source, dtype=torch.float64)
    spread = torch.randn(*shape, 2, generator=source, dtype=torch.float64)
    return dataclasses.replace(
        plain,
        keypoints_raw=raw.requires_grad_(),
        keypoint_scale=spread.requires_grad_(),
        keypoint_density=standard_normal,
    )


def pairs() -> Assignment:
    """Five pairs, the last one an unused slot; the third is of the object without visible keypoints."""
    return Assignment(
        image=torch.tensor([0, 0, 1, 1, 1]),
        anchor=torch.tensor([10, 97, 3, 124, 125]),
        target=torch.tensor([0, 1, 0, 1, 1]),
        valid=torch.tensor([True, True, True, True, False]),
        weight=torch.tensor([0.5, 1.0, 0.25, 0.1, 0.0], dtype=torch.float64),
        normalizer=torch.tensor(2.0, dtype=torch.float64),
    )


def nothing() -> Assignment:
    index = torch.zeros(0, dtype=torch.int64)
    return Assignment(index, index, index, index.bool(), index.double(), torch.tensor(1.0, dtype=torch.float64))


def in_cells(preds: Predictions, labels: Targets, p: int) -> tuple[list, list, list, float]:
    """Predicted and labelled places, visibility and area of a pair, decoded by hand."""
    chosen = pairs()
    image, anchor, slot = (part[p].item() for part in (chosen.image, chosen.anchor, chosen.target))
    stride = preds.grid.strides[anchor].item()
    cx, cy = (preds.grid.points[anchor] / stride).tolist()
    raw = preds.keypoints_raw[image, anchor, :, :2].tolist()
    if preds.keypoint_form == "doubled":
        places = [(2 * x + cx - 0.5, 2 * y + cy - 0.5) for x, y in raw]
    else:
        places = [(x + cx, y + cy) for x, y in raw]
    rows = labels.keypoints[image, slot].tolist()
    x1, y1, x2, y2 = (value / stride for value in labels.boxes[image, slot].tolist())
    return places, [(x / stride, y / stride) for x, y, _ in rows], [v != 0 for *_, v in rows], (x2 - x1) * (y2 - y1)


@pytest.mark.parametrize("form", ["doubled", "offset"])
@pytest.mark.parametrize("values", [2, 3])
@pytest.mark.parametrize("sigmas", [None, SIGMAS])
def test_location_equals_the_reference(form, values, sigmas):
    preds, labels = dataclasses.replace(predictions(values=values), keypoint_form=form), targets()

    got = KeypointLocation(sigmas=sigmas)(preds, labels, pairs())

    expected = [reference.location(*in_cells(preds, labels, p), sigmas or (0.25,) * 4) / 4 for p in range(4)]
    assert got.tolist() == pytest.approx([*expected, 0.0], rel=1e-10)
    assert expected[0] > 0
    assert expected[2] == 0


def test_a_location_computed_by_hand():
    # Anchor 10 of stride 8 is the cell with its corner at (80, 0) px; the only visible keypoint is 2 cells beside it.
    preds, labels = predictions(count=2), targets(count=2)
    labels.keypoints[0, 0] = torch.tensor([[96.0, 0, 2], [5, 5, 0]])
    preds = dataclasses.replace(preds, keypoints_raw=torch.zeros_like(preds.keypoints_raw))
    only = Assignment(*(part[:1] for part in dataclasses.astuple(pairs())[:5]), pairs().normalizer)

    got = KeypointLocation(sigmas=(0.5, 0.5))(preds, labels, only)

    # 38 x 49 px are 29.09375 square cells; the hidden keypoint hands its share to the visible one.
    assert got.item() == pytest.approx(1 - math.exp(-4 / (1 * 29.09375 * 2)), rel=1e-8)


@pytest.mark.parametrize(("count", "values", "expected"), [(17, 3, 0.026), (17, 2, 1 / 17), (5, 3, 0.2)])
def test_spreads_of_coco_are_used_for_its_shape_only(count, values, expected):
    preds, labels = predictions(count=count, values=values), targets(count=count)

    got = KeypointLocation()(preds, labels, pairs())

    first = in_cells(preds, labels, 0)
    sigmas = {17: [expected] * 17, 5: [expected] * 5}[count]
    if (count, values) == (17, 3):
        sigmas = [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]
        sigmas = [sigma / 1000 for sigma in sigmas]
    assert got[0].item() == pytest.approx(reference.location(*first, sigmas) / 4, rel=1e-10)


def test_visibility_equals_binary_cross_entropy():
    preds, labels = predictions(), targets()

    got = KeypointVisibility()(preds, labels, pairs())

    expected = []
    for p in range(4):
        image, anchor = pairs().image[p], pairs().anchor[p]
        z, seen = preds.keypoints_raw[image, anchor, :, 2].tolist(), in_cells(preds, labels, p)[2]
        costs = [math.log1p(math.exp(-value if one else value)) for value, one in zip(z, seen, strict=True)]
        expected.append(sum(costs) / 4 / 4)
    assert got.tolist() == pytest.approx([*expected, 0.0], rel=1e-10)


def test_visibility_is_silent_without_a_logit():
    assert KeypointVisibility()(predictions(values=2), targets(), pairs()).tolist() == [0] * 5


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5, 3.0)])
def test_likelihood_equals_the_reference(weights):
    preds, labels = predictions(), targets()

    got = KeypointLikelihood(weights=weights)(preds, labels, pairs())

    parts = []
    for p in range(4):
        places, wanted, seen, _ = in_cells(preds, labels, p)
        raw = preds.keypoint_scale[pairs().image[p], pairs().anchor[p]].tolist()
        density = lambda r: -0.5 * (r[0] ** 2 + r[1] ** 2) - math.log(2 * math.pi)  # noqa: E731
        parts.append(reference.likelihood(places, wanted, raw, seen, weights or (1.0,) * 4, density))
    rows = sum(count for _, count in parts)
    assert got.tolist() == pytest.approx([*(total / rows for total, _ in parts), 0.0], rel=1e-10)


def test_a_likelihood_computed_by_hand():
    # Spread 1/2 on both axes, residual (2, 0) spreads: 2 (2 ln 1/2 + ln 2) + 2 - 2 ln p; with p = e^-3 at any residual.
    preds, labels = predictions(count=1), targets(count=1)
    labels.keypoints[0, 0] = torch.tensor([[72.0, 0, 1]])
    preds = dataclasses.replace(
        preds,
        keypoints_raw=torch.zeros_like(preds.keypoints_raw),
        keypoint_scale=torch.zeros_like(preds.keypoint_scale),
        keypoint_density=lambda residuals: torch.full_like(residuals[:, 0], -3.0),
    )
    only = Assignment(*(part[:1] for part in dataclasses.astuple(pairs())[:5]), pairs().normalizer)

    got = KeypointLikelihood()(preds, labels, only)

    assert got.item() == pytest.approx(2 * (2 * math.log(0.5) + math.log(2)) + 2 + 6, rel=1e-7)


def test_likelihood_weighs_the_limbs_of_coco():
    preds, labels = predictions(count=17), targets(count=17)
    listed = [1.0] * 17
    for index, weight in {7: 1.2, 8: 1.2, 9: 1.5, 10: 1.5, 13: 1.2, 14: 1.2, 15: 1.5, 16: 1.5}.items():
        listed[index] = weight

    got = KeypointLikelihood()(preds, labels, pairs())

    assert torch.equal(got, KeypointLikelihood(weights=tuple(listed))(preds, labels, pairs()))


def test_likelihood_is_never_below_zero():
    preds = dataclasses.replace(predictions(), keypoint_density=lambda residuals: residuals.sum(dim=1) * 0 + 500)

    got = KeypointLikelihood()(preds, targets(), pairs())
    got.sum().backward()

    assert got.tolist() == [0] * 5
    assert preds.keypoint_scale.grad.eq(0).all()


def test_likelihood_drops_rows_that_are_not_numbers():
    preds, labels = predictions(), targets()
    labels.keypoints[0, 0, :, 2] = 1
    broken = preds.keypoints_raw.detach().clone()
    broken[0, 10, 1, 0] = torch.nan
    leaf = broken.clone().requires_grad_()
    hidden = labels.keypoints.clone()
    hidden[0, 0, 1, 2] = 0

    got = KeypointLikelihood()(dataclasses.replace(preds, keypoints_raw=leaf), labels, pairs())
    got.sum().backward()

    without = KeypointLikelihood()(preds, dataclasses.replace(labels, keypoints=hidden), pairs())
    assert got.tolist() == without.tolist()
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("term", [KeypointLocation(), KeypointVisibility(), KeypointLikelihood()])
@pytest.mark.parametrize("form", ["doubled", "offset"])
def test_gradcheck(term, form):
    preds, labels = dataclasses.replace(predictions(), keypoint_form=form), targets()

    def run(raw: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        return term(dataclasses.replace(preds, keypoints_raw=raw, keypoint_scale=spread), labels, pairs())

    assert torch.autograd.gradcheck(run, (preds.keypoints_raw, preds.keypoint_scale), fast_mode=True)


@pytest.mark.parametrize("term", [KeypointLocation(), KeypointVisibility(), KeypointLikelihood()])
def test_no_pairs_keep_the_graph_and_give_zero_gradient(term):
    preds = predictions()

    contributions = term(preds, targets(), nothing())
    contributions.sum().backward()

    assert contributions.shape == (0,)
    assert preds.keypoints_raw.grad.eq(0).all()


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 1e300])
@pytest.mark.parametrize("term", [KeypointLocation(), KeypointVisibility(), KeypointLikelihood()])
def test_an_unused_slot_and_hidden_keypoints_may_hold_anything(term, value):
    preds, labels = predictions(), targets()
    raw, spread, places = (x.detach().clone() for x in (preds.keypoints_raw, preds.keypoint_scale, labels.keypoints))
    raw[1, 125], spread[1, 125] = value, value
    places[..., :2] = torch.where(places[..., 2:] == 0, value, places[..., :2])
    raw.requires_grad_()

    got = term(
        dataclasses.replace(preds, keypoints_raw=raw, keypoint_scale=spread),
        dataclasses.replace(labels, keypoints=places),
        pairs(),
    )
    got.sum().backward()

    assert got.tolist() == term(preds, labels, pairs()).tolist()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("term", [KeypointLocation(), KeypointVisibility(), KeypointLikelihood()])
def test_order_of_images_and_slots_and_more_padding_change_nothing(term):
    preds, labels, chosen = predictions(), targets(), pairs()
    names = ("logits", "box_raw", "keypoints_raw", "keypoint_scale")
    flipped = dataclasses.replace(preds, **{name: getattr(preds, name).flip(0) for name in names})
    parts = (labels.labels, labels.boxes, labels.valid, labels.keypoints)
    *rest, keypoints = (torch.cat((part.flip(0, 1), torch.zeros_like(part)), dim=1) for part in parts)
    moved = dataclasses.replace(chosen, image=1 - chosen.image, target=1 - chosen.target)

    got = term(flipped, Targets(*rest, keypoints=keypoints), moved)

    assert torch.equal(got, term(preds, labels, chosen))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("term", [KeypointLocation(), KeypointVisibility(), KeypointLikelihood()])
def test_values_of_ten_thousand_stay_finite(term, dtype):
    preds, labels = predictions(), targets()
    raw, spread = (
        (torch.sign(x.detach()) * 1e4).to(dtype).requires_grad_() for x in (preds.keypoints_raw, preds.keypoint_scale)
    )

    got = term(dataclasses.replace(preds, keypoints_raw=raw, keypoint_scale=spread), labels, pairs())
    got.sum().backward()

    assert got.isfinite().all()
    assert raw.grad.isfinite().all()


def test_what_does_not_fit_is_named():
    preds, labels = predictions(), targets()
    with pytest.raises(ShapeError, match=r"Targets.keypoints: expected \(B, M, 4, 3\) .* got \(2, 2, 5, 3\)"):
        KeypointLocation()(preds, targets(count=5), pairs())
    with pytest.raises(ShapeError, match=r"Targets.keypoints: expected \(B, M, 4, 3\), got None"):
        KeypointVisibility()(preds, make_targets(*BOXES), pairs())
    with pytest.raises(ShapeError, match=r"Predictions.keypoints_raw: expected \(B, A, K, D\), got None"):
        KeypointLocation()(dataclasses.replace(preds, keypoints_raw=None), labels, pairs())
    with pytest.raises(ConfigError, match="sigmas: expected 4 positive numbers"):
        KeypointLocation(sigmas=(0.1, 0.2))(preds, labels, pairs())
    with pytest.raises(ShapeError, match=r"KeypointLikelihood expected .keypoint_scale.*got no density"):
        KeypointLikelihood()(dataclasses.replace(preds, keypoint_density=None), labels, pairs())
    with pytest.raises(ShapeError, match="got no spreads"):
        KeypointLikelihood()(dataclasses.replace(preds, keypoint_scale=None), labels, pairs())
    with pytest.raises(ShapeError, match=r"KeypointLikelihood.weights: expected 4"):
        KeypointLikelihood(weights=(1.0,))(preds, labels, pairs())
