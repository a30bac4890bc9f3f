# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch
from tests.tasks.made import outputs, predictions

from boxwright.errors import ShapeError
from boxwright.ops.letterbox import letterbox, stretch
from boxwright.tasks.base import SelectOptions
from boxwright.tasks.extras import attributes_at, keypoints_at, masks_at, regularised
from boxwright.tasks.postprocess import detections
from boxwright.vocabulary import AttributeSpec, KeypointSpec, Vocabulary

FIRST = torch.tensor([0])


@pytest.mark.parametrize(
    ("box", "wanted"),
    [
        ((5, 6, 4, 2, 0.3), (4, 2, 0.3)),
        ((5, 6, 2, 4, 0.3), (4, 2, 0.3 + math.pi / 2)),
        ((5, 6, 4, 2, -0.1), (4, 2, math.pi - 0.1)),
        ((5, 6, 2, 4, math.pi - 0.1), (4, 2, math.pi / 2 - 0.1)),
        ((5, 6, 4, 2, -1e-9), (4, 2, 0.0)),
        ((5, 6, 3, 3, 7.0), (3, 3, 7.0 - 2 * math.pi)),
    ],
)
def test_oriented_boxes_are_longer_along_and_turned_by_less_than_half_a_turn(box, wanted):
    found = regularised(torch.tensor([box]))[0]

    assert found[:2].tolist() == [5, 6]
    assert found[2:].tolist() == pytest.approx(wanted, abs=1e-5)
    assert 0 <= found[4] < math.pi


def test_keypoints_are_decoded_mapped_back_clipped_and_scored():
    # The first cell's centre is (4, 4), its stride 8. Doubled form: corner (0, 0) + 16 raw; offset: centre + 8 raw.
    raw = [[[1.0, 0.5, 0.0], [4.0, -9.0, 2.0]]]
    preds = predictions([[0.0, 0, 9, 9]], [[0.9]], keypoints_raw=raw)
    box = letterbox((128, 128), (64, 64))  # gain one half

    (found,) = keypoints_at(preds, 0, FIRST, box)

    assert found[0].tolist() == pytest.approx([32, 16, 0.5])
    assert found[1].tolist() == pytest.approx([128, 0, 1 / (1 + math.exp(-2))])  # clipped to the image


def test_keypoints_of_two_numbers_are_visible():
    preds = predictions([[0.0, 0, 9, 9]], [[0.9]], keypoints_raw=[[[1.0, 0.5]]])
    assert keypoints_at(preds, 0, FIRST, letterbox((64, 64), (64, 64)))[0].tolist() == [[16, 8, 1]]


def test_attributes_are_probabilities_exclusive_or_each_for_itself():
    specs = (
        AttributeSpec(name="colour", values=("red", "blue")),
        AttributeSpec(name="wears", values=("hat", "scarf"), multi_label=True),
    )
    preds = predictions([[0.0, 0, 9, 9]], [[0.9]])
    logits = torch.zeros(1, preds.logits.shape[1], 2)
    logits[0, 0] = torch.tensor([math.log(3.0), 0.0])
    preds = type(preds)(
        preds.logits, preds.box_raw, preds.decoder, preds.grid, attribute_logits={"colour": logits, "wears": logits}
    )

    found = attributes_at(preds, 0, FIRST, specs)

    assert found["colour"][0].tolist() == pytest.approx([0.75, 0.25])
    assert found["wears"][0].tolist() == pytest.approx([0.75, 0.5])
    assert attributes_at(preds, 0, FIRST, ()) is None
    with pytest.raises(ShapeError, match="expected 3 raw values, got none"):
        attributes_at(preds, 0, FIRST, (AttributeSpec(name="size", values=("s", "m", "l")),))


def test_what_a_head_does_not_say_is_none():
    preds = predictions([[0.0, 0, 9, 9]], [[0.9]])
    box = letterbox((64, 64), (64, 64))
    assert masks_at(preds, 0, FIRST, torch.zeros(1, 4), box) is None
    assert keypoints_at(preds, 0, FIRST, box) is None
    (found,) = detections(outputs([[0.0, 0, 9, 9]], [[0.9]]), [box], options=SelectOptions(), vocabulary=VOCABULARY)
    assert found.masks is found.keypoints is found.attributes is None


VOCABULARY = Vocabulary(names=("a",), keypoints=KeypointSpec(count=1))


def test_stretched_oriented_boxes_keep_centre_length_and_area():
    # 64 x 128 pressed into 64 x 64: x counts double. A box along x is twice as long there, as high as before.
    preds = outputs([[32.0, 32, 20, 10, 0.0]], [[0.9]])
    (found,) = detections(preds, [stretch((64, 128), (64, 64))], options=SelectOptions(), vocabulary=VOCABULARY)
    assert found.boxes[0].tolist() == pytest.approx([64, 32, 40, 10, 0])
