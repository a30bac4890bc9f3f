# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch

from boxwright.errors import ShapeError
from boxwright.ops.decode import Distance, Oriented
from boxwright.ops.distances import (
    decode_distances,
    decode_rotated,
    encode_distances,
    encode_rotated,
    expected_distance,
)


def test_encode_and_decode_are_inverse_also_outside_the_box():
    source = torch.Generator().manual_seed(0)
    points = torch.randn(2, 5, 2, generator=source, dtype=torch.float64)
    boxes = torch.randn(2, 5, 4, generator=source, dtype=torch.float64)

    assert torch.allclose(decode_distances(points, encode_distances(points, boxes)), boxes, atol=1e-15)
    assert encode_distances(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0, 3.0, 3.0])).tolist() == [-1, -1, 3, 3]


def test_a_sharp_distribution_is_its_bin_and_two_equal_bins_their_mean():
    logits = torch.full((4, 5), -100.0)
    logits[0, 3] = logits[1, 0] = logits[2, 1] = logits[2, 2] = logits[3, 4] = 100.0

    assert expected_distance(logits.flatten(), 5).tolist() == pytest.approx([3.0, 0.0, 1.5, 4.0])


def test_one_bin_is_the_distance_itself():
    assert expected_distance(torch.tensor([-1.0, 2.0, 30.0, 4.0]), 1).tolist() == [-1, 2, 30, 4]


def test_a_transposed_view_gives_the_same_distances_and_gradient():
    logits = torch.randn(2, 7, 4 * 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = logits.clone().requires_grad_()
    maps = logits.transpose(1, 2).contiguous().requires_grad_()

    by_row, by_map = expected_distance(rows, 6), expected_distance(maps.transpose(1, 2), 6)
    by_row.square().sum().backward()
    by_map.square().sum().backward()

    assert torch.allclose(by_row, by_map, atol=1e-14)
    assert torch.allclose(rows.grad, maps.grad.transpose(1, 2), atol=1e-14)


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_a_transposed_view_takes_extreme_logits(value):
    logits = torch.zeros(1, 4 * 3, 2)
    logits[0, 1] = value

    got = expected_distance(logits.transpose(1, 2), 3)[0].tolist()

    assert got[0] == got[1] == pytest.approx([1.0] * 4)  # the middle bin alone, or the two around it


def test_decoder_scales_distances_by_the_stride():
    raw, points, strides = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[20.0, 20.0]]), torch.tensor([8.0])

    assert Distance(num_bins=1)(raw, points, strides).tolist() == [[12.0, 4.0, 44.0, 52.0]]


def test_rotated_encode_and_decode_are_inverse_also_outside_the_box():
    source = torch.Generator().manual_seed(2)
    points = torch.randn(2, 5, 2, generator=source, dtype=torch.float64)
    boxes = torch.randn(2, 5, 5, generator=source, dtype=torch.float64)

    distances = encode_rotated(points, boxes)

    assert torch.allclose(decode_rotated(points, distances, boxes[..., 4]), boxes, atol=1e-14)
    assert encode_rotated(torch.zeros(2), torch.tensor([2.0, 0.0, 2.0, 2.0, 0.0])).tolist() == [-1, 1, 3, 1]


def test_an_angle_of_zero_is_the_axis_aligned_case():
    points, boxes = torch.tensor([[20.0, 30.0]]), torch.tensor([[12.0, 4.0, 44.0, 52.0]])
    centred = torch.tensor([[28.0, 28.0, 32.0, 48.0, 0.0]])

    assert torch.equal(encode_rotated(points, centred), encode_distances(points, boxes))


def test_a_quarter_turn_sends_right_to_down():
    point, theta = torch.zeros(2, dtype=torch.float64), torch.tensor(math.pi / 2, dtype=torch.float64)

    box = decode_rotated(point, torch.tensor([0.0, 0.0, 6.0, 2.0], dtype=torch.float64), theta)

    # 6 along the w axis, which points down; 2 along the h axis, which points left.
    assert box[:4].tolist() == pytest.approx([-1.0, 3.0, 6.0, 2.0])


def test_oriented_decoder_scales_distances_by_the_stride_and_not_the_angle():
    raw, points, strides = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[20.0, 20.0]]), torch.tensor([8.0])
    logits = torch.zeros(1, 4 * 5)

    plain = Oriented(num_bins=1)(raw, points, strides, torch.tensor([0.0]))
    turned = Oriented(num_bins=5)(logits, points, strides, torch.tensor([0.25]))

    assert plain.tolist() == [[28.0, 28.0, 32.0, 48.0, 0.0]]
    assert turned.tolist() == [[20.0, 20.0, 32.0, 32.0, 0.25]]


def test_the_oriented_decoder_needs_angles():
    raw, points, strides = torch.zeros(1, 4), torch.zeros(1, 2), torch.ones(1)

    with pytest.raises(ShapeError, match=r"Predictions.angle: expected one angle for each candidate .* got None"):
        Oriented(num_bins=1)(raw, points, strides)
