# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import subprocess
import sys

WRONG = """
import torch
from boxwright.errors import ShapeError
from boxwright.losses.adapters import from_yolov5_maps, from_yolov8_maps, targets_from_rows

one, maps, anchors = torch.zeros(1), [torch.zeros(1, 1, 2, 2, 6)], [[(10, 13)]]
calls = (
    lambda: targets_from_rows(one, one, torch.zeros(1, 4), batch=1, image_size=(8, 8), unit="cxcywh"),
    lambda: targets_from_rows(one, one, torch.zeros(1, 4), batch=1, image_size=(8, 8.5)),
    lambda: from_yolov5_maps(maps, anchors, [8], anchor_unit="px", num_classes=1),
    lambda: from_yolov8_maps(torch.zeros(1, 65, 2, 2), [8], num_classes=1),
)
for call in calls:
    try:
        call()
    except ShapeError as error:
        print(error)
"""


def test_wrong_words_and_types_are_named():
    # In a process of its own: the test run's type checks would refuse them before us, a user has none.
    result = subprocess.run([sys.executable, "-c", WRONG], capture_output=True, text=True, check=True)

    unit, size, anchor_unit, maps = result.stdout.splitlines()
    assert "unit: expected one of normalized_cxcywh, " in unit
    assert unit.endswith("got 'cxcywh'")
    assert size.endswith(
        "image_size: expected (height, width) in pixels, two whole numbers of at least 1, got (8, 8.5)"
    )
    assert anchor_unit.endswith("anchor_unit: expected 'pixel' or 'cell', got 'px'")
    assert maps.endswith("expected a list of maps with one stride each, got one tensor, 1 strides")
