# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference import box_losses as reference
from tests.reference.overlap import iou

from boxwright.ops.box_losses import (
    SIMILARITY_NAMES,
    BoxSimilarityName,
    box_similarity,
    eiou,
    inner_change,
    mpdiou,
    nwd,
    siou,
    wiou,
)
from boxwright.ops.overlap import paired_overlap

SIZE = (96, 128)
FUNCTIONS = {
    "eiou": eiou,
    "siou": siou,
    "mpdiou": lambda a, b: mpdiou(a, b, SIZE),
    "wiou": wiou,
    "nwd": lambda a, b: nwd(a, b, 20.0),
    "inner 0.7": lambda a, b: inner_change(a, b, 0.7),
    "inner 1.3": lambda a, b: inner_change(a, b, 1.3),
}
REFERENCES = {
    "eiou": reference.eiou,
    "siou": reference.siou,
    "mpdiou": lambda a, b: reference.mpdiou(a, b, SIZE),
    "wiou": reference.wiou,
    "nwd": lambda a, b: reference.nwd(a, b, 20.0),
    "inner 0.7": lambda a, b: reference.inner_iou(a, b, 0.7) - iou(a, b),
    "inner 1.3": lambda a, b: reference.inner_iou(a, b, 1.3) - iou(a, b),
}
EXTREME = torch.tensor(
    [
        [10.0, 10.0, 30.0, 50.0],
        [10.0, 10.0, 30.0, 50.0],  # equal to the first
        [60.0, 70.0, 90.0, 90.0],  # disjoint from it
        [10.0, 10.0, 10.0, 50.0],  # no width
        [10.0, 10.0, 10.0, 10.0],  # a point
        [15.0, 20.0, 25.0, 40.0],  # inside, same centre
        [30.0, 50.0, 40.0, 60.0],  # touches at a corner
        [-3e3, -3e3, 4e3, 4e3],
        [30.0, 50.0, 10.0, 10.0],  # turned inside out
    ]
)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=source, dtype=torch.float64) * 60
    return torch.cat((low, low + 3 + torch.rand(count, 2, generator=source, dtype=torch.float64) * 60), dim=1)


def test_the_table_knows_every_name():
    assert set(SIMILARITY_NAMES) == set(get_args(BoxSimilarityName)) == {"eiou", "siou", "mpdiou", "wiou", "nwd"}
    a, b = random_boxes(4, 0), random_boxes(4, 1)
    for name in SIMILARITY_NAMES:
        assert torch.equal(box_similarity(a, b, name, SIZE, 20.0), FUNCTIONS[name](a, b))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_the_paper_as_plain_numbers(name):
    a, b = random_boxes(60, 2), random_boxes(60, 3)

    got = FUNCTIONS[name](a, b)

    expected = [REFERENCES[name](*rows) for rows in zip(a.tolist(), b.tolist(), strict=True)]
    # The epsilons: 1e-7 px of boxes of some pixels, and 1e-6 px under nwd's root.
    assert got.tolist() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "wiou"])
def test_gradcheck(name):
    a, b = random_boxes(12, 4).requires_grad_(), random_boxes(12, 5)

    assert torch.autograd.gradcheck(lambda boxes: FUNCTIONS[name](boxes, b), a)


def test_gradcheck_of_wise_iou_with_its_constant_frozen():
    a, b = random_boxes(12, 4).requires_grad_(), random_boxes(12, 5)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).detach()

    def frozen(boxes: torch.Tensor) -> torch.Tensor:
        gap = (boxes[:, :2] + boxes[:, 2:] - b[:, :2] - b[:, 2:]) / 2
        factor = torch.exp(gap.square().sum(dim=1) / (hull.square().sum(dim=1) + 1e-7))
        return 1 - factor * (1 - paired_overlap(boxes, b))

    assert torch.autograd.gradcheck(frozen, a)
    expected, got = (torch.autograd.grad(of(a).sum(), a)[0] for of in (frozen, lambda boxes: wiou(boxes, b)))
    assert torch.allclose(got, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_extreme_boxes_have_finite_values_and_slopes(name, dtype):
    boxes = EXTREME.to(dtype)
    a = boxes.repeat_interleave(len(boxes), dim=0).requires_grad_()
    b = boxes.repeat(len(boxes), 1)

    values = FUNCTIONS[name](a, b)
    values.sum().backward()

    assert values.isfinite().all()
    assert a.grad.isfinite().all()
    if "inner" not in name:
        assert values.max() <= 1


@pytest.mark.parametrize("name", ["eiou", "siou", "mpdiou", "wiou", "nwd"])
def test_equal_boxes_have_similarity_one_and_others_less(name):
    a = random_boxes(20, 6)

    assert torch.allclose(FUNCTIONS[name](a, a), torch.ones(20, dtype=torch.float64), atol=1e-6)
    assert (FUNCTIONS[name](a, a + 1) < 0.999).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(-20, 20), st.floats(-20, 20))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_order_of_the_pair_and_a_shift_change_nothing(name, seed, x, y):
    a, b = random_boxes(3, seed), random_boxes(3, seed + 1)
    shift = torch.tensor([x, y, x, y], dtype=torch.float64)

    got = FUNCTIONS[name](a, b)

    assert torch.allclose(FUNCTIONS[name](b, a), got, atol=1e-9)
    assert torch.allclose(FUNCTIONS[name](a + shift, b + shift), got, atol=1e-7)


def test_nwd_still_pulls_where_boxes_miss_each_other():
    a = torch.tensor([[0.0, 0.0, 4.0, 4.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[8.0, 0.0, 12.0, 4.0]], dtype=torch.float64)

    nwd(a, b).sum().backward()

    assert a.grad[0, 0] > 0
    assert a.grad[0, 2] > 0
