# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import subprocess
import sys

import pytest

TRACE = """
import torch
from boxwright.losses import (
    from_yolov5_maps, from_yolov8_maps, grid_for_image, targets_from_rows, yolov5_detect, yolov5_grid, yolov8_detect
)
size, strides = (64, 96), (8, 16, 32)
anchors = [[(10, 13), (16, 30)], [(30, 61), (62, 45)], [(59, 119), (116, 90)]]
rows = torch.tensor([[1, 1, 0.5, 0.5, 0.3, 0.4], [0, 0, 0.4, 0.4, 0.2, 0.3]])
targets = targets_from_rows(rows[:, 0], rows[:, 1], rows[:, 2:], batch=2, image_size=size)
dense, with_anchors = yolov8_detect(), yolov5_detect()
dense_targets = dense.prepare(targets, grid_for_image(size, strides))
anchor_targets = with_anchors.prepare(targets, yolov5_grid(size, anchors, strides, anchor_unit="pixel"))

def eight(*maps):
    return dense(from_yolov8_maps(maps, strides, num_classes=3, num_bins=6), dense_targets).total

def five(*maps):
    outputs = from_yolov5_maps(maps, anchors, strides, anchor_unit="pixel", num_classes=3)
    return with_anchors(outputs, anchor_targets).total

torch.manual_seed(0)
for total, shape in ((eight, (2, 27)), (five, (2, 2))):
    tail = () if total is eight else (8,)
    maps = [torch.randn(*shape, 64 // s, 96 // s, *tail, requires_grad=True) for s in strides]
    expected = torch.autograd.grad(total(*maps), maps)
    got = torch.autograd.grad(torch.compile(total, fullgraph=True, backend="eager")(*maps), maps)
    assert all(torch.allclose(one, other) for one, other in zip(expected, got, strict=True))
print("two graphs")
"""


@pytest.mark.slow
def test_adapter_and_criterion_trace_as_one_graph():
    # In a process of its own: the run-time type checks of the test run are what a tracer cannot follow.
    result = subprocess.run([sys.executable, "-c", TRACE], capture_output=True, text=True, check=False)

    assert result.stdout.strip() == "two graphs", result.stderr
