# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import json
import math

import numpy as np
import pytest
import torch

from boxwright.datasets.formats.rle import decode_rle
from boxwright.results import Classification, Detections, InstanceMask
from boxwright.vocabulary import AttributeSpec, KeypointSpec

NAMES = ("cat", "dog")
COLOUR = AttributeSpec(name="colour", values=("red", "blue"))
WEARS = AttributeSpec(name="wears", values=("hat", "scarf"), multi_label=True)


def decoded(rle):
    """Run lengths written out, by the reader of COCO files, which is written independently."""
    return decode_rle(rle, tuple(rle["size"]))


@pytest.mark.parametrize("seed", range(6))
def test_runs_are_the_mask_column_by_column(seed):
    rng = np.random.default_rng(seed)
    height, width = 9, 12
    whole = np.zeros((height, width), bool)
    top, left = (0, 0) if seed < 2 else (2, 3)  # full columns join with the next
    pixels = rng.random((height - top if seed % 2 else 4, 5)) < (0.5, 1.1, 0.7)[seed % 3]
    whole[top : top + pixels.shape[0], left : left + 5] = pixels
    mask = InstanceMask(left, top, pixels)

    runs = mask.runs((height, width))

    assert np.array_equal(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T, whole)
    assert all(run > 0 for run in runs[1:])
    assert np.array_equal(decoded(mask.rle((height, width))), whole)
    assert np.array_equal(mask.full((height, width)), whole)


def test_an_empty_mask_is_background_only():
    assert InstanceMask(2, 1, np.zeros((2, 2), bool)).runs((4, 5))[0] == 20


def found(**parts):
    return Detections(
        boxes=torch.tensor([[10.0, 20, 30, 60]]),
        scores=torch.tensor([0.5]),
        labels=torch.tensor([1]),
        names=NAMES,
        image_size=(100, 200),
        class_ids=(3, 7),
        **parts,
    )


def everything():
    return found(
        masks=(InstanceMask(12, 30, np.ones((4, 3), bool)),),
        keypoints=torch.tensor([[[11.0, 22, 0.9], [12, 24, 0.1]]]),
        keypoint_spec=KeypointSpec(count=2),
        attributes={"colour": torch.tensor([[0.25, 0.75]]), "wears": torch.tensor([[0.75, 0.25]])},
        attribute_specs=(COLOUR, WEARS),
    )


def test_plain_dicts_hold_everything_and_are_json():
    (row,) = everything().to_dicts()

    assert (row["name"], row["label"], row["class_id"], row["box"]) == ("dog", 1, 7, [10, 20, 30, 60])
    assert decoded(row["mask"]).sum() == 12
    assert decoded(row["mask"])[30:34, 12:15].all()
    assert row["keypoints"][0] == pytest.approx([11, 22, 0.9])
    assert row["attributes"] == {
        "colour": {"value": "blue", "scores": {"red": 0.25, "blue": 0.75}},
        "wears": {"value": ["hat"], "scores": {"hat": 0.75, "scarf": 0.25}},
    }
    assert json.loads(json.dumps(row)) == row
    assert set(found().to_dicts()[0]) == {"name", "label", "class_id", "score", "box"}


def test_coco_rows_hold_masks_keypoints_and_attributes():
    (row,) = everything().to_coco(5)

    assert (row["image_id"], row["category_id"], row["bbox"], row["score"]) == (5, 7, [10, 20, 20, 40], 0.5)
    assert decoded(row["segmentation"]).sum() == 12
    assert row["keypoints"] == [11, 22, 0.9, 12, 24, 0.1]
    assert row["attributes"] == {"colour": "blue", "wears": ["hat"]}


def oriented():
    # 20 long and 10 wide, its length pointing down
    box = torch.tensor([[50.0, 40, 20, 10, math.pi / 2]])
    return Detections(box, torch.tensor([0.5]), torch.tensor([0]), NAMES, (100, 200))


def test_oriented_boxes_have_corners_and_an_upright_box_around():
    one = oriented()

    torch.testing.assert_close(one.corners[0], torch.tensor([[45.0, 50], [55, 50], [55, 30], [45, 30]]))
    torch.testing.assert_close(one.enclosing, torch.tensor([[45.0, 30, 55, 50]]))
    (row,) = one.to_dicts()
    assert row["oriented_box"] == pytest.approx([50, 40, 20, 10, math.pi / 2])
    (coco,) = one.to_coco("a")
    assert coco["bbox"] == pytest.approx([45, 30, 10, 20])
    assert coco["segmentation"][0] == pytest.approx([45, 50, 55, 50, 55, 30, 45, 30])


def test_upright_boxes_have_corners_too():
    one = found()
    assert torch.equal(one.enclosing, one.boxes)
    assert one.corners[0].tolist() == [[30, 60], [30, 20], [10, 20], [10, 60]]


def test_to_supervision_takes_masks_and_corners_along():
    supervision = pytest.importorskip("supervision")

    whole, turned = everything().to_supervision(), oriented().to_supervision()

    assert isinstance(whole, supervision.Detections)
    assert whole.mask.shape == (1, 100, 200)
    assert whole.mask[0].sum() == 12
    assert whole.data["keypoints"].shape == (1, 2, 3)
    assert turned.xyxy[0].tolist() == pytest.approx([45, 30, 55, 50], abs=1e-4)
    assert turned.data["xyxyxyxy"].shape == (1, 4, 2)
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), NAMES, (8, 8), masks=())
    assert none.to_supervision().mask.shape == (0, 8, 8)


def test_a_classification_lists_its_classes_best_first():
    said = Classification(torch.tensor([0.25, 0.75]), NAMES, (8, 8), class_ids=(3, 7))

    assert said.top(1) == [("dog", 0.75)]
    assert [row["class_id"] for row in said.to_dicts()] == [7, 3]
