# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest
import torch
from tests.reference import overlap as reference

from boxwright.ops.overlap import paired_overlap

NAMES = ("iou", "giou", "diou", "ciou")


def random_boxes(seed: int, count: int = 40) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=source, dtype=torch.float64) * 20
    return torch.cat((low, low + 0.5 + torch.rand(count, 2, generator=source, dtype=torch.float64) * 20), dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_reference_on_random_boxes(name):
    a, b = random_boxes(0), random_boxes(1)

    expected = [getattr(reference, name)(*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)]

    assert paired_overlap(a, b, name).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("box_format", ["xyxy", "cxcywh"])
@pytest.mark.parametrize("name", ["iou", "giou", "diou"])
def test_gradcheck(name, box_format):
    a, b = (random_boxes(seed, 8).requires_grad_() for seed in (2, 3))

    assert torch.autograd.gradcheck(lambda a, b: paired_overlap(a, b, name, box_format), (a, b))


def test_gradient_of_ciou_takes_alpha_as_a_constant():
    a, b = random_boxes(4, 8).requires_grad_(), random_boxes(5, 8)
    paired_overlap(a, b, "ciou").sum().backward()

    def frozen(boxes: torch.Tensor) -> torch.Tensor:
        # The same with alpha at its value for `a`, written out.
        (wa, ha), (wb, hb) = ((x[:, 2] - x[:, 0], x[:, 3] - x[:, 1] + 1e-7) for x in (boxes, b))
        v = 4 / torch.pi**2 * (torch.atan(wb / hb) - torch.atan(wa / ha)) ** 2
        return paired_overlap(boxes, b, "diou") - alpha * v

    with torch.no_grad():
        diou, ciou = (paired_overlap(a, b, name) for name in ("diou", "ciou"))
        (wa, ha), (wb, hb) = ((x[:, 2] - x[:, 0], x[:, 3] - x[:, 1] + 1e-7) for x in (a, b))
        alpha = (diou - ciou) / (4 / torch.pi**2 * (torch.atan(wb / hb) - torch.atan(wa / ha)) ** 2)
    again = a.detach().clone().requires_grad_()
    frozen(again).sum().backward()

    assert torch.allclose(a.grad, again.grad, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(frozen, (again,))


def test_broadcasts_to_all_pairs():
    a, b = random_boxes(6, 3), random_boxes(7, 5)

    table = paired_overlap(a[:, None], b[None], "ciou")

    assert table.shape == (3, 5)
    assert table[1, 4].item() == pytest.approx(reference.ciou(a[1].tolist(), b[4].tolist()), rel=1e-12)


def test_giou_of_disjoint_boxes_is_negative():
    a, b = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([2.0, 0.0, 3.0, 1.0])

    assert paired_overlap(a, b, "giou").item() == pytest.approx(-1 / 3, abs=1e-6)
