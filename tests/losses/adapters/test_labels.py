# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.errors import DataError, ShapeError
from boxwright.losses.adapters import targets_from_padded, targets_from_rows

SIZE = (50, 100)  # (H, W) px
IMAGE = torch.tensor([2, 0, 2])  # images mixed, and one without a row
LABELS = torch.tensor([5, 1, 3])
SHARES = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.1, 0.2, 0.2, 0.4], [0.25, 0.5, 0.5, 1.0]])  # cx, cy, w, h
PIXELS = torch.tensor([[40.0, 15, 60, 35], [0, 0, 20, 20], [0, 0, 50, 50]])  # the same, px xyxy


def rows(**changes):
    values = {"image": IMAGE, "labels": LABELS, "boxes": SHARES, "batch": 3, "image_size": SIZE} | changes
    return targets_from_rows(values.pop("image"), values.pop("labels"), values.pop("boxes"), **values)


def test_rows_go_to_their_image_in_their_order():
    targets = rows()

    assert targets.valid.tolist() == [[True, False], [False, False], [True, True]]
    assert targets.labels.tolist() == [[1, 0], [0, 0], [5, 3]]
    assert torch.allclose(targets.boxes[2], PIXELS[[0, 2]])
    assert torch.allclose(targets.boxes[0, 0], PIXELS[1])


@pytest.mark.parametrize(
    ("unit", "boxes"),
    [
        ("normalized_cxcywh", SHARES),
        ("normalized_xyxy", PIXELS / torch.tensor([100, 50, 100, 50])),
        ("normalized_xywh", torch.cat((SHARES[:, :2] - SHARES[:, 2:] / 2, SHARES[:, 2:]), dim=1)),
        ("pixel_xyxy", PIXELS),
        ("pixel_cxcywh", SHARES * torch.tensor([100, 50, 100, 50])),
        ("pixel_xywh", torch.cat((PIXELS[:, :2], PIXELS[:, 2:] - PIXELS[:, :2]), dim=1)),
    ],
)
def test_every_unit_gives_the_same_pixels(unit, boxes):
    assert torch.allclose(rows(boxes=boxes, unit=unit).boxes[IMAGE, torch.tensor([0, 0, 1])], PIXELS, atol=1e-5)


def test_columns_of_one_table_of_floats_are_taken_as_they_are():
    table = torch.cat((IMAGE[:, None], LABELS[:, None], SHARES), dim=1).double()

    targets = rows(image=table[:, 0], labels=table[:, 1], boxes=table[:, 2:])

    assert targets.labels.dtype == torch.int64
    assert targets.labels.tolist() == rows().labels.tolist()
    assert targets.boxes.dtype == torch.float64


def test_half_precision_boxes_are_scaled_in_float32():
    # 0.3 in float16 times 1000 px is 300.05 in float32; float16 itself steps by 0.25 px there.
    half = torch.tensor([[0.3, 0.5, 0.1, 0.1]], dtype=torch.float16)

    targets = targets_from_rows(torch.tensor([0]), torch.tensor([0]), half, batch=1, image_size=(1000, 1000))

    assert targets.boxes.dtype == torch.float32
    assert targets.boxes[0, 0, 0].item() == pytest.approx(half[0, 0].item() * 1000 - half[0, 2].item() * 500, abs=1e-4)


def test_extra_fields_go_with_their_row():
    masks = torch.zeros(3, 4, 6, dtype=torch.uint8)
    masks[2, 1, 1] = 255
    points = torch.rand(3, 2, 3).round(decimals=2)
    points[..., 2] = torch.tensor([0.0, 2.0])

    targets = rows(
        weights=torch.tensor([0.5, 2.0, 1.0]),
        masks=masks,
        keypoints=points,
        attributes={"loc": torch.tensor([4, -1, 0]), "tags": torch.tensor([[0, 1], [-1, -1], [1, 1]])},
        instance_map=torch.ones(3, 4, 6, dtype=torch.uint8),
    )

    assert targets.weights.tolist() == [[2.0, 0.0], [0.0, 0.0], [0.5, 1.0]]
    assert targets.masks[2, 1].nonzero().tolist() == [[1, 1]]
    assert targets.masks.sum() == 1
    assert torch.allclose(targets.keypoints[2, 1], points[2] * torch.tensor([100, 50, 1]))
    assert targets.attributes["loc"].tolist() == [[-1, -1], [-1, -1], [4, 0]]
    assert targets.attributes["tags"][0].tolist() == [[-1.0, -1.0], [-1.0, -1.0]]
    assert targets.attributes["tags"][2].tolist() == [[0.0, 1.0], [1.0, 1.0]]
    assert targets.instance_map.dtype == torch.int32


def test_keypoints_without_visibility_are_visible_and_in_the_unit_of_the_boxes():
    targets = rows(keypoints=torch.full((3, 1, 2), 30.0), boxes=PIXELS, unit="pixel_xyxy")

    assert targets.keypoints[0, 0].tolist() == [[30.0, 30.0, 2.0]]


def test_rows_of_zeros_keep_their_slot_but_are_no_objects():
    boxes = SHARES.clone()
    boxes[0] = 0

    targets = rows(boxes=boxes, labels=torch.tensor([-1, 1, 3]))

    assert targets.valid.tolist() == [[True, False], [False, False], [False, True]]
    assert targets.labels[2].tolist() == [0, 3]


def test_ignored_rows_become_regions_and_their_labels_are_not_read():
    targets = rows(ignore=torch.tensor([True, False, False]), labels=torch.tensor([999, 1, 3]), num_classes=4)

    assert targets.valid.tolist() == [[True, False], [False, False], [False, True]]
    assert torch.allclose(targets.ignore[2], torch.stack((PIXELS[0], torch.zeros(4))))
    assert targets.ignore[0].eq(0).all()


def test_an_ignored_oriented_box_ignores_the_rectangle_around_it():
    boxes = torch.tensor([[50.0, 25.0, 20.0, 10.0, math.pi / 2]])

    targets = targets_from_rows(
        torch.tensor([0]), torch.tensor([0]), boxes, batch=1, image_size=SIZE, unit="pixel_cxcywh",
        ignore=torch.tensor([True]),
    )  # fmt: skip

    assert targets.oriented
    assert targets.ignore[0, 0].tolist() == pytest.approx([45, 15, 55, 35], abs=1e-4)


def test_oriented_boxes_scale_sides_and_keep_the_angle():
    boxes = torch.cat((SHARES, torch.full((3, 1), 0.5)), dim=1)

    assert rows(boxes=boxes).boxes[0, 0].tolist() == pytest.approx([10, 10, 20, 20, 0.5])


def test_slots_can_be_fixed_for_all_batches():
    assert rows(slots=7).labels.shape == (3, 7)
    with pytest.raises(ShapeError, match=r"slots: expected at least 2, the fullest image's rows, got 1"):
        rows(slots=1)
    assert rows(slots=1, check=False).labels.tolist() == [[1], [0], [5]]  # trusted, and cut


@pytest.mark.parametrize("check", [True, False])
def test_no_rows_at_all(check):
    none = torch.zeros(0)

    targets = targets_from_rows(none, none, torch.zeros(0, 4), batch=2, image_size=SIZE, check=check)

    assert targets.labels.shape == (2, 0)
    assert targets.boxes.shape == (2, 0, 4)


def test_fixed_slots_without_checks_need_no_look_at_values():
    # Fake tensors hold no values: a sync would raise.
    with FakeTensorMode():
        fields = {"weights": torch.empty(3), "keypoints": torch.empty(3, 2, 3), "ignore": torch.empty(3) > 0}
        targets = targets_from_rows(
            torch.empty(3), torch.empty(3), torch.empty(3, 4), batch=2, image_size=SIZE, slots=5, check=False, **fields
        )
        assert targets.boxes.shape == (2, 5, 4)


@given(st.lists(st.integers(0, 3), max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_mixing_images_changes_nothing(images, random):
    boxes = torch.rand(len(images), 4) * 0.4 + 0.1
    ordered = sorted(range(len(images)), key=images.__getitem__)
    shuffled = list(images)
    random.shuffle(shuffled)
    # Within an image the order of rows is meant, so it stays.
    queues = {image: [row for row in ordered if images[row] == image] for image in images}
    mixed = [queues[image].pop(0) for image in shuffled]

    def build(order):
        index = torch.tensor(order, dtype=torch.int64)
        image = torch.tensor(images, dtype=torch.int64)[index]
        return targets_from_rows(image, index, boxes[index], batch=4, image_size=SIZE)

    one, other = build(ordered), build(mixed)
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"boxes": PIXELS}, ShapeError, r"boxes: expected shares .* got 60; .* say unit='pixel_cxcywh'"),
        ({"unit": "pixel_xyxy"}, ShapeError, r"expected pixels .* at most 1; .* say unit='normalized_xyxy'"),
        ({"image": torch.tensor([2, 0, 3])}, DataError, r"image: expected whole numbers from 0 to 2, got 3 in row 2"),
        ({"image": torch.tensor([2, -1, 2])}, DataError, r"image: expected .* got -1 in row 1"),
        ({"image": torch.tensor([2, 0.5, 2])}, DataError, r"image: expected whole numbers .* got 0.5 in row 1"),
        ({"num_classes": 5}, DataError, r"labels: expected whole class indices from 0 to 4, got 5 in row 0; .* not 1"),
        ({"num_classes": 4}, DataError, r"labels: .* from 0 to 3, got 5 in row 0$"),
        ({"labels": torch.tensor([5, -1, 3])}, DataError, r"labels: .* at least 0, got -1 in row 1"),
        ({"labels": torch.tensor([5, 1.5, 3])}, DataError, r"labels: expected whole class indices .* got 1.5 in row 1"),
        ({"labels": LABELS[:2]}, ShapeError, r"labels: expected one row per box, 3 rows, got 2"),
        ({"labels": LABELS[:, None]}, ShapeError, r"labels: expected \(N,\), got \(3, 1\)"),
        ({"weights": torch.ones(4)}, ShapeError, r"weights: expected one row per box, 3 rows, got 4"),
        ({"weights": torch.tensor([1, -1.0, 1])}, DataError, r"weights: .* at least 0, got -1 in row 1"),
        ({"boxes": SHARES * math.nan}, DataError, r"boxes: expected finite numbers, got nan, nan, nan, nan in row 0"),
        ({"boxes": SHARES - 1}, DataError, r"boxes: expected width and height of at least 0 .* in row 0"),
        ({"boxes": SHARES[:, :3]}, ShapeError, r"boxes: expected 4 floating-point numbers.*\(3, 3\)"),
        ({"boxes": SHARES.long()}, ShapeError, r"boxes: expected 4 floating-point numbers.*torch.int64"),
        (
            {"boxes": torch.cat((PIXELS[:, :2] + 50, PIXELS[:, 2:]), dim=1), "unit": "pixel_xyxy"},
            DataError,
            r"boxes: expected x1 <= x2 and y1 <= y2 .* is the unit corner and size",
        ),
        (
            {"boxes": torch.cat((SHARES, torch.full((3, 1), 45.0)), dim=1)},
            ShapeError,
            r"boxes: expected angles in radians, got 45; that looks like degrees",
        ),
        (
            {"boxes": torch.cat((PIXELS, torch.zeros(3, 1)), dim=1), "unit": "pixel_xyxy"},
            ShapeError,
            r"unit: expected 'normalized_cxcywh' or 'pixel_cxcywh' for boxes with an angle, got 'pixel_xyxy'",
        ),
        ({"keypoints": torch.zeros(3, 2, 4)}, ShapeError, r"keypoints: expected \(N, K, 2\) or \(N, K, 3\)"),
        ({"keypoints": torch.full((3, 2, 3), 20.0)}, ShapeError, r"keypoints: expected shares .* got 20"),
        ({"keypoints": torch.full((3, 2, 3), 0.5)}, DataError, r"keypoints: expected visibility 0, 1 or 2, got 0.5"),
        ({"keypoints": torch.full((3, 2, 2), math.inf)}, DataError, "keypoints: expected finite numbers, got inf"),
        ({"attributes": {"loc": torch.tensor([0, -2, 1])}}, DataError, r"attributes\['loc'\]: .* got -2 in row 1"),
        ({"attributes": {"a": torch.tensor([[0.0], [7], [1]])}}, DataError, r"attributes\['a'\]: .* got 7 in row 1"),
        ({"masks": torch.zeros(3, 4)}, ShapeError, r"masks: expected \(N, h, w\), got \(3, 4\)"),
        ({"ignore": torch.zeros(3)}, ShapeError, r"ignore: expected a bool per row, got torch.float32"),
        ({"instance_map": torch.zeros(2, 4, 4).int()}, ShapeError, r"instance_map: expected \(B, h, w\) with B = 3"),
        ({"image_size": (0, 100)}, ShapeError, r"image_size: expected \(height, width\) in pixels, .* \(0, 100\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(change, error, message):
    with pytest.raises(error, match=f"targets_from_rows: {message}" if message[0] != "e" else message):
        rows(**change)


def test_unchecked_values_are_trusted():
    assert rows(boxes=PIXELS, check=False).boxes.max() > 1000


def test_boxes_across_the_border_and_without_area_are_welcome():
    boxes = torch.tensor([[1.05, 0.5, 0.3, 0.4], [-0.1, 0.2, 0.5, 0.4], [0.25, 0.5, 0.0, 1.0]])

    assert rows(boxes=boxes).valid.sum() == 3


def padded(**changes):
    boxes = torch.zeros(2, 3, 4)
    boxes[0, :2], boxes[1, 1] = PIXELS[:2], PIXELS[2]
    valid = torch.tensor([[True, True, False], [False, True, False]])
    values = {"labels": torch.tensor([[5, 1, 9], [9, 3, 9]]), "boxes": boxes, "valid": valid}
    values |= {"image_size": SIZE, "unit": "pixel_xyxy"} | changes
    return targets_from_padded(values.pop("labels"), values.pop("boxes"), values.pop("valid"), **values)


def test_padded_slots_stay_where_they_are():
    targets = padded()

    assert targets.valid.tolist() == [[True, True, False], [False, True, False]]
    assert targets.labels.tolist() == [[5, 1, 0], [0, 3, 0]]
    assert torch.equal(targets.boxes[1, 1], PIXELS[2])


def test_values_of_unused_slots_are_not_read():
    boxes = torch.full((2, 3, 4), math.nan)
    boxes[0, :2], boxes[1, 1] = PIXELS[:2], PIXELS[2]
    points = torch.full((2, 3, 1, 3), math.nan)
    points[0, :2], points[1, 1] = torch.tensor([3.0, 4.0, 1.0]), torch.tensor([3.0, 4.0, 1.0])

    targets = padded(boxes=boxes, keypoints=points, attributes={"loc": torch.full((2, 3), 2)}, num_classes=6)

    assert torch.equal(targets.boxes, padded().boxes)
    assert targets.keypoints.isfinite().all()
    assert targets.attributes["loc"].tolist() == [[2, 2, -1], [-1, 2, -1]]


def test_without_valid_a_negative_label_is_an_unused_slot():
    labels = torch.tensor([[5, 1, -1], [-1, 3, -1]])

    assert torch.equal(padded(labels=labels, valid=None).valid, padded().valid)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": torch.tensor([5, 1])}, ShapeError, r"labels: expected \(B, M\), got \(2,\)"),
        ({"boxes": torch.zeros(2, 4, 4)}, ShapeError, r"boxes: expected \(B, M, ...\) = \(2, 3, ...\).*\(2, 4, 4\)"),
        ({"valid": torch.ones(3, 2) > 0}, ShapeError, r"valid: expected \(B, M, ...\) = \(2, 3, ...\)"),
        ({"unit": "normalized_xyxy"}, ShapeError, r"boxes: expected shares .* say unit='pixel_xyxy'"),
        ({"num_classes": 3}, DataError, r"labels: .* from 0 to 2, got 5 in image 0, slot 0"),
        ({"labels": torch.tensor([[5, 1, 0], [0, -3, 0]])}, DataError, r"labels: .* got -3 in image 1, slot 1"),
    ],
)
def test_what_cannot_be_is_named_by_image_and_slot(change, error, message):
    with pytest.raises(error, match=f"targets_from_padded: {message}"):
        padded(**change)
