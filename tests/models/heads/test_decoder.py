# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
from torch import nn

from boxwright.models.heads.decoder import QueryDecoder, logit

SHAPES = ((4, 4), (2, 2))


def built(layers: int = 3, attribute_values: int = 0) -> QueryDecoder:
    """Whose boxes move."""
    torch.manual_seed(0)
    decoder = QueryDecoder(
        layers=layers,
        width=16,
        heads=4,
        levels=2,
        points=2,
        hidden=32,
        num_classes=3,
        attribute_values=attribute_values,
    )
    for box in decoder.boxes:
        nn.init.normal_(box.layers[-1].weight, std=0.2)
    return decoder.double()


def inputs(tokens: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = ((2, tokens, 16), (2, tokens, 4), (2, 20, 16))
    return tuple(torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)


def test_logit_keeps_a_distance_from_both_ends():
    assert logit(torch.tensor([0.0, 0.25, 1.0])).tolist() == pytest.approx([-11.512925, -1.0986123, 11.512925])


def test_boxes_are_moved_layer_by_layer():
    decoder = built()
    x, box_logits, memory = inputs()

    with torch.no_grad():
        found = decoder(x, box_logits, memory, SHAPES)
        boxes = box_logits.sigmoid()
        for layer, box, of in zip(decoder.layers, decoder.boxes, found, strict=True):
            x = layer(x, boxes, decoder.position(boxes), memory, SHAPES, None)
            boxes = (box(x) + (boxes / (1 - boxes)).log()).sigmoid()
            torch.testing.assert_close(of.boxes, boxes, rtol=0, atol=1e-10)
            torch.testing.assert_close(of.logits, decoder.classes[of.layer](x), rtol=0, atol=1e-10)

    assert [of.layer for of in found] == [0, 1, 2]


def test_a_box_learns_from_its_own_move_and_the_one_before():
    """Looking forward twice: layer i's box trains the box heads i and i - 1."""
    decoder = built()
    x, box_logits, memory = inputs()
    last = decoder(x, box_logits, memory, SHAPES)[2]

    biases = [box.layers[-1].bias for box in decoder.boxes]
    grads = torch.autograd.grad(last.boxes.sum(), biases, allow_unused=True)

    assert grads[0] is None
    assert grads[1].abs().sum() > 0
    assert grads[2].abs().sum() > 0


def test_values_with_and_without_gradients_are_the_same():
    decoder = built()
    with torch.no_grad():
        without = decoder(*inputs(), SHAPES)

    for one, other in zip(decoder(*inputs(), SHAPES), without, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=1e-12)


def test_blocked_queries_do_not_reach_the_others_in_any_layer():
    decoder = built()
    x, box_logits, memory = inputs()
    blocked = torch.zeros(5, 5, dtype=torch.bool)
    blocked[2:, :2] = True
    other_x, other_boxes = x.clone(), box_logits.clone()
    other_x[:, :2] += 1
    other_boxes[:, :2] -= 1

    with torch.no_grad():
        one = decoder(x, box_logits, memory, SHAPES, blocked)
        other = decoder(other_x, other_boxes, memory, SHAPES, blocked)

    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.logits[:, 2:], b.logits[:, 2:], rtol=0, atol=1e-12)
        assert (a.logits[:, :2] - b.logits[:, :2]).abs().amin() > 0


@pytest.mark.parametrize("layer", [0, 2])
def test_what_is_dropped_changes_nothing_of_the_layer_that_is_kept(layer):
    decoder = built(attribute_values=2)
    with torch.no_grad():
        expected = decoder(*inputs(), SHAPES)[layer]
        names = set(decoder.state_dict())
        decoder.keep_only(layer)
        (found,) = decoder(*inputs(), SHAPES)

    assert found.layer == layer
    for name in ("logits", "boxes", "attributes"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)
    left = set(decoder.state_dict())
    assert left < names
    assert {name for name in left if name.startswith(("classes", "attributes"))} == {
        f"{head}.{layer}.{kind}" for head in ("classes", "attributes") for kind in ("weight", "bias")
    }
    assert len(decoder.layers) == len(decoder.boxes) == layer + 1
