# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.losses.assign.forms import assert_refused, pairs_of, prepare
from tests.losses.query_scenes import LOC, query_predictions
from tests.losses.scenes import CLASSES, SIZE, generator, make_targets, random_targets
from tests.reference import set_prediction as reference

from boxwright.kernels.assign.hungarian import costs_of
from boxwright.losses.adapters import targets_from_rows
from boxwright.losses.assign import Hungarian
from boxwright.ops.boxes import xyxy_to_cxcywh
from boxwright.ops.decode import Normalized
from boxwright.ops.grid import make_grid
from boxwright.structures import Assignment, Predictions, Targets


def table(preds: Predictions, targets: Targets, image: int, **options) -> tuple[list[list[float]], list[int]]:
    """Costs of every query with every valid object, and the objects' slots."""
    height, width = SIZE
    slots = targets.valid[image].nonzero()[:, 0].tolist()
    boxes = xyxy_to_cxcywh(targets.boxes[image].double() / torch.tensor([width, height, width, height])).tolist()
    rows = zip(preds.box_raw[image].tolist(), preds.logits[image].tolist(), strict=True)
    labels = targets.labels[image].tolist()
    return [[reference.cost(box, row, boxes[s], labels[s], **options) for s in slots] for box, row in rows], slots


def costs(assigner: Hungarian, preds: Predictions, targets: Targets) -> torch.Tensor:
    """Costs of every object with every query of its image, the same by definition and by the faster form."""
    laid_out = prepare(assigner, targets)
    by_definition = torch.cat([assigner.costs(preds, targets, i)[valid] for i, valid in enumerate(targets.valid)])
    torch.testing.assert_close(costs_of(assigner, preds, laid_out, laid_out.objects), by_definition)
    return by_definition


def by_image(pairs: Assignment, image: int) -> list[tuple[int, int]]:
    mine = pairs.image == image
    return list(zip(pairs.anchor[mine].tolist(), pairs.target[mine].tolist(), strict=True))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000), queries=st.integers(1, 5), counts=st.lists(st.integers(0, 5), min_size=1, max_size=3)
)
def test_equals_the_best_of_all_matchings(seed, queries, counts):
    source = generator(seed)
    preds, targets = query_predictions(source, len(counts), queries), random_targets(source, counts)

    pairs = pairs_of(Hungarian(), preds, targets)

    for image, count in enumerate(counts):
        costs, slots = table(preds, targets, image)
        total, _ = reference.best_matching(costs) if count else (0.0, [])
        got = by_image(pairs, image)
        assert len(got) == min(queries, count)
        assert [query for query, _ in got] == sorted({query for query, _ in got})
        assert sum(costs[q][slots.index(s)] for q, s in got) == pytest.approx(total, rel=1e-9, abs=1e-9)
    assert pairs.valid.all()
    assert pairs.weight.eq(1).all()
    assert pairs.normalizer.item() == max(len(pairs.image), 1)


@pytest.mark.parametrize(
    "options", [{"focal": False}, {"alpha": 0.4, "gamma": 1.0}, {"gains": (1.0, 0.5, 3.0)}, {"focal": True}]
)
def test_costs_equal_the_reference(options):
    source = generator(1)
    preds, targets = query_predictions(source, 2, 6), random_targets(source, (3, 4))
    given_options = dict(options)
    class_gain, l1_gain, giou_gain = given_options.pop("gains", (2.0, 5.0, 2.0))
    assigner = Hungarian(class_gain=class_gain, l1_gain=l1_gain, giou_gain=giou_gain, **given_options)

    got = costs(assigner, preds, targets)

    expected = [
        list(column) for image in (0, 1) for column in zip(*table(preds, targets, image, **options)[0], strict=True)
    ]
    assert torch.allclose(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


def test_rows_of_images_may_be_interleaved():
    # Objects of image 1 come first, in between and last; published code reads such rows as if sorted.
    preds = query_predictions(generator(2), 2, 5)
    rows = random_targets(generator(2), (3, 3), dtype=torch.float32)
    image = torch.tensor([1, 0, 1, 0, 0, 1])
    slot = torch.tensor([0, 0, 1, 1, 2, 2])
    boxes = rows.boxes[image, slot]

    targets = targets_from_rows(image, rows.labels[image, slot], boxes, batch=2, image_size=SIZE, unit="pixel_xyxy")

    expected, got = pairs_of(Hungarian(), preds, rows), pairs_of(Hungarian(), preds, targets)
    assert [by_image(got, i) for i in (0, 1)] == [by_image(expected, i) for i in (0, 1)]


def test_gaps_between_slots_do_not_matter():
    preds, targets = query_predictions(generator(3), 1, 6), random_targets(generator(3), (3,))
    order = torch.tensor([3, 0, 2, 1])  # slot 3 is unused
    moved = Targets(targets.labels[:, order], targets.boxes[:, order], targets.valid[:, order])

    first, second = (by_image(pairs_of(Hungarian(), preds, of), 0) for of in (targets, moved))

    assert [(query, order[slot].item()) for query, slot in second] == first


def test_a_preferred_attribute_decides_between_equal_queries():
    preds = query_predictions(generator(6), 1, 2, attributes=True)
    logits = torch.zeros(1, 2, LOC, dtype=torch.float64)
    logits[0, 1, 2] = 3.0
    preds = dataclasses.replace(
        preds,
        logits=torch.zeros_like(preds.logits),
        box_raw=torch.full_like(preds.box_raw, 0.5),
        attribute_logits={"loc": logits},
    )
    targets = dataclasses.replace(make_targets([(0, 0, 40, 40)]), attributes={"loc": torch.tensor([[2]])})
    unknown = dataclasses.replace(targets, attributes={"loc": torch.tensor([[-1]])})
    assigner = Hungarian(attribute_gains={"loc": 1.5})

    plain, preferred = (by_image(pairs_of(one, preds, targets), 0) for one in (Hungarian(), assigner))

    assert (plain, preferred) == ([(0, 0)], [(1, 0)])
    change = costs(assigner, preds, targets) - costs(Hungarian(), preds, targets)
    assert change[0].tolist() == pytest.approx([-1.5 / LOC, -1.5 * math.exp(3) / (math.exp(3) + LOC - 1)])
    assert torch.equal(*(costs(one, preds, unknown) for one in (assigner, Hungarian())))


def test_an_attribute_without_logits_is_named():
    targets = dataclasses.replace(make_targets([(0, 0, 40, 40)]), attributes={"loc": torch.tensor([[2]])})

    assert_refused(
        Hungarian(attribute_gains={"loc": 1.0}),
        query_predictions(generator(0), 1, 2),
        targets,
        r"'loc' expects logits .* got logits None, labels",
    )


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_costs_that_are_not_finite_count_as_zero(value):
    preds = query_predictions(generator(7), 1, 3)
    boxes = preds.box_raw.detach().clone()
    boxes[0, 1, 0] = value
    targets = random_targets(generator(7), (2,))

    got = costs(Hungarian(), dataclasses.replace(preds, box_raw=boxes), targets)

    assert got[:, 1].eq(0).all()
    assert got[:, [0, 2]].ne(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_extreme_scores_of_any_precision_match(dtype, extreme):
    preds = query_predictions(generator(8), 1, 4, dtype=dtype)
    logits = preds.logits.detach().clone()
    logits[0, 2] = extreme
    targets = random_targets(generator(8), (3,))

    pairs = pairs_of(Hungarian(), dataclasses.replace(preds, logits=logits), targets)

    assert len(pairs.anchor) == 3
    assert (2 in pairs.anchor.tolist()) == (extreme > 0)
    assert pairs.weight.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_exclusive_classes_compare_by_softmax_with_background():
    preds = dataclasses.replace(query_predictions(generator(9), 1, 3), exclusive=True)
    assigner = Hungarian(class_gain=1.0, l1_gain=0.0, giou_gain=0.0, focal=False)
    targets = random_targets(generator(9), (2,))

    got = costs(assigner, preds, targets)

    for row, label in zip(got.tolist(), targets.labels[0].tolist(), strict=False):
        assert row == pytest.approx(
            [-math.exp(z[label]) / (1 + sum(map(math.exp, z))) for z in preds.logits[0].tolist()]
        )


def test_drives_a_dense_head_too():
    # The same boxes, once as queries and once as cells whose decoder gives pixels.
    source = generator(10)
    preds, targets = query_predictions(source, 2, 6), random_targets(source, (2, 3))
    dense = dataclasses.replace(
        preds,
        grid=make_grid([(2, 3)], [32]),
        decoder=lambda raw, points, strides, extra=None: Normalized()(
            raw, torch.tensor([96.0, 64.0]).expand_as(points), strides
        ),
    )

    for name in ("image", "anchor", "target"):
        assert torch.equal(
            getattr(pairs_of(Hungarian(), preds, targets), name), getattr(pairs_of(Hungarian(), dense, targets), name)
        )


def test_no_objects_give_no_pairs():
    pairs = pairs_of(Hungarian(), query_predictions(generator(0), 2, 3), make_targets([], []))

    assert [len(of) for of in (pairs.image, pairs.anchor, pairs.target, pairs.valid, pairs.weight)] == [0] * 5
    assert pairs.normalizer.item() == 1


def test_no_gradient_reaches_the_costs():
    preds, targets = query_predictions(generator(0), 1, 3), prepare(Hungarian(), random_targets(generator(0), (2,)))

    assert not Hungarian().costs(preds, targets, 0).requires_grad
    assert not costs_of(Hungarian(), preds, targets, targets.objects).requires_grad


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (make_targets([(0, 0, 9, 9)], labels=[[CLASSES]]), "class indices below 3, .* got 3"),
        (make_targets([(0, 0, 9, 9)], labels=[[-2]]), "at least 0, got -2 at image 0, slot 0"),
        (make_targets([(0, 0, 9, math.nan)]), "finite pixels, got .* at image 0, slot 0"),
        (Targets(torch.zeros(1, 1).long(), torch.ones(1, 1, 5), torch.ones(1, 1).bool()), "axis-aligned boxes of 4"),
    ],
)
def test_labels_that_do_not_fit_are_named(targets, message):
    assert_refused(Hungarian(), query_predictions(generator(0), 1, 3), targets, message)
