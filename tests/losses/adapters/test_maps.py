# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses

import pytest
import torch
from tests.losses.scenes import criterion, generator, random_targets
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.errors import ShapeError
from boxwright.losses.adapters import from_yolov8_joined, from_yolov8_maps
from boxwright.ops.decode import Distance, Oriented

SIZE, STRIDES, CLASSES = (64, 96), (8, 16, 32), 3
CELLS = 8 * 12 + 4 * 6 + 2 * 3


def raw_maps(bins=6, *, batch=2, size=SIZE, strides=STRIDES, classes=CLASSES, dtype=torch.float64, seed=0):
    source = generator(seed)
    return [
        torch.randn(batch, 4 * bins + classes, size[0] // s, size[1] // s, generator=source, dtype=dtype)
        for s in strides
    ]


def build(maps, **changes):
    return from_yolov8_maps(maps, **{"strides": STRIDES, "num_classes": CLASSES, "num_bins": 6} | changes)


def test_a_cell_finds_its_own_channels():
    maps = raw_maps()
    maps[1][1, 6 * 2 + 4, 2, 5] = 77.0  # level 1, image 1, row 2, column 5: third side, fifth bin
    maps[1][1, 6 * 4 + 1, 2, 5] = 88.0  # and class 1

    preds = build(maps).final

    cell = 8 * 12 + 2 * 6 + 5
    assert preds.cells.points[cell].tolist() == [5.5 * 16, 2.5 * 16]
    assert preds.box_raw[1, cell, 6 * 2 + 4] == 77.0
    assert preds.logits[1, cell, 1] == 88.0
    assert preds.box_raw.shape == (2, CELLS, 24)
    assert preds.decoder == Distance(num_bins=6)
    assert preds.image_size == SIZE


def test_the_gradient_of_the_maps_is_that_of_the_joined_tensors():
    maps, targets = raw_maps(), random_targets(generator(1), (4, 2))
    leaves = [part.clone().requires_grad_() for part in maps]
    flat = torch.cat([part.flatten(2) for part in maps], dim=2)
    boxes, scores = (part.clone().requires_grad_() for part in (flat[:, :24], flat[:, 24:]))

    one = criterion()(build(leaves), targets)
    two = criterion()(from_yolov8_joined(boxes, scores, STRIDES, image_size=SIZE, num_bins=6), targets)
    one.total.backward()
    two.total.backward()

    assert one.scalars() == two.scalars()
    together = torch.cat([leaf.grad.flatten(2) for leaf in leaves], dim=2)
    assert torch.equal(together, torch.cat((boxes.grad, scores.grad), dim=1))


@pytest.mark.parametrize(("bins", "strides", "classes"), [(1, (8, 16), 1), (16, (4, 8, 16, 32), 365), (7, (32,), 2)])
def test_any_bins_strides_and_classes(bins, strides, classes):
    maps = [part.abs() for part in raw_maps(bins, strides=strides, classes=classes)]

    outputs = build(maps, strides=strides, num_classes=classes, num_bins=bins)

    assert outputs.final.logits.shape[2] == classes
    assert outputs.final.box_raw.shape[2] == 4 * bins
    assert outputs.final.cells.level_strides == strides
    targets = random_targets(generator(2), (3, 0))
    targets = dataclasses.replace(targets, labels=targets.labels % classes)
    loss = criterion()(outputs, targets)
    assert loss.total.isfinite()
    assert loss.components["main/box"] > 0


def test_extra_heads_find_their_fields():
    maps = raw_maps()
    coefs, prototypes = torch.randn(2, 5, CELLS, dtype=torch.float64), torch.randn(2, 5, 16, 24, dtype=torch.float64)
    points, attribute = torch.randn(2, 4 * 3, CELLS).double(), torch.randn(2, 7, CELLS).double()
    points[1, 2 * 3 + 1, 9] = 55.0  # third keypoint, y, of cell 9

    preds = build(
        maps, mask_coefs=coefs, prototypes=prototypes, keypoints=points, attribute_logits={"action": attribute}
    ).final

    assert preds.mask_coefs[1, 9, 3] == coefs[1, 3, 9]
    assert preds.prototypes is prototypes
    assert preds.keypoints_raw.shape == (2, CELLS, 4, 3)
    assert preds.keypoints_raw[1, 9, 2, 1] == 55.0
    assert preds.attribute_logits["action"][0, 9, 6] == attribute[0, 6, 9]
    assert build(maps, keypoints=points, keypoint_form="offset").final.keypoint_form == "offset"
    assert build(maps, keypoints=points[:, :8], keypoint_values=2).final.keypoints_raw.shape == (2, CELLS, 4, 2)


def test_an_angle_makes_the_boxes_oriented():
    angle = torch.full((2, 1, CELLS), 0.25, dtype=torch.float64)

    preds = build(raw_maps(), angle=angle).final

    assert preds.decoder == Oriented(num_bins=6)
    assert preds.boxes.shape == (2, CELLS, 5)
    assert preds.boxes[..., 4].eq(0.25).all()


def test_role_and_exclusive_classes_are_passed_on():
    preds = build(raw_maps(), role="one2one", exclusive=True).final

    assert (preds.role, preds.exclusive) == ("one2one", True)


def test_works_on_fake_tensors():
    with FakeTensorMode():
        preds = build([torch.empty(2, 27, 64 // s, 96 // s) for s in STRIDES]).final
        assert preds.logits.shape == (2, CELLS, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 4}, r"maps\[0\]: expected .* 4 \* 6 \+ 4 = 28 channels .* got 27 in \(2, 27, 8, 12\)"),
        ({"num_bins": 16}, r"4 \* 16 \+ 3 = 67 channels .* got 27"),
        ({"strides": (8, 16)}, "one stride each, got 3 maps, 2 strides"),
        ({"strides": (32, 16, 8)}, r"strides: expected .* finest level first, got \(32, 16, 8\)"),
        ({"strides": (8, 8, 16)}, "finest level first"),
        ({"strides": (8, 16, 64)}, r"divisible by the stride 64, got 64 x 96; pad the images to a multiple of 64"),
        ({"strides": (8, 12, 32)}, r"divisible by the stride 12, got 64 x 96"),
        ({"strides": (16, 32, 64), "image_size": SIZE}, r"maps\[0\]: expected 4 x 6 cells .*stride 16"),
        ({"strides": (4, 8, 32)}, r"maps\[2\]: expected 1 x 1 cells for images of 32 x 48 px|stride 32, got 32 x 48"),
        ({"image_size": (128, 96)}, r"maps\[0\]: expected 16 x 12 cells for images of 128 x 96 px .*, got 8 x 12"),
        ({"image_size": (65, 96)}, r"image_size: expected height and width divisible by the stride 8, got 65 x 96"),
        ({"image_size": (0, 96)}, r"image_size: expected \(height, width\) in pixels"),
        ({"keypoints": torch.zeros(2, 12, 9).double()}, r"keypoints: expected \(B, n, A\) = \(2, n, 126\)"),
        ({"keypoints": torch.zeros(2, 10, CELLS).double()}, r"K \* 3 channels \(keypoint_values=3\), got 10"),
        ({"keypoints": torch.zeros(2, 12, CELLS).double(), "keypoint_values": 4}, "expected 2 .* or 3 .*, got 4"),
        ({"mask_coefs": torch.zeros(2, 5, CELLS).double()}, "mask_coefs, prototypes: expected both or neither"),
        (
            {"mask_coefs": torch.zeros(2, 5, CELLS).double(), "prototypes": torch.zeros(2, 6, 4, 4).double()},
            r"prototypes: expected \(B, Q, h, w\) with Q = 5, here \(2, 5, any, any\), got \(2, 6, 4, 4\)",
        ),
        ({"angle": torch.zeros(2, 2, CELLS).double()}, r"angle: expected \(B, 1, A\), here \(2, 1, 126\)"),
        ({"semantic_logits": torch.zeros(2, 4, 8, 8)}, r"semantic_logits: expected \(B, C, h, w\)"),
        ({"angle": torch.zeros(2, 1, CELLS)}, "angle: expected torch.float64 on cpu .* got torch.float32"),
        ({"attribute_logits": {"loc": torch.zeros(2, 7).double()}}, r"attribute_logits\['loc'\]: expected \(B, n, A\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ShapeError, match=message):
        build(raw_maps(), **change)


def test_maps_of_whole_numbers_and_other_types_are_refused():
    maps = raw_maps()

    with pytest.raises(ShapeError, match=r"maps\[1\]: expected torch.float64 .*, got torch.float32"):
        build([maps[0], maps[1].float(), maps[2]])
    with pytest.raises(ShapeError, match=r"maps\[0\]: expected raw outputs as floating-point numbers, got torch.int64"):
        build([part.long() for part in maps])
    with pytest.raises(ShapeError, match=r"maps\[1\]: expected \(B, .*, here \(2, 27, any, any\), got \(1, 27, 4, 6\)"):
        build([maps[0], maps[1][:1], maps[2]])


def test_a_joined_head_of_another_image_size_is_refused():
    boxes, scores = torch.zeros(2, 24, CELLS), torch.zeros(2, 3, CELLS)

    with pytest.raises(ShapeError, match=r"boxes: expected .* A = 84 cells, here \(any, 24, 84\), got \(2, 24, 126\)"):
        from_yolov8_joined(boxes, scores, STRIDES, image_size=(64, 64), num_bins=6)
    with pytest.raises(ShapeError, match=r"scores: expected .*, got \(2, 3, 125\)"):
        from_yolov8_joined(boxes, scores[..., 1:], STRIDES, image_size=SIZE, num_bins=6)
    with pytest.raises(ShapeError, match="divisible by the stride 32, got 64 x 80"):
        from_yolov8_joined(boxes, scores, STRIDES, image_size=(64, 80), num_bins=6)
