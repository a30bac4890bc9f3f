# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import torch

from boxwright.ops.boxes import clip_boxes, cxcywh_to_xyxy, pairwise_iou, xyxy_to_cxcywh


def test_formats_are_inverse_for_any_leading_shape():
    boxes = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    assert torch.allclose(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes, rtol=0, atol=1e-15)


def test_clip_keeps_inside_boxes_and_cuts_the_others():
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-3.0, -4.0, 50.0, 60.0], [30.0, 1.0, 40.0, 2.0]])

    assert clip_boxes(boxes, (10, 20)).tolist() == [[1, 2, 3, 4], [0, 0, 20, 10], [20, 1, 20, 2]]


def test_pairwise_iou_of_equal_disjoint_nested_and_empty_boxes():
    a = torch.tensor([[0.0, 0.0, 4.0, 4.0], [5.0, 5.0, 5.0, 9.0]])
    b = torch.tensor([[0.0, 0.0, 4.0, 4.0], [8.0, 8.0, 9.0, 9.0], [1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 5.0, 9.0]])

    assert pairwise_iou(a, b).tolist() == [[1.0, 0.0, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert pairwise_iou(a[:0], b).shape == (0, 4)
