# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from boxwright.errors import ShapeError
from boxwright.ops.letterbox import Letterbox, centre_crop, letterbox, stretch

GOLDEN = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parents[1] / "golden") / "numeric.json"
CASES = json.loads(GOLDEN.read_text())


@pytest.mark.parametrize(
    "case", CASES["letterbox"], ids=lambda c: f"{c['h']}x{c['w']}-{c['new_shape']}-{c['auto']}-{c['scaleup']}"
)
def test_placement_equals_the_golden_cases(case):
    box = letterbox(
        (case["h"], case["w"]),
        tuple(case["new_shape"]),
        scaleup=case["scaleup"],
        minimal_stride=32 if case["auto"] else None,
    )

    assert [box.resized[1], box.resized[0]] == case["resized_wh"]
    assert (box.top, box.left) == (case["top"], case["left"])
    assert list(box.target) == case["out_hw"]
    assert box.target[0] - box.resized[0] - box.top == case["bottom"]
    assert box.target[1] - box.resized[1] - box.left == case["right"]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("case", CASES["scale_boxes"], ids=lambda c: f"{c['img_hw']}-{c['net_hw']}")
def test_boxes_map_back_as_the_golden_cases(case, kind):
    boxes = np.array(case["boxes"]) if kind == "numpy" else torch.tensor(case["boxes"], dtype=torch.float64)
    before = boxes.tolist()

    mapped = letterbox(tuple(case["img_hw"]), tuple(case["net_hw"])).to_original(boxes)

    # The golden numbers come from a float32 run: 1e-5 relative of 500 px is its last digit.
    np.testing.assert_allclose(np.asarray(mapped), case["out_2026"], rtol=1e-5, atol=1e-5)
    assert boxes.tolist() == before


def test_to_original_undoes_to_network():
    box = letterbox((333, 500), (640, 640))
    boxes = np.array([[10.5, 20.25, 300.0, 320.0], [0.0, 0.0, 500.0, 333.0]])

    assert box.to_network(boxes)[1].tolist() == [0.0, 107.0, 640.0, 533.0]
    np.testing.assert_allclose(box.to_original(box.to_network(boxes)), boxes, atol=1e-12)


def test_one_pixel_images_keep_a_pixel():
    assert letterbox((1, 10_000), (32, 32)).resized == (1, 32)


def test_no_boxes_are_no_boxes():
    box = Letterbox((10, 20), (32, 32), (16, 32), 8, 0)

    assert box.to_original(torch.zeros(0, 4)).shape == (0, 4)


def test_wrong_sides_and_wrong_boxes_are_refused():
    with pytest.raises(ShapeError, match="source \\(0, 5\\)"):
        letterbox((0, 5), (32, 32))
    with pytest.raises(ShapeError, match="\\(3, 5\\)"):
        letterbox((5, 5), (32, 32)).to_original(np.zeros((3, 5)))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_points_move_as_the_corners_of_boxes(kind):
    box = letterbox((333, 500), (640, 640))
    points = np.array([[[10.5, 20.25], [300.0, 320.0]]])
    points = points if kind == "numpy" else torch.from_numpy(points)

    moved = box.points_to_network(points)

    np.testing.assert_array_equal(np.asarray(moved).reshape(1, 4), box.to_network(np.asarray(points).reshape(1, 4)))
    np.testing.assert_allclose(np.asarray(box.points_to_original(moved)), np.asarray(points), atol=1e-12)
    outside = box.points_to_original(points * 0 - 50)
    assert np.asarray(outside).tolist() == [[[0, 0], [0, 0]]]
    assert points[0, 0, 0] == 10.5


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_oriented_boxes_keep_their_angle_under_one_gain(kind):
    box = letterbox((320, 640), (640, 640))
    boxes = np.array([[100.0, 50.0, 40.0, 10.0, 0.5]])
    boxes = boxes if kind == "numpy" else torch.from_numpy(boxes)

    doubled = letterbox((320, 320), (640, 640)).oriented_to_network(boxes)
    assert np.asarray(doubled).tolist() == [[200, 100, 80, 20, 0.5]]
    assert np.asarray(box.oriented_to_network(boxes)).tolist() == [[100, 210, 40, 10, 0.5]]
    assert np.asarray(box.oriented_to_original(box.oriented_to_network(boxes))).tolist() == [[100, 50, 40, 10, 0.5]]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_stretched_oriented_boxes_keep_area_and_the_long_side(kind):
    box = stretch((100, 400), (200, 200))  # x halved, y doubled
    rng = np.random.default_rng(0)
    boxes = np.column_stack([rng.uniform(0, 100, (50, 2)), rng.uniform(5, 50, (50, 2)), rng.uniform(-1.5, 1.5, 50)])
    given = boxes if kind == "numpy" else torch.from_numpy(boxes)

    moved = np.asarray(box.oriented_to_network(given))

    ends = boxes[:, :2] + boxes[:, 2:3] / 2 * np.column_stack([np.cos(boxes[:, 4]), np.sin(boxes[:, 4])])
    moved_ends = moved[:, :2] + moved[:, 2:3] / 2 * np.column_stack([np.cos(moved[:, 4]), np.sin(moved[:, 4])])
    np.testing.assert_allclose(moved_ends, box.points_to_network(ends), atol=1e-9)
    np.testing.assert_allclose(moved[:, 2] * moved[:, 3], boxes[:, 2] * boxes[:, 3], rtol=1e-12)
    np.testing.assert_allclose(np.asarray(box.oriented_to_original(box.oriented_to_network(given))), boxes, atol=1e-9)


def test_stretching_and_cropping_have_their_own_gains():
    assert stretch((480, 640), (320, 320)).gain == (2 / 3, 0.5)
    crop = centre_crop((100, 301), 50)
    assert (crop.resized, crop.top, crop.left, crop.target) == ((50, 150), 0, -50, (50, 50))
    assert centre_crop((301, 100), 50).top == -50
    assert centre_crop((40, 40), 50) == Letterbox((40, 40), (50, 50), (50, 50), 0, 0)


@pytest.mark.parametrize("call", [lambda: stretch((0, 5), (3, 3)), lambda: centre_crop((5, 0), 3)])
def test_other_placements_refuse_empty_sides(call):
    with pytest.raises(ShapeError, match="at least 1 px"):
        call()


def test_points_and_oriented_boxes_of_wrong_width_are_refused():
    box = letterbox((5, 5), (32, 32))
    for move, width in ((box.points_to_network, 3), (box.points_to_original, 4), (box.oriented_to_network, 4),
                        (box.oriented_to_original, 4)):  # fmt: skip
        with pytest.raises(ShapeError, match=f"\\(2, {width}\\)"):
            move(np.zeros((2, width)))


def test_imports_no_torch():
    code = "import sys, boxwright.ops.letterbox, boxwright.loading.augment.pipeline; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
