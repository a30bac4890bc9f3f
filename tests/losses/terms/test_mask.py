# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses

import pytest
import torch
from tests.losses.scenes import SIZE, generator, make_targets, random_predictions
from tests.reference.masks import mask_value

from boxwright.errors import ShapeError
from boxwright.losses.terms import PrototypeMasks
from boxwright.losses.terms.mask import resize_nearest
from boxwright.structures import Assignment, Predictions, Targets

MASK = (16, 24)  # a quarter of the 64 x 96 px of the scenes
BOXES = ([(3, 2, 41, 51), (20, 10, 93, 60)], [(0, 0, 30, 30), (-5, 1, 2, 70)])


def targets(seed: int = 0, size: tuple[int, int] = MASK, *, per_slot: bool = False) -> Targets:
    source, plain = generator(seed), make_targets(*BOXES)
    if per_slot:
        return dataclasses.replace(plain, masks=torch.rand(2, 2, *size, generator=source) < 0.5)
    return dataclasses.replace(plain, instance_map=torch.randint(0, 3, (2, *size), generator=source).int())


def predictions(seed: int = 0, size: tuple[int, int] = MASK) -> Predictions:
    source, plain = generator(seed), random_predictions(generator(seed), 2)
    coefs = torch.randn(2, plain.logits.shape[1], 3, generator=source, dtype=torch.float64)
    prototypes = torch.randn(2, 3, *size, generator=source, dtype=torch.float64)
    return dataclasses.replace(plain, mask_coefs=coefs.requires_grad_(), prototypes=prototypes.requires_grad_())


def pairs() -> Assignment:
    """Five pairs, the last one an unused slot; two of image 0 are on one level."""
    return Assignment(
        image=torch.tensor([0, 0, 1, 0, 1]),
        anchor=torch.tensor([10, 97, 3, 11, 125]),
        target=torch.tensor([0, 1, 0, 1, 1]),
        valid=torch.tensor([True, True, True, True, False]),
        weight=torch.tensor([0.5, 1.0, 0.25, 0.1, 0.0], dtype=torch.float64),
        normalizer=torch.tensor(2.0, dtype=torch.float64),
    )


def nothing() -> Assignment:
    index = torch.zeros(0, dtype=torch.int64)
    return Assignment(index, index, index, index.bool(), index.double(), torch.tensor(1.0, dtype=torch.float64))


def values(preds: Predictions, labels: Targets, chosen: Assignment, shift: float = 0.0) -> list[float]:
    """Of each pair, by hand; prototypes and labels have one size."""
    found = []
    for p in range(len(chosen.image)):
        if not chosen.valid[p]:
            found.append(0.0)
            continue
        image, slot = chosen.image[p].item(), chosen.target[p].item()
        maps = preds.prototypes[image].tolist()
        if labels.masks is not None:
            seen = labels.masks[image, slot].tolist()
        else:
            seen = (labels.instance_map[image] == slot + 1).tolist()
        size = (len(seen), len(seen[0]))
        found.append(
            mask_value(
                preds.mask_coefs[image, chosen.anchor[p]].tolist(),
                lambda m, row, column, maps=maps: maps[m][row][column],
                lambda row, column, seen=seen: seen[row][column],
                tuple(labels.boxes[image, slot].tolist()),
                SIZE,
                size,
                shift,
            )
        )
    return found


@pytest.mark.parametrize("per_slot", [False, True])
@pytest.mark.parametrize(("crop", "shift"), [("index", 0.0), ("centre", 0.5)])
def test_equals_the_reference(per_slot, crop, shift):
    preds, labels, chosen = predictions(), targets(per_slot=per_slot), pairs()

    got = PrototypeMasks(crop=crop)(preds, labels, chosen)

    expected = values(preds, labels, chosen, shift)
    assert got.tolist() == pytest.approx([value / 4 for value in expected], rel=1e-10)
    assert expected[0] != pytest.approx(values(preds, labels, chosen, 0.5 - shift)[0], rel=1e-6)


def test_mean_of_each_image_and_level_summed_over_levels():
    preds, labels, chosen = predictions(), targets(), pairs()

    got = PrototypeMasks(reduction="image_levels")(preds, labels, chosen)

    # Anchors 10, 11 and 3 are of the first level, 97 of the second; two images.
    parts = [value / share / 2 for value, share in zip(values(preds, labels, chosen), (2, 1, 1, 2, 1), strict=True)]
    assert got.tolist() == pytest.approx(parts, rel=1e-10)


def test_labels_take_the_nearest_pixel_of_the_prototypes():
    preds, chosen = predictions(), pairs()
    large = targets(size=(40, 36))

    small = dataclasses.replace(large, instance_map=resize_nearest(large.instance_map, MASK))

    assert PrototypeMasks()(preds, large, chosen).tolist() == PrototypeMasks()(preds, small, chosen).tolist()
    for row, column in ((0, 0), (7, 5), (15, 23)):
        assert small.instance_map[1, row, column] == large.instance_map[1, row * 40 // 16, column * 36 // 24]


def test_prototypes_are_interpolated_to_the_labels():
    preds, chosen, labels = predictions(size=(8, 12)), pairs(), targets()
    # By hand: half-pixel centres of twice the size lie a quarter between pixels; edges repeat.
    edge = torch.nn.functional.pad(preds.prototypes.detach(), (1, 1, 1, 1), mode="replicate")
    across = torch.stack(
        (0.25 * edge[..., :-2] + 0.75 * edge[..., 1:-1], 0.75 * edge[..., 1:-1] + 0.25 * edge[..., 2:]), -1
    )
    wide = across.flatten(-2).transpose(-1, -2)
    down = torch.stack(
        (0.25 * wide[..., :-2] + 0.75 * wide[..., 1:-1], 0.75 * wide[..., 1:-1] + 0.25 * wide[..., 2:]), -1
    )
    large = dataclasses.replace(preds, prototypes=down.flatten(-2).transpose(-1, -2))

    got = PrototypeMasks(resize="prototypes")(preds, labels, chosen)

    assert got.tolist() == pytest.approx(PrototypeMasks()(large, labels, chosen).tolist(), rel=1e-10)


@pytest.mark.parametrize(
    "term",
    [PrototypeMasks(), PrototypeMasks(reduction="image_levels"), PrototypeMasks(crop="centre", resize="prototypes")],
)
def test_gradcheck(term):
    preds, labels = predictions(size=(8, 12)), targets()

    def run(coefs: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        return term(dataclasses.replace(preds, mask_coefs=coefs, prototypes=prototypes), labels, pairs())

    assert torch.autograd.gradcheck(run, (preds.mask_coefs, preds.prototypes), fast_mode=True)


@pytest.mark.parametrize("reduction", ["pairs", "image_levels"])
def test_no_pairs_keep_the_graph_and_give_zero_gradient(reduction):
    preds = predictions()

    contributions = PrototypeMasks(reduction=reduction)(preds, targets(), nothing())
    contributions.sum().backward()

    assert contributions.shape == (0,)
    assert preds.mask_coefs.grad.eq(0).all()
    assert preds.prototypes.grad.eq(0).all()


def test_boxes_without_area_and_outside_the_image_contribute_nothing():
    preds, labels = predictions(), targets()
    moved = labels.boxes.clone()
    moved[0, 0], moved[0, 1] = torch.tensor([10.0, 10, 10, 40]), torch.tensor([200.0, 10, 240, 40])

    got = PrototypeMasks()(preds, dataclasses.replace(labels, boxes=moved), pairs())

    assert got[[0, 1, 3]].tolist() == [0, 0, 0]
    assert got[2] > 0


def test_order_of_images_and_slots_and_more_padding_change_nothing():
    preds, labels, chosen = predictions(), targets(per_slot=True), pairs()
    flipped = dataclasses.replace(
        preds, **{name: getattr(preds, name).flip(0) for name in ("logits", "box_raw", "mask_coefs", "prototypes")}
    )
    there = Targets(
        *(
            torch.cat((part.flip(0, 1), torch.zeros_like(part)), dim=1)
            for part in (labels.labels, labels.boxes, labels.valid)
        ),
        masks=torch.cat((labels.masks.flip(0, 1), torch.ones_like(labels.masks)), dim=1),
    )
    moved = dataclasses.replace(chosen, image=1 - chosen.image, target=1 - chosen.target)

    got = PrototypeMasks()(flipped, there, moved)

    assert torch.equal(got, PrototypeMasks()(preds, labels, chosen))


def test_half_precision_is_computed_in_float32():
    preds, labels = predictions(), targets()
    half = {name: getattr(preds, name).detach().bfloat16() for name in ("mask_coefs", "prototypes")}
    leaves = {name: value.clone().requires_grad_() for name, value in half.items()}

    got = PrototypeMasks()(dataclasses.replace(preds, **leaves), labels, pairs())
    got.sum().backward()

    rounded = dataclasses.replace(preds, **{name: value.float() for name, value in half.items()})
    assert got.tolist() == PrototypeMasks()(rounded, labels, pairs()).tolist()
    assert leaves["prototypes"].grad.dtype == leaves["mask_coefs"].grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prototypes": None}, r"Predictions.prototypes: expected \(B, Q, h, w\), got None for role 'main'"),
        ({"mask_coefs": None}, r"Predictions.mask_coefs: expected \(B, A, Q\), got None"),
    ],
)
def test_predictions_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ShapeError, match=message):
        PrototypeMasks()(dataclasses.replace(predictions(), **changes), targets(), pairs())


def test_targets_that_do_not_fit_are_named():
    labels = targets()
    with pytest.raises(ShapeError, match=r"Targets.instance_map: expected \(B, h, w\), or .masks."):
        PrototypeMasks()(predictions(), make_targets(*BOXES), pairs())
    boxes = torch.cat((targets().boxes, torch.zeros(2, 2, 1, dtype=torch.float64)), dim=-1)
    with pytest.raises(ShapeError, match="oriented"):
        PrototypeMasks()(predictions(), dataclasses.replace(targets(), boxes=boxes), pairs())
    one = Targets(
        *(part[:1] for part in (labels.labels, labels.boxes, labels.valid)), instance_map=labels.instance_map[:1]
    )
    with pytest.raises(ShapeError, match=r"Predictions.prototypes: expected \(B, Q\) = \(1, 3\) .* got \(2, 3\)"):
        PrototypeMasks()(predictions(), one, pairs())


@pytest.mark.parametrize("reduction", ["pairs", "image_levels"])
def test_a_batch_with_one_pair_is_divided_by_one(reduction):
    preds, labels, every = predictions(), targets(), pairs()
    first = torch.tensor([True, False, False, False, False])
    alone = dataclasses.replace(every, valid=first, weight=every.weight * first)

    got = PrototypeMasks(reduction=reduction)(preds, labels, alone)

    images = 1 if reduction == "pairs" else 2
    assert got.tolist() == pytest.approx([values(preds, labels, every)[0] / images, 0, 0, 0, 0], rel=1e-10)
