# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses

import pytest
import torch
from tests.losses.scenes import generator, make_targets, random_predictions
from tests.reference.masks import semantic_value
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.errors import ShapeError
from boxwright.losses.terms import SemanticMap
from boxwright.structures import Assignment, Predictions, Targets

BOXES = ([(0, 0, 40, 50)], [(0, 0, 30, 30)])


def targets(seed: int = 0, *, per_slot: bool = False) -> Targets:
    source = generator(seed)
    classes = torch.randint(0, 3, (2, 8, 12), generator=source)
    plain = dataclasses.replace(make_targets(*BOXES, slots=2), class_map=classes)
    if per_slot:
        return dataclasses.replace(plain, masks=torch.rand(2, 2, 8, 12, generator=source) < 0.4)
    return dataclasses.replace(plain, instance_map=torch.randint(0, 2, (2, 8, 12), generator=source).int())


def predictions(seed: int = 0, size: tuple[int, int] = (4, 6), dtype: torch.dtype = torch.float64) -> Predictions:
    plain = random_predictions(generator(seed), 2)
    logits = torch.randn(2, 3, *size, generator=generator(seed + 1), dtype=torch.float64)
    return dataclasses.replace(plain, semantic_logits=logits.to(dtype).requires_grad_())


def pairs(*valid: bool) -> Assignment:
    index = torch.zeros(len(valid), dtype=torch.int64)
    return Assignment(
        index, index, index, torch.tensor(valid).bool(), index.double(), torch.tensor(1.0, dtype=torch.float64)
    )


def one_hot(labels: Targets, size: tuple[int, int]) -> list:
    covered = labels.instance_map != 0 if labels.masks is None else labels.masks[:, :1].any(dim=1)
    return [
        [
            [
                [bool(covered[i, y * 8 // size[0], x * 12 // size[1]])
                 and labels.class_map[i, y * 8 // size[0], x * 12 // size[1]].item() == c
                 for x in range(size[1])]
                for y in range(size[0])
            ]
            for c in range(3)
        ]
        for i in range(2)
    ]  # fmt: skip


@pytest.mark.parametrize("per_slot", [False, True])
@pytest.mark.parametrize("size", [(4, 6), (8, 12), (3, 5)])
def test_equals_the_reference(per_slot, size):
    preds, labels = predictions(size=size), targets(per_slot=per_slot)

    got = SemanticMap()(preds, labels, pairs(True, False))

    wanted = one_hot(labels, size)
    expected = [semantic_value(preds.semantic_logits[i].tolist(), wanted[i]) / 2 for i in range(2)]
    assert got.tolist() == pytest.approx(expected, rel=1e-10)


def test_gradcheck():
    preds = predictions()

    def run(logits: torch.Tensor) -> torch.Tensor:
        return SemanticMap()(dataclasses.replace(preds, semantic_logits=logits), targets(), pairs(True))

    assert torch.autograd.gradcheck(run, preds.semantic_logits)


@pytest.mark.parametrize("chosen", [pairs(), pairs(False, False)])
def test_silent_without_pairs(chosen):
    preds = predictions()

    got = SemanticMap()(preds, targets(), chosen)
    got.sum().backward()

    assert got.tolist() == [0, 0]
    assert preds.semantic_logits.grad.eq(0).all()


def test_no_value_is_read():
    preds, labels, chosen = predictions(), targets(), pairs(True)

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = dataclasses.replace(preds, semantic_logits=mode.from_tensor(preds.semantic_logits))
        got = SemanticMap()(fake, labels, chosen)
        got.sum().backward()

    assert got.shape == (2,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_logits_of_ten_thousand_stay_finite(dtype):
    preds = predictions()
    logits = (torch.sign(preds.semantic_logits.detach()) * 1e4).to(dtype).requires_grad_()

    got = SemanticMap()(dataclasses.replace(preds, semantic_logits=logits), targets(), pairs(True))
    got.sum().backward()

    assert got.isfinite().all()
    assert logits.grad.isfinite().all()


def test_classes_of_uncovered_pixels_are_never_read():
    preds, labels = predictions(), targets()
    wild = torch.where(labels.instance_map == 0, 255, labels.class_map)

    got = SemanticMap()(preds, dataclasses.replace(labels, class_map=wild), pairs(True))

    assert torch.equal(got, SemanticMap()(preds, labels, pairs(True)))


def test_what_does_not_fit_is_named():
    preds, labels = predictions(), targets()
    with pytest.raises(ShapeError, match=r"Predictions.semantic_logits: expected \(B, C, h, w\), got None"):
        SemanticMap()(dataclasses.replace(preds, semantic_logits=None), labels, pairs(True))
    with pytest.raises(ShapeError, match=r"Targets.class_map: expected \(B, h, w\), got None"):
        SemanticMap()(preds, dataclasses.replace(labels, class_map=None), pairs(True))
    with pytest.raises(ShapeError, match=r"Targets.instance_map: expected \(B, h, w\)"):
        SemanticMap()(preds, dataclasses.replace(labels, instance_map=None), pairs(True))
