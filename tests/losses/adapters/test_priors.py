# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest
import torch
from tests.losses.scenes import generator, random_targets
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.errors import ShapeError
from boxwright.losses.adapters import from_yolov5_maps, yolov5_grid
from boxwright.losses.recipes import yolov5_detect
from boxwright.ops.decode import Anchor

SIZE, STRIDES, CLASSES = (64, 96), (8, 16, 32), 3
ANCHORS = [[(10, 13), (16, 30)], [(30, 61), (62, 45)], [(59, 119), (116, 90)]]  # px


def raw_maps(*, batch=2, columns=5 + CLASSES, strides=STRIDES, dtype=torch.float64):
    source = generator(0)
    return [torch.randn(batch, 2, SIZE[0] // s, SIZE[1] // s, columns, generator=source, dtype=dtype) for s in strides]


def build(maps, **changes):
    values = {"anchors": ANCHORS, "strides": STRIDES, "anchor_unit": "pixel", "num_classes": CLASSES} | changes
    return from_yolov5_maps(maps, values.pop("anchors"), values.pop("strides"), **values)


def levels(outputs):
    return (*outputs.auxiliary, outputs.final)


def test_a_candidate_finds_its_own_columns_and_anchor():
    maps = raw_maps()
    maps[1][1, 1, 2, 5] = torch.arange(8.0)

    preds = levels(build(maps))[1]

    place = 1 * 4 * 6 + 2 * 6 + 5  # second anchor, row 2, column 5
    assert preds.box_raw[1, place].tolist() == [0, 1, 2, 3]
    assert preds.objectness[1, place] == 4
    assert preds.logits[1, place].tolist() == [5, 6, 7]
    assert preds.cells.points[place].tolist() == [5.5 * 16, 2.5 * 16]
    assert preds.cells.prior_wh[place].tolist() == [62, 45]
    assert preds.decoder == Anchor()
    assert (preds.layer, preds.cells.first_level, preds.cells.total_levels) == (1, 1, 3)


def test_published_maps_are_not_copied():
    maps = raw_maps()

    assert [preds.table.data_ptr() for preds in levels(build(maps))] == [part.data_ptr() for part in maps]


def test_maps_of_a_convolution_give_the_same_loss_and_gradient():
    maps, targets = raw_maps(), random_targets(generator(1), (5, 3))
    published = [part.clone().requires_grad_() for part in maps]
    raw = [part.permute(0, 1, 4, 2, 3).flatten(1, 2).contiguous().requires_grad_() for part in maps]

    one, two = (yolov5_detect()(build(leaves), targets) for leaves in (published, raw))
    one.total.backward()
    two.total.backward()

    assert one.scalars() == two.scalars()
    assert {name.split("/")[1] for name in one.components} == {"box", "obj", "cls"}
    for here, there in zip(published, raw, strict=True):
        assert here.grad.ne(0).any()
        assert torch.equal(here.grad.permute(0, 1, 4, 2, 3).flatten(1, 2), there.grad)


def test_targets_prepared_with_the_whole_grid_fit_every_level():
    outputs, targets = build(raw_maps()), random_targets(generator(2), (5, 3))
    criterion = yolov5_detect()
    grid = yolov5_grid(SIZE, ANCHORS, STRIDES, anchor_unit="pixel")

    prepared = criterion.prepare(targets, grid)

    assert criterion(outputs, prepared).scalars() == criterion(outputs, targets).scalars()
    assert all(criterion.prepare(prepared, preds.grid) is prepared for preds in levels(outputs))


def test_works_on_fake_tensors_and_keeps_none_of_them():
    with FakeTensorMode():
        preds = build([torch.empty(2, 2, 64 // s, 96 // s, 8) for s in STRIDES]).final
        assert preds.logits.shape == (2, 12, CLASSES)
    assert type(build(raw_maps()).final.cells.points) is torch.Tensor


def test_anchors_in_cells_are_the_same_anchors():
    cells = torch.tensor(ANCHORS, dtype=torch.float64) / torch.tensor(STRIDES)[:, None, None]

    one = build(raw_maps(), anchors=cells, anchor_unit="cell")

    for here, there in zip(levels(one), levels(build(raw_maps())), strict=True):
        assert torch.allclose(here.cells.prior_wh, there.cells.prior_wh)


def test_coefficients_lie_behind_the_classes():
    maps, prototypes = raw_maps(columns=5 + CLASSES + 4), torch.zeros(2, 4, 16, 24, dtype=torch.float64)

    preds = build(maps, num_coefs=4, prototypes=prototypes).final

    assert torch.equal(preds.mask_coefs, maps[2].flatten(1, 3)[..., 8:])
    assert preds.prototypes is prototypes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 4}, r"maps\[0\]: expected .*5 \+ 4 classes \+ 0 mask coefficients = 9, .* got"),
        ({"anchors": ANCHORS[:2]}, "anchors: expected .* for each of 3 levels"),
        ({"anchors": [[(10, 13)]] * 3}, r"maps\[0\]: expected \(B, 1 anchors"),
        ({"anchors": [[(10, 13, 5)] * 2] * 3}, r"anchors: expected \(width, height\) pairs"),
        ({"anchors": [[(10, 0)] * 2] * 3}, "sides of more than 0, got 0"),
        ({"anchor_unit": "cell"}, "expected sides in cells, got 119; that looks like pixels"),
        (
            {"anchors": torch.tensor(ANCHORS, dtype=torch.float64) / torch.tensor(STRIDES)[:, None, None]},
            "expected sides in pixels, got largest sides .*; that looks like cells: say anchor_unit='cell'",
        ),
        ({"strides": (8, 16, 64)}, "divisible by the stride 64"),
        ({"image_size": (64, 64)}, r"maps\[0\]: expected 8 x 8 cells .*, got 8 x 12"),
        ({"num_coefs": 2, "num_classes": 1}, "num_coefs, prototypes: expected both or neither"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ShapeError, match=message):
        build(raw_maps(), **change)
