# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses

import pytest
import torch

from boxwright.errors import ShapeError
from boxwright.losses.layout.candidates import lay_out_candidates
from boxwright.ops.decode import Distance
from boxwright.ops.grid import grid_for_image
from boxwright.ops.objects import object_rows
from boxwright.results import Detections
from boxwright.structures import (
    Assignment,
    LossBreakdown,
    LossItem,
    Predictions,
    Targets,
    at_least_float32,
)

GRID = grid_for_image((16, 16), (8, 16))  # five cells


def predictions(dtype: torch.dtype = torch.float32) -> Predictions:
    raw = torch.arange(2 * 5 * 4, dtype=torch.float32).view(2, 5, 4) / 16
    return Predictions(torch.zeros(2, 5, 3, dtype=dtype), raw.to(dtype).requires_grad_(), Distance(num_bins=1), GRID)


def pairs() -> Assignment:
    return Assignment(
        image=torch.tensor([1, 0]),
        anchor=torch.tensor([4, 2]),
        target=torch.tensor([0, 0]),
        valid=torch.tensor([True, False]),
        weight=torch.tensor([0.5, 0.0]),
        normalizer=torch.tensor(2.0),
    )


def unchecked(cls, **values):
    """An instance that no constructor has seen; fields that are not given have their defaults."""
    instance = object.__new__(cls)
    for field in dataclasses.fields(cls):
        if field.name in values or field.default is not dataclasses.MISSING:
            object.__setattr__(instance, field.name, values.get(field.name, field.default))
    return instance


@pytest.mark.parametrize(
    ("labels", "boxes", "valid", "message"),
    [
        (
            torch.zeros(2).long(),
            torch.zeros(2, 3, 4),
            torch.ones(2, 3).bool(),
            r"Targets.labels: expected \(B, M\), got",
        ),
        (
            torch.zeros(2, 3).long(),
            torch.zeros(6, 4),
            torch.ones(2, 3).bool(),
            r"Targets.boxes: expected \(B, M, 4\), got",
        ),
        (
            torch.zeros(2, 3).long(),
            torch.zeros(2, 2, 4),
            torch.ones(2, 3).bool(),
            r"\(2, 3, 4\), or 5 .*got \(2, 2, 4\)",
        ),
        (torch.zeros(2, 3).long(), torch.zeros(2, 3, 4), torch.ones(2, 3), "Targets.valid: expected bool"),
        (torch.zeros(2, 3), torch.zeros(2, 3, 4), torch.ones(2, 3).bool(), "Targets.labels: expected int64, got"),
    ],
)
def test_targets_refuse_wrong_shapes_and_types(labels, boxes, valid, message):
    # Past the run-time checks of the test run, as in a user's process.
    targets = unchecked(Targets, labels=labels, boxes=boxes, valid=valid)

    with pytest.raises(ShapeError, match=message):
        targets.__post_init__()


def test_predictions_refuse_outputs_that_do_not_fit_the_grid():
    with pytest.raises(ShapeError, match=r"Predictions.logits: .*grid's 5 cells, got \(2, 6, 3\)"):
        Predictions(torch.zeros(2, 6, 3), torch.zeros(2, 6, 4), Distance(num_bins=1), GRID)
    broken = unchecked(Predictions, logits=torch.zeros(2, 5, 3), box_raw=torch.zeros(1, 5, 4), grid=GRID)
    with pytest.raises(ShapeError, match=r"Predictions.box_raw: .*got \(1, 5, 4\)"):
        broken.__post_init__()


def test_boxes_are_decoded_in_float32_without_gradient():
    preds = predictions(torch.bfloat16)

    assert preds.boxes.dtype == torch.float32
    assert not preds.boxes.requires_grad
    # Cell 4 has its centre at (8, 8) and stride 16; image 1 holds (36, 37, 38, 39) / 16 strides.
    assert preds.boxes[1, 4].tolist() == [8 - 36, 8 - 37, 8 + 38, 8 + 39]
    assert torch.equal(preds.boxes_of(slice(1, 2)), preds.boxes[1:])


def test_boxes_of_pairs_carry_gradient_and_unused_slots_are_harmless():
    preds = predictions()

    boxes = preds.boxes_at(pairs())
    boxes.sum().backward()

    assert boxes.tolist() == [[8 - 36, 8 - 37, 8 + 38, 8 + 39], [4, 12, 4, 12]]
    assert preds.box_raw.grad[1, 4].tolist() == [-16, -16, 16, 16]
    assert preds.box_raw.grad[0].eq(0).all()


def test_share_is_weight_over_normalizer():
    assert pairs().share.tolist() == [0.25, 0.0]


def test_breakdown_adds_up():
    items = (LossItem("main/a", torch.tensor([1.0, 2.0]), 2.0), LossItem("main/b", torch.ones(2, 2), 0.5))
    loss = LossBreakdown(items, {}, 3.0)

    assert loss.scalars() == {"main/a": 6.0, "main/b": 2.0, "total": 24.0}


def test_targets_move_with_their_candidates():
    targets = Targets(torch.zeros(1, 1).long(), torch.zeros(1, 1, 4), torch.ones(1, 1).bool())

    assert targets.to("meta").boxes.device.type == "meta"
    assert targets.to("meta").candidates is None


def test_only_half_precision_is_widened():
    kept = torch.zeros(1, dtype=torch.float64)

    assert at_least_float32(kept) is kept
    assert at_least_float32(torch.zeros(1, dtype=torch.float16)).dtype == torch.float32


def detections() -> Detections:
    return Detections(
        boxes=torch.tensor([[1.0, 2.0, 4.0, 8.0]]),
        scores=torch.tensor([0.75]),
        labels=torch.tensor([1]),
        names=("cat", "dog"),
        image_size=(20, 30),
        class_ids=(3, 18),
    )


def test_detections_become_plain_rows():
    assert len(detections()) == 1
    assert detections().to_dicts() == [
        {"name": "dog", "label": 1, "class_id": 18, "score": 0.75, "box": [1.0, 2.0, 4.0, 8.0]}
    ]
    assert detections().to_coco(7) == [{"image_id": 7, "category_id": 18, "bbox": [1, 2, 3, 6], "score": 0.75}]
    assert dataclasses.replace(detections(), class_ids=None).to_dicts()[0]["class_id"] == 1


def test_detections_become_supervision_detections():
    pytest.importorskip("supervision")

    theirs = detections().to_supervision()

    assert theirs.xyxy.tolist() == [[1, 2, 4, 8]]
    assert theirs.class_id.tolist() == [1]
    assert theirs.data["class_name"].tolist() == ["dog"]


def test_targets_scale_everything_in_pixels_and_forget_their_layouts():
    upright = Targets(
        torch.zeros(1, 1).long(), torch.tensor([[[8.0, 4.0, 16.0, 12.0]]]), torch.ones(1, 1).bool(),
        keypoints=torch.tensor([[[[10.0, 6.0, 2.0]]]]), ignore=torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]),
    )  # fmt: skip
    prepared = upright.with_prepared(candidates=lay_out_candidates(upright, GRID), objects=object_rows(upright))

    scaled = prepared.scaled(2.0, 0.5)

    assert scaled.boxes.tolist() == [[[16.0, 2.0, 32.0, 6.0]]]
    assert scaled.keypoints.tolist() == [[[[20.0, 3.0, 2.0]]]]
    assert scaled.ignore.tolist() == [[[0.0, 0.0, 8.0, 2.0]]]
    assert scaled.candidates is None
    assert scaled.objects is prepared.objects  # which slots hold an object stays
    assert prepared.boxes.tolist() == [[[8.0, 4.0, 16.0, 12.0]]]  # nobody writes into another's tensors
    turned = dataclasses.replace(upright, boxes=torch.tensor([[[8.0, 4.0, 6.0, 2.0, 0.5]]]), keypoints=None)
    assert turned.scaled(2.0, 0.5).boxes.tolist() == [[[16.0, 2.0, 12.0, 1.0, 0.5]]]
