# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest
import torch
from tests.losses.scenes import generator, random_targets
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.errors import ShapeError
from boxwright.losses import (
    Attribute,
    denoising_pairs,
    from_detr_stacks,
    rtdetr,
    set_prediction_components,
    targets_from_rows,
)
from boxwright.ops.denoising import Denoising

SIZE, BATCH, QUERIES, CLASSES = (64, 96), 2, 12, 3


def stacks(layers=3, *, queries=QUERIES, seed=0, dtype=torch.float64):
    source = generator(seed)
    boxes = torch.rand(layers, BATCH, queries, 4, generator=source, dtype=dtype) * 0.4 + 0.1
    return boxes, torch.randn(layers, BATCH, queries, CLASSES, generator=source, dtype=dtype)


def test_layers_have_their_roles_and_the_last_is_the_output():
    boxes, logits = stacks()

    outputs = from_detr_stacks(boxes, logits, image_size=SIZE)

    labels = [preds.label for preds in (*outputs.auxiliary, outputs.final)]
    assert labels == ["encoder", "decoder", "decoder1"]
    assert torch.equal(outputs.final.logits, logits[2])
    cx, cy, w, h = boxes[2, 1, 5].tolist()
    assert outputs.final.boxes[1, 5].tolist() == pytest.approx(
        [(cx - w / 2) * 96, (cy - h / 2) * 64, (cx + w / 2) * 96, (cy + h / 2) * 64]
    )
    only = from_detr_stacks(boxes, logits, image_size=SIZE, encoder_first=False)
    assert [preds.label for preds in (*only.auxiliary, only.final)] == ["decoder", "decoder1", "decoder2"]


def test_every_layer_gets_a_gradient():
    boxes, logits = (part.requires_grad_() for part in stacks())
    targets = random_targets(generator(1), (3, 2))

    loss = rtdetr()(from_detr_stacks(boxes, logits, image_size=SIZE), targets)
    loss.total.backward()

    assert boxes.grad.flatten(1).ne(0).any(dim=1).all()
    # A pair whose boxes do not overlap has quality 0, and then its varifocal weight is 0.
    assert (logits.grad.flatten(1).ne(0).double().mean(dim=1) > 0.9).all()


def test_denoising_layers_are_matched_as_their_builder_says():
    targets = random_targets(generator(2), (3, 0))
    made = Denoising(budget=6)(targets, SIZE, CLASSES, QUERIES, generator(0))
    positives = [made.known.anchor[made.known.image == image] for image in range(BATCH)]
    noisy = stacks(2, queries=made.labels.shape[1], seed=3)

    pairs = denoising_pairs(positives, targets)
    outputs = from_detr_stacks(*stacks(), image_size=SIZE, denoising=(*noisy, pairs))
    loss = rtdetr()(outputs, targets)

    for name in ("image", "anchor", "target"):
        assert torch.equal(getattr(pairs, name), getattr(made.known, name))
    assert {"denoise/class", "denoise1/class", "decoder1/class", "encoder/giou"} <= set(loss.components)
    assert outputs.final.label == "decoder1"
    named = set_prediction_components(loss)
    assert len(named) == 12
    assert torch.allclose(sum(named.values()), loss.total)


def test_pairs_skip_unused_slots():
    targets = targets_from_rows(
        torch.tensor([0, 0, 0]), torch.zeros(3), torch.tensor([[0.5] * 4, [0] * 4, [0.5] * 4]), batch=2, image_size=SIZE
    )

    pairs = denoising_pairs([torch.tensor([0, 1, 6, 7]), torch.tensor([], dtype=torch.int64)], targets)

    assert pairs.target.tolist() == [0, 2, 0, 2]
    assert pairs.anchor.tolist() == [0, 1, 6, 7]


def test_attributes_are_of_every_layer_or_of_the_output_only():
    attribute = torch.randn(BATCH, QUERIES, 5, dtype=torch.float64)

    outputs = from_detr_stacks(*stacks(), image_size=SIZE, attribute_logits={"loc": attribute})

    assert outputs.final.attribute_logits["loc"] is attribute
    assert all(preds.attribute_logits is None for preds in outputs.auxiliary)
    rows = torch.tensor([[0, 1, 0.5, 0.5, 0.2, 0.3], [1, 0, 0.3, 0.3, 0.2, 0.2]], dtype=torch.float64)
    targets = targets_from_rows(
        rows[:, 0], rows[:, 1], rows[:, 2:], batch=2, image_size=SIZE, attributes={"loc": torch.tensor([4, -1])}
    )
    loss = rtdetr(attributes=[Attribute(name="loc", missing="skip")])(outputs, targets)
    assert loss.components["decoder1/loc"] > 0
    assert loss.components["decoder/loc"] == 0
    every = attribute.expand(3, *attribute.shape)
    loss = rtdetr(attributes=[Attribute(name="loc")])(
        from_detr_stacks(*stacks(), image_size=SIZE, attribute_logits={"loc": every}), targets
    )
    assert min(loss.components[f"{label}/loc"] for label in ("encoder", "decoder", "decoder1")) > 0


def test_values_are_not_looked_at_where_that_would_be_a_sync():
    with FakeTensorMode():
        boxes, logits = torch.empty(3, BATCH, QUERIES, 4), torch.empty(3, BATCH, QUERIES, CLASSES)
        assert from_detr_stacks(boxes, logits, image_size=SIZE).final.boxes.shape == (BATCH, QUERIES, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b, z: (b[0], z[0]), r"boxes: expected \(layers, B, Q, 4\); one layer is boxes\[None\].*\(2, 12, 4\)"),
        (lambda b, z: (b, z[:2]), r"logits: expected .*, here \(3, 2, 12, 3\), got \(2, 2, 12, 3\)"),
        (lambda b, z: (b, z[:, :, 1:]), r"logits: .* got \(3, 2, 11, 3\)"),
        (lambda b, z: (b, z.float()), "logits: expected torch.float64 .*, got torch.float32"),
        (lambda b, z: (b[:1], z[:1]), "expected at least 2 layers, .*got 1; say encoder_first=False"),
        (lambda b, z: (b * 96, z), "boxes: expected shares of the image, 0 to 1, after the sigmoid, got"),
        (lambda b, z: (b - 1, z), "boxes: expected shares of the image"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ShapeError, match=message):
        from_detr_stacks(*change(*stacks()), image_size=SIZE)


def test_denoising_queries_and_attributes_that_do_not_fit_are_named():
    targets = random_targets(generator(2), (3, 0))

    with pytest.raises(ShapeError, match=r"positives\[0\]: expected a multiple of 3, .*, got 4"):
        denoising_pairs([torch.arange(4), torch.arange(0)], targets)
    with pytest.raises(ShapeError, match=r"positives\[1\]: expected a multiple of 0"):
        denoising_pairs([torch.arange(3), torch.arange(1)], targets)
    with pytest.raises(ShapeError, match="expected one list for each of 2 images, got 1"):
        denoising_pairs([torch.arange(3)], targets)
    pairs = denoising_pairs([torch.arange(3), torch.arange(0)], targets)
    boxes, logits = stacks(2, queries=6)
    with pytest.raises(ShapeError, match=r"denoising logits: .* here \(2, 2, 6, 3\), got \(2, 2, 6, 2\)"):
        from_detr_stacks(*stacks(), image_size=SIZE, denoising=(boxes, logits[..., :2], pairs))
    with pytest.raises(ShapeError, match=r"attribute_logits\['loc'\]: expected \(L, B, Q, C_name\), or"):
        from_detr_stacks(*stacks(), image_size=SIZE, attribute_logits={"loc": torch.zeros(2, 3, 4).double()})
