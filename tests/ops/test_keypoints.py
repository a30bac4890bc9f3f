# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest
import torch

from boxwright.errors import ConfigError
from boxwright.ops.keypoints import COCO_SIGMAS, decode_keypoints, keypoint_misses, keypoint_sigmas


def test_both_forms_agree_where_raw_values_say_the_same_place():
    raw = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points, strides = torch.rand(5, 2).double() * 64, torch.tensor([8.0, 8, 16, 16, 32]).double()

    offset = decode_keypoints(2 * raw - 0.5, points, strides, "offset")

    assert torch.allclose(decode_keypoints(raw, points, strides), offset, rtol=1e-12, atol=1e-12)


def test_a_zero_is_the_corner_or_the_centre_of_the_cell():
    raw, point, stride = torch.zeros(1, 2), torch.tensor([20.0, 12.0]), torch.tensor(8.0)

    assert decode_keypoints(raw, point, stride).tolist() == [[16.0, 8.0]]
    assert decode_keypoints(raw, point, stride, "offset").tolist() == [[20.0, 12.0]]


def test_spreads_are_chosen_by_value():
    assert keypoint_sigmas(17, 3) == COCO_SIGMAS
    assert len(COCO_SIGMAS) == 17
    assert sum(COCO_SIGMAS) == pytest.approx(1.138)
    assert keypoint_sigmas(17, 2) == (1 / 17,) * 17
    assert keypoint_sigmas(2, 3, (0.1, 0.4)) == (0.1, 0.4)
    for wrong in ((0.1,), (0.1, 0.0), (0.1, float("nan"))):
        with pytest.raises(ConfigError, match="sigmas: expected 2 positive numbers"):
            keypoint_sigmas(2, 3, wrong)


def test_misses_lie_between_zero_and_one_and_ignore_hidden_points():
    points, wanted = torch.tensor([[[0.0, 0], [1e30, 0], [3, 4]]]), torch.zeros(1, 3, 2)
    visible = torch.tensor([[True, True, False]])

    got = keypoint_misses(points, wanted, visible, torch.tensor([1.0]), torch.full((3,), 0.5))

    assert got.tolist() == [[0.0, 1.0, 0.0]]
