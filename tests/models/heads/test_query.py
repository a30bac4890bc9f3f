# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.errors import ConfigError
from boxwright.models.heads.query import Query, QueryConfig, first_boxes
from boxwright.ops.denoising import Denoising
from boxwright.ops.objects import with_objects
from boxwright.structures import Outputs, Targets
from boxwright.vocabulary import AttributeSpec

SIZE = (64, 96)
SMALL = QueryConfig(num_classes=3, queries=20, layers=3, width=16, heads=4, points=2, hidden=32)


def built(config: QueryConfig = SMALL, *, moving: bool = True) -> Query:
    """A head for maps of 4, 6 and 8 channels; with `moving`, its boxes are not those that a fresh one starts with."""
    torch.manual_seed(0)
    head = config.build((4, 6, 8), (8, 16, 32))
    for box in (head.proposal_box, *head.decoder.boxes) if moving else ():
        nn.init.normal_(box.layers[-1].weight, std=0.2)
    return head


def maps_of(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    return tuple(
        torch.randn(2, width, SIZE[0] // stride, SIZE[1] // stride, generator=generator, dtype=dtype)
        for width, stride in ((4, 8), (6, 16), (8, 32))
    )


def some_targets(*counts: int, dtype: torch.dtype = torch.float32, **extras: Any) -> Targets:
    """Objects of these counts; slots hold them in order."""
    slots = max((*counts, 1))
    corners = torch.rand(len(counts), slots, 2, 2, generator=torch.Generator().manual_seed(3), dtype=dtype)
    size = torch.tensor((SIZE[1], SIZE[0]), dtype=dtype)
    boxes = torch.cat((corners.amin(2) * size, corners.amax(2) * size + 1), dim=-1)
    valid = torch.arange(slots) < torch.tensor(counts)[:, None]
    return with_objects(Targets(torch.zeros_like(valid, dtype=torch.int64), boxes, valid, **extras))


def roles(outputs: Outputs) -> list[tuple[str, int]]:
    return [(preds.role, preds.layer) for preds in (*outputs.auxiliary, outputs.final)]


def test_roles_and_layers_are_those_that_the_criterion_has_rules_for():
    head, decoders = built(), [("decoder", 0), ("decoder", 1)]
    targets = some_targets(2, 1)

    assert roles(head(maps_of(), SIZE)) == [("encoder", 0), *decoders, ("decoder", 2)]
    outputs = head(maps_of(), SIZE, targets)
    assert roles(outputs) == [
        ("encoder", 0),
        *decoders,
        ("denoise", 0),
        ("denoise", 1),
        ("denoise", 2),
        ("decoder", 2),
    ]
    assert outputs.final.end_to_end
    assert outputs.final.image_size == SIZE
    assert outputs.final.grid is None
    assert head.grid(SIZE) is None
    assert all((preds.known is not None) == (preds.role == "denoise") for preds in outputs.auxiliary)
    slots = 2 * 50 * 2  # groups of 100 // 2, each with a positive and a negative copy of up to 2 objects
    assert {preds.logits.shape for preds in outputs.auxiliary if preds.role == "denoise"} == {(2, slots, 3)}
    assert {preds.box_raw.shape for preds in outputs.auxiliary if preds.role != "denoise"} == {(2, 20, 4)}


@pytest.mark.parametrize("counts", [(2, 1), (0, 3), (0, 0), (120, 1)])
def test_targets_change_nothing_of_the_matching_queries(counts):
    head = built().double()
    with torch.no_grad():
        without = head(maps_of(torch.float64), SIZE)
        given = head(maps_of(torch.float64), SIZE, some_targets(*counts, dtype=torch.float64))

    matching = [preds for preds in (*given.auxiliary, given.final) if preds.role != "denoise"]
    for one, other in zip((*without.auxiliary, without.final), matching, strict=True):
        torch.testing.assert_close(one.logits, other.logits, rtol=0, atol=1e-12)
        torch.testing.assert_close(one.box_raw, other.box_raw, rtol=0, atol=1e-12)


def test_without_the_mask_targets_would_leak(monkeypatch):
    """The test above can fail."""
    head = built().double()
    make = Denoising.__call__

    def open_to_all(self: Denoising, *args: Any) -> Any:
        queries = make(self, *args)
        return dataclasses.replace(queries, blocked=torch.zeros_like(queries.blocked))

    monkeypatch.setattr(Denoising, "__call__", open_to_all)
    with torch.no_grad():
        without = head(maps_of(torch.float64), SIZE).final.logits
        given = head(maps_of(torch.float64), SIZE, some_targets(2, 1, dtype=torch.float64)).final.logits

    assert (without - given).abs().amax() > 1e-3


def test_a_fresh_head_gives_the_first_boxes_of_its_cells_and_a_score_of_one_percent():
    for classes in (1, 3, 80):
        head = built(dataclasses.replace(SMALL, num_classes=classes), moving=False)
        for heads in (head.proposal_class, *head.decoder.classes):
            assert heads.bias.tolist() == pytest.approx([-4.59512] * classes)
    anchors = first_boxes(((8, 12), (4, 6), (2, 3)))[0].sigmoid().float()

    with torch.no_grad():
        outputs = head(maps_of(), SIZE)

    for preds in (*outputs.auxiliary, outputs.final):
        distance = (preds.box_raw[:, :, None] - anchors).abs().amax(-1)
        assert distance.amin(-1).amax() < 1e-6
        assert len(set(distance.argmin(-1)[0].tolist())) == 20


def test_first_boxes_and_which_cells_may_be_chosen():
    anchors, valid = first_boxes(((1, 80), (1, 2)))

    torch.testing.assert_close(
        anchors[80:].sigmoid(), torch.tensor([[0.25, 0.5, 0.1, 0.1], [0.75, 0.5, 0.1, 0.1]], dtype=torch.float64)
    )
    # The outermost of 80 columns have their centre at 0.00625 of the width.
    assert valid[:, 0].tolist() == [False, *[True] * 78, False, True, True]
    assert anchors[0].tolist() == [math.inf] * 4


def test_the_best_cells_become_queries():
    head = built(dataclasses.replace(SMALL, queries=4)).eval()
    maps = maps_of()

    with torch.no_grad():
        memory = torch.cat([p(x).flatten(2) for p, x in zip(head.project, maps, strict=True)], 2).transpose(1, 2)
        logits = head.proposal_class(head.encode(memory))  # every cell of these maps is valid
        expected = torch.stack([image[image.amax(-1).argsort(descending=True)[:4]] for image in logits])
        found = head(maps, SIZE).auxiliary[0].logits

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_small_image_has_fewer_queries():
    head = built(dataclasses.replace(SMALL, queries=300))

    assert head(maps_of(), SIZE).final.logits.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 3)


def test_a_copy_for_inference_keeps_what_one_layer_needs():
    config = dataclasses.replace(SMALL, evaluated=2)
    head = built(config).eval()
    with torch.no_grad():
        expected = head(maps_of(), SIZE)
        head.without_auxiliary()
        found = head(maps_of(), SIZE, some_targets(2, 1))

    assert (expected.final.layer, found.final.layer, found.auxiliary) == (1, 1, ())
    assert len(expected.auxiliary) == 3
    torch.testing.assert_close(found.final.logits, expected.final.logits, rtol=0, atol=0)
    torch.testing.assert_close(found.final.box_raw, expected.final.box_raw, rtol=0, atol=0)
    assert head.label_embedding is None
    assert set(head.class_rows) == {
        f"{n}.{k}" for n in ("proposal_class", "decoder.classes.1") for k in ("weight", "bias")
    }
    assert set(head.class_rows) <= set(head.state_dict())


@pytest.mark.parametrize("padding_row", [False, True])
def test_class_rows_are_the_tensors_with_one_row_for_each_class(padding_row):
    head = built(dataclasses.replace(SMALL, num_classes=7, padding_row=padding_row))

    sides = {name: value.shape[0] for name, value in head.state_dict().items() if value.ndim}
    sevens = {name for name, side in sides.items() if side == 7}

    assert set(head.class_rows) == sevens | {"label_embedding.weight"}
    assert ("label_embedding.weight" in sevens) is not padding_row
    assert {name: layout.size(7) for name, layout in head.class_rows.items()} == {
        name: sides[name] for name in head.class_rows
    }


def test_attributes_are_told_by_every_decoder_layer():
    specs = (
        AttributeSpec(name="loc", values=("left", "right")),
        AttributeSpec(name="on", values=("a", "b", "c"), multi_label=True),
    )
    outputs = built(dataclasses.replace(SMALL, attributes=specs))(maps_of(), SIZE, some_targets(2, 1))

    for preds in (*outputs.auxiliary, outputs.final):
        if preds.role == "encoder":
            assert preds.attribute_logits is None
        else:
            shapes = {name: tuple(part.shape[1:]) for name, part in preds.attribute_logits.items()}
            assert shapes == {"loc": (preds.logits.shape[1], 2), "on": (preds.logits.shape[1], 3)}


@pytest.mark.parametrize("counts", [(2, 1), (0, 0)])
def test_every_parameter_has_a_gradient_with_and_without_objects(counts):
    """Ranks have to agree on which parameters have one; without objects that of the embedding is zero."""
    head = built()
    outputs = head(maps_of(), SIZE, some_targets(*counts))
    sum(
        preds.logits.square().sum() + preds.box_raw.square().sum() for preds in (*outputs.auxiliary, outputs.final)
    ).backward()

    grads = {name: value.grad for name, value in head.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None] == []
    silent = [name for name, grad in grads.items() if grad.abs().sum() == 0]
    assert silent == ([] if any(counts) else ["label_embedding.weight"])


def test_an_empty_slot_has_no_embedding_and_takes_no_gradient():
    head = built(dataclasses.replace(SMALL, padding_row=True))
    outputs = head(maps_of(), SIZE, some_targets(0, 3))
    denoising = [preds for preds in outputs.auxiliary if preds.role == "denoise"]
    sum(preds.logits[0].square().sum() for preds in denoising).backward()  # image 0 has empty slots only

    assert head.label_embedding.weight.grad.abs().sum() == 0


def test_boxes_stay_exact_under_autocast():
    """A fresh head gives the first boxes; in bfloat16 they would be up to 2e-3 of the image off."""
    head = built(moving=False)
    anchors = first_boxes(((8, 12), (4, 6), (2, 3)))[0].sigmoid().float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = head(maps_of(), SIZE, some_targets(2, 1))

    assert {preds.logits.dtype for preds in (*outputs.auxiliary, outputs.final)} == {torch.float32}
    for preds in (*outputs.auxiliary, outputs.final):
        if preds.role != "denoise":
            assert (preds.box_raw[:, :, None] - anchors).abs().amax(-1).amin(-1).amax() < 1e-6


def test_prepared_targets_need_no_sync():
    """Fake tensors have no values: a look at one would raise."""
    targets = some_targets(2, 1)
    head = built()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        held = {name: mode.from_tensor(getattr(targets, name)) for name in ("labels", "boxes", "valid")}
        objects = dataclasses.replace(
            targets.objects, **{name: mode.from_tensor(getattr(targets.objects, name)) for name in ("image", "slot")}
        )
        outputs = head(
            tuple(mode.from_tensor(x) for x in maps_of()),
            SIZE,
            dataclasses.replace(targets, **held).with_prepared(objects=objects),
        )
        outputs.final.logits.sum().backward()

    assert outputs.final.logits.shape == (2, 20, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "model.head.num_classes: expected at least 1, got 0"),
        ({"evaluated": 7}, "model.head.evaluated: expected a layer from 1 to 6, got 7"),
        ({"width": 100}, "model.head.width: expected a multiple of 8 heads, got 100"),
    ],
)
def test_what_cannot_be_built(options, message):
    with pytest.raises(ConfigError, match=message):
        QueryConfig(**options)
