# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tests.golden.adapt_detr import denoising as from_flat_rows
from tests.losses.scenes import CLASSES, SIZE, generator, make_targets, random_targets
from tests.losses.test_criterion import faked
from tests.reference import set_prediction as reference
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.errors import ConfigError, ShapeError
from boxwright.ops.denoising import LOGIT_LIMIT, Denoising, DenoisingQueries, Noise, logit
from boxwright.ops.objects import with_objects
from boxwright.structures import Targets

QUERIES = 5


def noise_for(blocks: int, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Noise:
    source = generator(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=source, dtype=torch.float64).to(dtype)

    return Noise(
        flip=uniform(blocks, count),
        label=torch.randint(CLASSES, (blocks, count), generator=source),
        sign=(uniform(blocks, count, 4) < 0.5).to(dtype) * 2 - 1,
        reach=uniform(blocks, count, 4),
    )


def expected(targets: Targets, noise: Noise, made: Denoising, groups: int, most: int) -> tuple[dict, list]:
    height, width = SIZE
    images = [
        [
            (targets.labels[i, m].item(), (targets.boxes[i, m] / torch.tensor([width, height, width, height])).tolist())
            for m in range(targets.labels.shape[1])
            if targets.valid[i, m]
        ]
        for i in range(targets.labels.shape[0])
    ]

    def at(block: int, number: int):
        parts = (noise.flip, noise.label, noise.sign, noise.reach)
        return tuple(part[block, number].tolist() for part in parts)

    return reference.denoising(images, at, made.layout, groups, most, made.label_noise, made.box_noise)


def check(queries: DenoisingQueries, slots: dict, positives: list, relative: float = 1e-9) -> None:
    for image, row in enumerate(queries.labels.tolist()):
        for slot, label in enumerate(row):
            wanted = slots.get((image, slot), (-1, [0.0] * 4))
            assert label == wanted[0]
            got = queries.box_logits[image, slot].tolist()
            assert got == pytest.approx(wanted[1], rel=relative, abs=relative)
    known = queries.known
    assert list(zip(known.image.tolist(), known.anchor.tolist(), known.target.tolist(), strict=True)) == positives
    assert known.normalizer.item() == max(len(positives), 1)


@pytest.mark.parametrize("layout", ["interleaved", "blocked"])
@pytest.mark.parametrize("counts", [(3, 0, 2), (1,), (4, 4)])
def test_equals_a_loop_over_every_slot(layout, counts):
    targets = random_targets(generator(1), counts)
    made = Denoising(budget=10, layout=layout, label_noise=0.8, box_noise=0.7)
    groups = 10 // max(counts)
    noise = noise_for(2 * groups, sum(counts))

    queries = made.from_noise(targets, noise, SIZE, CLASSES, QUERIES)

    assert queries.groups == groups
    assert queries.labels.shape == (len(counts), 2 * groups * max(counts))
    check(queries, *expected(targets, noise, made, groups, max(counts)))


@pytest.mark.parametrize("layout", ["interleaved", "blocked"])
def test_groups_do_not_see_each_other_and_matching_queries_see_no_slot(layout):
    queries = Denoising(budget=6, layout=layout)(
        random_targets(generator(2), (3, 1)), SIZE, CLASSES, QUERIES, generator(0)
    )

    size = queries.labels.shape[1]
    assert size == 12
    for query, row in enumerate(queries.blocked.tolist()):
        for key, blocked in enumerate(row):
            own = query < size and query // 6 == key // 6
            assert blocked == (key < size and not own)


def test_gaps_between_slots_keep_ranks_and_name_the_slot():
    targets = random_targets(generator(3), (2,))
    order = torch.tensor([2, 1, 0])  # slot 0 is unused, the objects change places
    moved = Targets(targets.labels[:, order], targets.boxes[:, order], targets.valid[:, order])
    noise = noise_for(2, 2)

    queries = Denoising(budget=2).from_noise(moved, noise, SIZE, CLASSES, QUERIES)

    assert queries.known.target.tolist() == [1, 2]
    slots, _ = expected(moved, noise, Denoising(budget=2), 1, 2)
    assert queries.labels.tolist() == [[slots[0, slot][0] for slot in range(4)]]


def test_flat_rows_of_images_may_be_interleaved():
    # The same rows sorted by image, with the noise of each row, give the same queries.
    source = np.random.default_rng(0)
    images, blocks = np.array([1, 0, 1, 0, 0]), 6
    case = {
        "config": {"nc": 3, "num_dn": 9, "queries": 4, "label_noise": 0.5, "box_noise": 1.0, "interleaved": True},
        "params": {"imgsz": SIZE},
    }
    rows = {"cls": source.integers(0, 3, 5), "bboxes": source.uniform(0.2, 0.6, (5, 4)), "batch_idx": images}
    noise = {
        "flip_u": source.random((blocks, 5)),
        "new_label": source.integers(0, 3, (blocks, 5)),
        "sign01": source.integers(0, 2, (blocks, 5, 4)),
        "magnitude": source.random((blocks, 5, 4)),
    }
    order = np.argsort(images, kind="stable")

    def made(order: Sequence[int]) -> DenoisingQueries:
        drawn = {name: of[:, order].reshape(-1, *of.shape[2:]) for name, of in noise.items()}
        inputs = {name: of[order] for name, of in rows.items()} | drawn | {"batch": 2}
        return from_flat_rows(case, inputs, torch.float64)

    mixed, by_image = made(np.arange(5)), made(order)

    assert torch.equal(mixed.labels, by_image.labels)
    assert torch.equal(mixed.box_logits, by_image.box_logits)
    assert torch.equal(mixed.known.target, by_image.known.target)
    assert mixed.labels.ge(0).sum().item() == blocks * 5


@pytest.mark.parametrize("layout", ["interleaved", "blocked"])
def test_a_crowd_keeps_a_random_part_of_its_objects(layout):
    # Image 0 has 9 objects for a budget of 4, image 1 has 2: one group of 2 * 4 slots.
    targets = random_targets(generator(4), (9, 2))
    made, seen = Denoising(budget=4, layout=layout, label_noise=0.0), set()

    for seed in range(60):
        queries = made(targets, SIZE, CLASSES, QUERIES, generator(seed))
        known = queries.known
        assert (queries.groups, queries.labels.shape[1]) == (1, 8)
        assert known.image.tolist() == [0] * 4 + [1] * 2
        kept = known.target[:4].tolist()
        assert kept == sorted(set(kept))
        assert known.target[4:].tolist() == [0, 1]
        assert known.anchor.tolist() == [0, 1, 2, 3, 0, 1]
        labels = targets.labels[0, known.target[:4]].tolist()
        assert queries.labels[0].tolist() == labels * 2  # positives and negatives are of the same objects
        assert queries.labels[1, [2, 3, 6, 7]].eq(-1).all()
        seen.add(tuple(kept))

    # Each object is kept with probability 4 / 9; 60 draws of 126 possible parts hardly ever repeat one 20 times.
    assert len(seen) > 30
    counts = [sum(slot in kept for kept in seen) / len(seen) for slot in range(9)]
    assert min(counts) > 0.15
    assert max(counts) < 0.75


def test_a_crowd_in_the_old_layout_may_go_beyond_the_budget():
    targets = random_targets(generator(5), (9, 2))

    queries = Denoising(budget=4, crowded="all")(targets, SIZE, CLASSES, QUERIES, generator(0))

    assert queries.labels.shape == (2, 18)
    assert queries.known.target.tolist() == [*range(9), 0, 1]


@pytest.mark.parametrize(("counts", "budget"), [((0, 0), 100), ((3, 1), 0)])
def test_without_objects_or_budget_there_are_no_queries(counts, budget):
    queries = Denoising(budget=budget)(random_targets(generator(6), counts), SIZE, CLASSES, QUERIES, generator(0))

    assert (queries.labels.shape, queries.box_logits.shape, queries.groups) == ((2, 0), (2, 0, 4), 0)
    assert queries.blocked.shape == (QUERIES, QUERIES)
    assert not queries.blocked.any()
    assert len(queries.known.image) == 0
    assert queries.known.normalizer.item() == 1


def test_without_noise_positives_are_the_logits_of_the_boxes():
    # Box noise 0 does not leave out the logit.
    targets = make_targets([(24, 16, 72, 48)], labels=[[2]])

    queries = Denoising(budget=1, label_noise=0.0, box_noise=0.0)(targets, SIZE, CLASSES, QUERIES, generator(0))

    assert queries.labels.tolist() == [[2, 2]]
    assert queries.box_logits.tolist() == [[[0.0, 0.0, 0.0, 0.0]] * 2]


def test_the_drawn_noise_has_the_ranges_that_it_says():
    # A box of half the image: sides move by up to a quarter of it (positives), or by a quarter to a half (negatives).
    targets = make_targets([(24, 16, 72, 48)], labels=[[1]])

    queries = Denoising(budget=4000, label_noise=0.5)(targets, SIZE, CLASSES, QUERIES, generator(0))

    centre = queries.box_logits[0].double().sigmoid()
    low, high = centre[:, :2] - centre[:, 2:] / 2, centre[:, :2] + centre[:, 2:] / 2
    far = torch.cat((low - 0.25, high - 0.75), dim=1).abs() / 0.25
    positive = torch.zeros(8000, dtype=torch.bool)
    positive[queries.known.anchor] = True
    # Sides that crossed make a size that is cut to 0, which says nothing about the sides.
    clear = (centre[:, 2:] > 1e-3).all(dim=1)
    assert positive.sum() == 4000
    assert far[positive].max().item() == pytest.approx(1, abs=1e-3)
    assert far[positive].mean().item() == pytest.approx(0.5, abs=0.02)
    assert far[~positive & clear].min().item() > 0.999
    # A quarter of the labels is drawn again, and a third of those is drawn as it was.
    assert (queries.labels != 1).double().mean().item() == pytest.approx(0.25 * 2 / 3, abs=0.02)


def test_the_generator_decides_and_torchs_own_is_left_alone():
    targets = random_targets(generator(7), (3, 2))
    before = torch.get_rng_state()

    one, again, other = (Denoising()(targets, SIZE, CLASSES, QUERIES, generator(seed)) for seed in (1, 1, 2))

    assert torch.equal(one.box_logits, again.box_logits)
    assert torch.equal(one.labels, again.labels)
    assert not torch.equal(one.box_logits, other.box_logits)
    assert torch.equal(torch.get_rng_state(), before)


def test_logits_in_float32_equal_those_in_float64():
    shares = torch.tensor([0.0, 1e-7, 1e-6, 0.3, 1 - 2**-24, 1.0, -2.0, 3.0])

    got = logit(shares)

    wanted = [min(max(s, 1e-6), 1 - 1e-6) for s in shares.double().tolist()]
    assert got.dtype == torch.float32
    assert got.tolist() == pytest.approx([math.log(s / (1 - s)) for s in wanted], rel=1e-6)
    assert got.abs().max().item() == pytest.approx(LOGIT_LIMIT, rel=1e-7)


@pytest.mark.parametrize("counts", [(9, 2), (3, 0), (0, 0)])
def test_prepared_targets_need_no_sync(counts):
    # Fake tensors hold no values: nonzero, boolean indexing and item raise.
    targets = with_objects(random_targets(generator(8), counts))

    with FakeTensorMode() as mode:
        queries = Denoising(budget=6)(faked(targets, mode), SIZE, CLASSES, QUERIES)

    size = 2 * max(1, 6 // max(max(counts), 1)) * min(max(counts), 6)
    assert queries.labels.shape == (2, size)
    assert queries.blocked.shape == (size + QUERIES, size + QUERIES)


def test_more_padding_and_the_order_of_images_change_nothing():
    targets = random_targets(generator(9), (3, 2))
    grown = Targets(
        *(torch.cat((x, torch.zeros_like(x)), 1).flip(0) for x in (targets.labels, targets.boxes, targets.valid))
    )
    noise, order = noise_for(6, 5), torch.tensor([3, 4, 0, 1, 2])
    moved = Noise(*(getattr(noise, field.name)[:, order] for field in dataclasses.fields(noise)))

    one, other = (
        Denoising(budget=9).from_noise(of, drawn, SIZE, CLASSES, QUERIES)
        for of, drawn in ((targets, noise), (grown, moved))
    )

    assert torch.equal(one.labels, other.labels.flip(0))
    assert torch.equal(one.box_logits, other.box_logits.flip(0))


def test_mistakes_are_named():
    crowd, noise = random_targets(generator(0), (3,)), noise_for(2, 3)

    with pytest.raises(ShapeError, match=r"expected at most 2 objects in an image, the budget, got 3"):
        Denoising(budget=2).from_noise(crowd, noise, SIZE, CLASSES, QUERIES)
    with pytest.raises(ShapeError, match=r"class indices below 2, .* got 2"):
        Denoising()(make_targets([(0, 0, 9, 9)], labels=[[2]]), SIZE, 2, QUERIES)
    oriented = Targets(torch.zeros(1, 1).long(), torch.ones(1, 1, 5), torch.ones(1, 1).bool())
    with pytest.raises(ShapeError, match=r"denoising expects axis-aligned boxes"):
        Denoising()(oriented, SIZE, CLASSES, QUERIES)
    with pytest.raises(ConfigError, match=r"got 100, -1.0, 0.5"):
        Denoising(box_noise=-1.0)
