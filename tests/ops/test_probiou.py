# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch
from tests.reference.probiou import probiou

from boxwright.ops.probiou import paired_probiou


def random_boxes(seed: int, count: int = 40) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=source, dtype=torch.float64) * 10
    sides = 0.5 + torch.rand(count, 2, generator=source, dtype=torch.float64) * 20
    theta = (torch.rand(count, 1, generator=source, dtype=torch.float64) - 0.5) * 8
    return torch.cat((centre, sides, theta), dim=1)


@pytest.mark.parametrize("floor", [0.0, 0.01, 2.0])
def test_equals_the_textbook_form_on_random_boxes(floor):
    a, b = random_boxes(0), random_boxes(1)

    expected = [probiou(*pair, floor) for pair in zip(a.tolist(), b.tolist(), strict=True)]

    assert paired_probiou(a, b, floor).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_gradcheck(floor):
    a, b = (random_boxes(seed, 8).requires_grad_() for seed in (2, 3))

    assert torch.autograd.gradcheck(lambda a, b: paired_probiou(a, b, floor), (a, b))


def test_gradient_at_an_exact_square_is_that_of_its_neighbours():
    # The kernel swaps sides where h exceeds w: at w = h both ways must agree with the smooth definition.
    square = torch.tensor([0.0, 0.0, 4.0, 4.0, 0.3], dtype=torch.float64, requires_grad=True)
    long = torch.tensor([0.5, 0.2, 8.0, 2.0, 0.7], dtype=torch.float64)

    assert torch.autograd.gradcheck(lambda a: paired_probiou(a, long), square)


def test_turning_a_quarter_and_swapping_the_sides_is_the_same_box():
    a, b = random_boxes(4), random_boxes(5)
    swapped = torch.stack((b[:, 0], b[:, 1], b[:, 3], b[:, 2], b[:, 4] + math.pi / 2), dim=1)

    assert torch.allclose(paired_probiou(a, b), paired_probiou(a, swapped), rtol=1e-12, atol=1e-13)


def test_order_of_the_boxes_does_not_matter():
    a, b = random_boxes(6), random_boxes(7)

    assert torch.allclose(paired_probiou(a, b), paired_probiou(b, a), rtol=1e-13)


def test_an_equal_box_reaches_the_largest_value_and_has_no_gradient():
    box = torch.tensor([3.0, 4.0, 30.0, 20.0, 0.4], dtype=torch.float64, requires_grad=True)

    value = paired_probiou(box, box.detach())
    value.backward()

    assert value.item() == pytest.approx(1 - math.sqrt(1 - math.exp(-1e-7) + 1e-7), abs=1e-12)
    assert box.grad.eq(0).all()


def test_far_boxes_have_no_gradient():
    box = torch.tensor([0.0, 0.0, 4.0, 4.0, 0.0], requires_grad=True)

    value = paired_probiou(box, torch.tensor([1000.0, 0.0, 4.0, 4.0, 0.0]))
    value.backward()

    assert value.item() == pytest.approx(0, abs=1e-6)
    assert box.grad.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "box", [[5, 5, 0, 0, 1], [5, 5, 0, 8, 1], [5, 5, 8, 0, 1], [5, 5, -1, 2, 0], [5, 5, 1e6, 1e6, 0], [1e6, 0, 1, 1, 0]]
)
@pytest.mark.parametrize("other", [[4, 6, 10, 3, 0.5], [0, 0, 0, 0, 0]])
def test_degenerate_boxes_stay_finite(box, other, dtype):
    a = torch.tensor(box, dtype=dtype, requires_grad=True)

    value = paired_probiou(a, torch.tensor(other, dtype=dtype))
    value.backward()

    assert value.item() == pytest.approx(probiou([float(x) for x in box], other), rel=1e-3, abs=1e-4)
    assert a.grad.isfinite().all()


def test_long_thin_boxes_keep_their_digits_in_float32():
    # 400 : 1, almost parallel. X Y - Z^2 of float32 numbers is off by more than a tenth here.
    a = torch.tensor([[100.0, 100.0, 400.0, 1.0, 0.6]])
    b = torch.tensor([[101.0, 100.5, 390.0, 1.1, 0.601]])

    assert paired_probiou(a, b).item() == pytest.approx(probiou(a[0].tolist(), b[0].tolist()), rel=2e-4)


def test_broadcasts_to_all_pairs():
    a, b = random_boxes(8, 3), random_boxes(9, 5)

    table = paired_probiou(a[:, None], b[None])

    assert table.shape == (3, 5)
    assert table[1, 4].item() == pytest.approx(probiou(a[1].tolist(), b[4].tolist()), rel=1e-9)
