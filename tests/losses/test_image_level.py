# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch
from tests.losses.scenes import generator
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.config import from_yaml, to_yaml
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.image_level import ImageCriterion
from boxwright.structures import ImageOutputs, ImageTargets

LABELS = torch.tensor([2, 0, 3, 3, -1])
SOFT = torch.tensor([[1.0, 0, 0.5, -1], [0, 0, 1, 1], [1, 1, -1, -1], [0, 1, 0, 0], [-1, -1, -1, -1]]).double()


def logits(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(5, 4, generator=generator(0), dtype=torch.float64).to(dtype).requires_grad_()


def run(criterion: ImageCriterion, z: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> float:
    return criterion(ImageOutputs(z), ImageTargets(labels, weights)).total.item()


def entropies(z: torch.Tensor, smoothing: float) -> list[float]:
    """Cross-entropy of each labelled image, in Python floats."""
    found = []
    for row, label in zip(z.tolist(), LABELS.tolist(), strict=True):
        if label < 0:
            continue
        norm = math.log(sum(map(math.exp, row)))
        found.append((1 - smoothing) * (norm - row[label]) + smoothing * sum(norm - value for value in row) / 4)
    return found


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_class_is_the_mean_cross_entropy_of_labelled_images(smoothing):
    z = logits()

    got = run(ImageCriterion(smoothing=smoothing), z, LABELS)

    assert got == pytest.approx(sum(entropies(z, smoothing)) / 4, rel=1e-12)


def test_class_weights_make_a_weighted_mean():
    z, weights = logits(), (1.0, 5.0, 2.0, 0.5)

    got = run(ImageCriterion(class_weights=weights, smoothing=0.1), z, LABELS)

    each = [weights[label] for label in LABELS.tolist()[:4]]
    expected = sum(w * e for w, e in zip(each, entropies(z, 0.1), strict=True)) / sum(each)
    assert got == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("smoothing", "weights"), [(0.0, None), (0.2, None), (0.2, (1.0, 5.0, 2.0, 0.5))])
def test_several_classes_are_the_mean_binary_cross_entropy_of_labelled_entries(smoothing, weights):
    z = logits()

    got = run(ImageCriterion(smoothing=smoothing, class_weights=weights), z, SOFT)

    total, count = 0.0, 0
    for row, wanted in zip(z.tolist(), SOFT.tolist(), strict=True):
        for c, (value, target) in enumerate(zip(row, wanted, strict=True)):
            if target < 0:
                continue
            target, count = target * (1 - smoothing) + smoothing / 2, count + 1
            cost = target * math.log1p(math.exp(-value)) + (1 - target) * math.log1p(math.exp(value))
            total += cost * (weights[c] if weights else 1.0)
    assert got == pytest.approx(total / count, rel=1e-12)


@pytest.mark.parametrize("labels", [LABELS, SOFT])
def test_gradcheck(labels):
    criterion = ImageCriterion(smoothing=0.1, class_weights=(1.0, 5.0, 2.0, 0.5))

    assert torch.autograd.gradcheck(lambda z: criterion(ImageOutputs(z), ImageTargets(labels)).total, logits())


def test_weights_of_images_scale_contributions_and_not_the_divisor():
    z, weights = logits(), torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0])

    got = run(ImageCriterion(), z, LABELS, weights)

    costs = entropies(z, 0.0)
    assert got == pytest.approx((costs[0] + 2 * costs[2] + costs[3]) / 4, rel=1e-12)


@pytest.mark.parametrize("labels", [torch.full((5,), -1), -torch.ones(5, 4), torch.zeros(0, dtype=torch.int64)])
@pytest.mark.parametrize("weights", [None, (0.0, 0.0, 0.0, 1.0)])
def test_nothing_labelled_is_zero_with_zero_gradient(labels, weights):
    z = logits().detach()[: len(labels)].requires_grad_()

    loss = ImageCriterion(class_weights=weights)(ImageOutputs(z), ImageTargets(labels))
    loss.total.backward()

    assert loss.total.item() == 0
    assert z.grad.eq(0).all()


@pytest.mark.parametrize("labels", [LABELS, SOFT])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_an_unlabelled_image_may_hold_anything(labels, value):
    z = logits().detach()
    z[4] = value
    z.requires_grad_()

    total = ImageCriterion(smoothing=0.1)(ImageOutputs(z), ImageTargets(labels)).total
    total.backward()

    assert total.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("labels", [LABELS, SOFT])
def test_order_and_halves_of_the_batch(labels):
    z, order = logits(), torch.tensor([3, 0, 4, 2, 1])
    whole = run(ImageCriterion(), z, labels)

    parts = [run(ImageCriterion(), z[part], labels[part]) for part in (slice(0, 2), slice(2, 5))]

    assert run(ImageCriterion(), z[order], labels[order]) == pytest.approx(whole, rel=1e-12)
    counts = [(labels[part] >= 0).sum().item() for part in (slice(0, 2), slice(2, 5))]
    assert sum(p * c for p, c in zip(parts, counts, strict=True)) / sum(counts) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("labels", [LABELS, SOFT])
def test_logits_of_ten_thousand_stay_finite(labels, dtype):
    z = (torch.sign(logits().detach()) * 1e4).to(dtype).requires_grad_()

    with torch.autocast("cpu", torch.bfloat16):
        total = ImageCriterion(smoothing=0.1)(ImageOutputs(z), ImageTargets(labels)).total
    total.backward()

    assert total.isfinite()
    assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert z.grad.isfinite().all()


def test_no_value_is_read():
    with FakeTensorMode() as mode:
        z, labels = mode.from_tensor(logits()), mode.from_tensor(LABELS)
        ImageCriterion(class_weights=(1.0, 5.0, 2.0, 0.5))(ImageOutputs(z), ImageTargets(labels)).total.backward()

    assert z.grad.shape == (5, 4)


def test_survives_yaml():
    criterion = ImageCriterion(smoothing=0.1, class_weights=(1.0, 2.0), gain=3.0)

    assert from_yaml(ImageCriterion, to_yaml(criterion)) == criterion


def test_ranks_share_the_mean(monkeypatch):
    # As if another rank held 3 labelled images; DDP takes the mean of the ranks, so the total counts the ranks.
    monkeypatch.setattr("boxwright.losses.image_level.world_size", lambda: 2)
    monkeypatch.setattr("boxwright.losses.image_level.sum_over_ranks", lambda tensor: tensor + 3)
    z = logits()

    assert run(ImageCriterion(), z, LABELS) == pytest.approx(2 * sum(entropies(z, 0.0)) / 7, rel=1e-12)


def test_what_does_not_fit_is_named():
    with pytest.raises(ShapeError, match=r"ImageTargets.labels: expected \(5,\) as in the outputs, got \(4,\)"):
        run(ImageCriterion(), logits(), LABELS[:4])
    with pytest.raises(ShapeError, match=r"class_weights: expected 4 numbers, .* got 2"):
        run(ImageCriterion(class_weights=(1.0, 2.0)), logits(), LABELS)
    with pytest.raises(ConfigError, match=r"smoothing: expected at least 0 and less than 1, got 1.5"):
        ImageCriterion(smoothing=1.5)
    with pytest.raises(ConfigError, match=r"class_weights: expected numbers >= 0"):
        ImageCriterion(class_weights=(-1.0, 2.0))
