# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

from dataclasses import fields

import pytest
import torch
from tests.losses.scenes import generator, random_targets
from tests.losses.test_anchor_based import faked
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.config import from_dict
from boxwright.errors import ConfigError
from boxwright.losses.adapters import from_yolov5_maps
from boxwright.losses.recipes import yolov5_detect, yolov5_exclusive, yolov5_segment
from boxwright.models.heads.anchor_based import P5_ANCHORS, AnchorBasedConfig
from boxwright.models.heads.branches import MaskConfig
from boxwright.structures import Grid, Outputs, Predictions
from boxwright.vocabulary import AttributeSpec

CHANNELS, STRIDES, SIZE = (6, 8, 10), (8, 16, 32), (64, 96)
MASKS = MaskConfig(count=4, hidden=5, upsample="nearest")
# golden/numeric.json, bias_prior_v5: by stride, and by number of classes
OBJECTNESS = {8: -6.684611727667927, 16: -5.298317366548036, 32: -3.912023005428146, 64: -2.5257286443082556}
CLASSES = {1: 11.00209984120879, 2: -0.5108356237159911, 20: -3.4552651292480823, 80: -4.880273602815283}


def build(num_classes=3, **options):
    return AnchorBasedConfig(num_classes=num_classes, **options).build(CHANNELS, STRIDES)


def maps_of(batch=2, memory_format=torch.contiguous_format):
    source = generator(0)
    return tuple(
        torch.randn(batch, width, SIZE[0] // stride, SIZE[1] // stride, generator=source).to(
            memory_format=memory_format
        )
        for width, stride in zip(CHANNELS, STRIDES, strict=True)
    )


def levels(outputs: Outputs) -> tuple[Predictions, ...]:
    return (*outputs.auxiliary, outputs.final)


@pytest.mark.parametrize("num_classes", CLASSES)
def test_priors_are_added_to_the_random_biases(num_classes):
    strides, anchors = (8, 16, 32, 64), (*P5_ANCHORS, P5_ANCHORS[2])
    torch.manual_seed(0)
    head = AnchorBasedConfig(num_classes=num_classes, anchors=anchors).build((4, 4, 4, 4), strides)
    torch.manual_seed(0)
    random = [torch.nn.Conv2d(4, 3 * (5 + num_classes), 1).bias for _ in strides]

    for stride, conv, start in zip(strides, head.level_convs, random, strict=True):
        added = (conv.bias - start).view(3, -1).detach()
        assert added[:, :4].eq(0).all()
        torch.testing.assert_close(added[:, 4], torch.full((3,), OBJECTNESS[stride]), rtol=1e-6, atol=1e-6)
        wanted = torch.full((3, num_classes), CLASSES[num_classes])
        torch.testing.assert_close(added[:, 5:], wanted, rtol=1e-6, atol=1e-6)


def test_spring_2021_has_a_milder_prior_of_one_class():
    torch.manual_seed(0)
    head = build(num_classes=1, class_margin=0.99)
    torch.manual_seed(0)
    start = torch.nn.Conv2d(6, 18, 1).bias

    assert (head.level_convs[0].bias - start)[5].item() == pytest.approx(4.09434, abs=1e-4)


def test_anchors_are_kept_in_cells():
    head = build()

    assert head.anchors[0, 0].tolist() == [1.25, 1.625]
    assert head.anchors[2, 2].tolist() == [373 / 32, 326 / 32]
    assert next(iter(head.state_dict())) == "anchors"
    assert not dict(head.named_parameters()).keys() & {"anchors"}


def test_anchors_that_shrink_with_the_stride_are_turned_round():
    head = build(anchors=P5_ANCHORS[::-1])

    assert head.priors == P5_ANCHORS
    assert torch.equal(head.anchors, build().anchors)
    assert head.grid(SIZE).level_priors == P5_ANCHORS


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("masks", [None, MASKS])
def test_outputs_are_what_the_adapter_makes_of_the_published_maps(masks, memory_format):
    head = build(masks=masks, exclusive=True).eval()
    maps = maps_of(memory_format=memory_format)
    count = 0 if masks is None else masks.count

    with torch.no_grad():
        found = head(maps, SIZE)
        raw = [conv(x) for conv, x in zip(head.level_convs, maps, strict=True)]
        wanted = from_yolov5_maps(
            raw,
            P5_ANCHORS,
            STRIDES,
            anchor_unit="pixel",
            num_classes=3,
            num_coefs=count,
            prototypes=None if masks is None else head.proto(maps[0]),
            exclusive=True,
        )

    assert len(levels(found)) == len(levels(wanted)) == 3
    for one, other in zip(levels(found), levels(wanted), strict=True):
        for of in fields(Predictions):
            assert_same(getattr(one, of.name), getattr(other, of.name), of.name)
        for name in ("logits", "box_raw", "objectness"):
            assert getattr(one, name).untyped_storage().data_ptr() == one.table.untyped_storage().data_ptr()


def assert_same(one: object, other: object, name: str) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), name
    elif isinstance(one, Grid):
        for of in fields(Grid):
            assert_same(getattr(one, of.name), getattr(other, of.name), f"{name}.{of.name}")
    else:
        assert one == other, name


def test_published_maps_are_within_reach():
    """A level's rows, unflattened, are (B, anchors, rows, columns, 5 + classes)."""
    head, maps = build().eval(), maps_of()

    with torch.no_grad():
        preds = levels(head(maps, SIZE))[1]
        raw = head.level_convs[1](maps[1])

    published = preds.table.unflatten(1, (3, *preds.grid.shapes[0]))
    assert published.shape == (2, 3, 4, 6, 8)
    assert torch.equal(published[1, 2, 3, 5], raw[1, 2 * 8 : 3 * 8, 3, 5])


def test_zeros_are_boxes_of_the_anchors_in_the_middle_of_their_cells():
    head = build().eval()
    with torch.no_grad():
        for conv in head.level_convs:
            conv.weight.zero_()
            conv.bias.zero_()
        found = head(maps_of(), SIZE).detection

    row = 3 * (8 * 12) + 1 * (4 * 6) + 2 * 6 + 5  # level 1, anchor 1 (62 x 45), row 2, column 5
    x, y = 5.5 * 16, 2.5 * 16
    assert found.boxes[1, row].tolist() == [x - 31, y - 22.5, x + 31, y + 22.5]


def test_the_joined_levels_are_the_whole_grid():
    head = build()
    found, grid = head(maps_of(), SIZE).detection, head.grid(SIZE)

    for of in fields(Grid):
        if of.name != "total_levels":
            assert_same(getattr(found.grid, of.name), getattr(grid, of.name), of.name)
    assert found.logits.shape == (2, len(grid.points), 3)


CRITERIA = {
    "detect": (yolov5_detect(), {}),
    "exclusive": (yolov5_exclusive(), {"exclusive": True}),
    "segment": (yolov5_segment(), {"masks": MASKS}),
}


def labels(name: str, masks: bool):
    targets = random_targets(generator(4), (4, 7), dtype=torch.float32)
    if not masks:
        return targets
    drawn = torch.randint(0, 8, (2, 16, 24), generator=generator(5), dtype=torch.int32)
    return type(targets)(targets.labels, targets.boxes, targets.valid, instance_map=drawn)


@pytest.mark.parametrize("name", CRITERIA)
def test_targets_prepared_with_the_heads_grid_give_the_same_loss(name):
    criterion, options = CRITERIA[name]
    head, targets = build(**options), labels(name, name == "segment")

    prepared = criterion.prepare(targets, head.grid(SIZE))
    assert sum(prepared.prior_matches.level_rows) > 0
    outputs = head(maps_of(), SIZE)
    one, two = criterion(outputs, targets), criterion(outputs, prepared)

    assert one.scalars() == two.scalars()
    assert {key.split("/")[0] for key in one.components} == {"main", "main1", "main2"}


@pytest.mark.parametrize("name", ["detect", "exclusive"])
def test_a_prepared_step_needs_no_sync(name):
    criterion, options = CRITERIA[name]
    prepared = criterion.prepare(labels(name, False), build().grid(SIZE))

    with FakeTensorMode() as mode:
        head = build(**options)
        outputs = head(tuple(mode.from_tensor(x) for x in maps_of()), SIZE)
        loss = criterion(outputs, faked(prepared, mode))
        loss.total.backward()

        assert all(value.grad.shape == value.shape for value in head.parameters())


def test_attributes_are_rows_of_every_anchor():
    specs = (
        AttributeSpec(name="type", values=("a", "b")),
        AttributeSpec(name="seen", values=("x",), multi_label=True),
    )
    head, maps = build(attributes=specs).eval(), maps_of()

    with torch.no_grad():
        found = head(maps, SIZE)
        raw = head.attribute_convs[0][1](maps[1])

    assert list(found.final.attribute_logits) == ["type", "seen"]
    assert found.detection.attribute_logits["type"].shape == (2, 3 * (96 + 24 + 6), 2)
    row = 2 * 24 + 3 * 6 + 5  # anchor 2, row 3, column 5
    assert torch.equal(levels(found)[1].attribute_logits["type"][1, row], raw[1, 4:6, 3, 5])
    assert build().forward(maps, SIZE).final.attribute_logits is None


def test_raw_outputs_keep_their_precision_under_autocast():
    head, maps = build(), maps_of()
    with torch.autocast("cpu", torch.bfloat16):
        found = head(tuple(x.bfloat16() for x in maps), SIZE)
    exact = head(tuple(x.bfloat16().float() for x in maps), SIZE)

    assert found.final.table.dtype == torch.float32
    assert torch.equal(found.final.table, exact.final.table)


def test_grids_are_kept_per_image_size():
    head, maps = build(), maps_of()
    with torch.inference_mode():
        first = head(maps, SIZE).final.grid

    assert head(maps, SIZE).final.grid is first
    assert not first.points.is_inference()
    assert head.grid(SIZE) is head.grid(SIZE, "cpu")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_classes": 0}, "model.head.num_classes: expected at least 1, got 0"),
        ({"anchors": []}, "expected equally many anchors for every level and at least one"),
        ({"anchors": [[[1, 2]], [[3, 4], [5, 6]]]}, r"for every level and at least one, got \[1, 2\]"),
        ({"anchors": [[[1, 0]]]}, "expected sides of more than 0 px, got 0"),
        ({"class_margin": 1.0}, "class_margin: expected less than 1, got 1.0"),
        ({"attributes": [{"name": "a", "values": ["x", "y"]}] * 2}, "expected different names, got a, a"),
    ],
)
def test_wrong_numbers_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(AnchorBasedConfig, values)


def test_anchors_for_another_number_of_levels():
    with pytest.raises(ConfigError, match=r"anchors for 2 levels \(strides \(8, 16\)\), got 3"):
        AnchorBasedConfig().build((4, 4), (8, 16))
