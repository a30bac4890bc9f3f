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
from boxwright.ops.letterbox import Letterbox, letterbox

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


def test_imports_no_torch():
    code = "import sys, boxwright.ops.letterbox, boxwright.data.augment.pipeline; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
