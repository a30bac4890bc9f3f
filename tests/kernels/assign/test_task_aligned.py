# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Task-aligned assignment over runs equals its definition, whatever the scene; and what only runs can get wrong."""

import dataclasses
import itertools

import pytest
import torch
from tests.losses.assign.forms import assert_same
from tests.losses.assign.test_task_aligned import SWITCHES, prepared, weights
from tests.losses.scenes import SIZE, generator, make_targets, oriented, random_predictions, random_targets

from boxwright.kernels import chunks
from boxwright.kernels.assign import scene
from boxwright.kernels.assign import task_aligned as module
from boxwright.kernels.assign.task_aligned import task_aligned
from boxwright.losses.assign import TaskAligned
from boxwright.structures import Predictions, Targets

# Objects of each image: some, none beside many, none at all, one, a crowd, equal numbers.
COUNTS = [(3, 0, 5), (12, 1), (0, 0), (1,), (130, 2), (7, 7)]
OPTIONS = [
    {},
    {"topk": 7, "topk2": 1},
    {"topk": 13, "topk2": 4, "overlap": "iou"},
    {"level_range": (1.5, 3.0)},
    {"min_side": 16.0, "smallest_side": 6.0, "swapped_size_filter": True},
    {"min_side": "second_stride", "smallest_side": 6.0},
    {"overlap": "giou", "alpha": 1.0, "beta": 2.5},
    {"overlap": "probiou"},
    {"overlap": "probiou", "min_side": 12.0, "topk": 3},
]


def random_scene(seed: int, counts: tuple[int, ...], dtype: torch.dtype, turned: bool) -> tuple[Predictions, Targets]:
    """Noise; every second scene has far predictions, so that most metrics are 0, and an object whose centre is far
    outside the image; every third has twins that tie.
    """
    source = generator(seed)
    preds = random_predictions(source, len(counts), dtype=dtype, bins=1 if seed % 2 else 6)
    if seed % 2:
        far = torch.rand(*preds.logits.shape[:2], 1, generator=source) < 0.8
        raw = torch.where(far, torch.tensor([-90.0, -90.0, 91.0, 91.0], dtype=dtype), preds.box_raw.detach())
        preds = dataclasses.replace(preds, box_raw=raw)
    targets = random_targets(source, counts, dtype=dtype)
    if seed % 2:
        boxes = targets.boxes.clone()
        boxes[:, :1] = torch.tensor([-250.0, -200.0, 45.0, 60.0], dtype=dtype) * targets.valid[:, :1, None]
        targets = dataclasses.replace(targets, boxes=boxes)
    if turned:
        preds, targets = oriented(preds, targets, source)
    if seed % 3 == 0:
        twins = targets.boxes.clone()
        twins[:, 1::2] = targets.boxes[:, 0:-1:2][:, : twins[:, 1::2].shape[1]]
        targets = dataclasses.replace(targets, boxes=twins * targets.valid[..., None])
    return preds, targets


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())) or "defaults")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_definition(dtype, options):
    for (seed, counts), switches in itertools.product(enumerate(COUNTS), SWITCHES):
        preds, targets = random_scene(seed, counts, dtype, options.get("overlap") == "probiou")
        assigner = TaskAligned(**options, **switches)

        assert_same(task_aligned(assigner, preds, targets), assigner(preds, targets))


@pytest.mark.parametrize(("exclusive", "objectness"), [(True, False), (False, True), (True, True)])
def test_equals_the_definition_for_other_heads(exclusive, objectness):
    for seed, counts in enumerate(COUNTS):
        preds, targets = random_scene(seed, counts, torch.float64, turned=False)
        plane = torch.randn(preds.logits.shape[:2], generator=generator(seed), dtype=torch.float64)
        preds = dataclasses.replace(preds, exclusive=exclusive, objectness=plane if objectness else None)

        assert_same(task_aligned(TaskAligned(), preds, targets), TaskAligned()(preds, targets))


def test_memory_order_of_the_head_does_not_matter():
    source = generator(8)
    preds = random_predictions(source, 3)
    targets = prepared(random_targets(source, (5, 0, 9)), preds)
    maps = torch.cat((preds.box_raw, preds.logits), dim=2).detach().transpose(1, 2).contiguous()  # (B, 4 R + C, A)
    raw = preds.box_raw.shape[2]
    views = dataclasses.replace(preds, logits=maps[:, raw:].transpose(1, 2), box_raw=maps[:, :raw].transpose(1, 2))

    assert weights(task_aligned(TaskAligned(), views, targets)) == pytest.approx(
        weights(task_aligned(TaskAligned(), preds, targets)), rel=1e-12
    )


@pytest.mark.parametrize("overlap", ["ciou", "iou"])
@pytest.mark.parametrize("pairs_at_once", [1, 1 << 17])
def test_cutting_the_batch_into_pieces_changes_nothing(monkeypatch, pairs_at_once, overlap):
    source = generator(9)
    preds = random_predictions(source, 4)
    targets = prepared(random_targets(source, (5, 0, 9, 2)), preds)
    whole = task_aligned(TaskAligned(overlap=overlap), preds, targets)

    monkeypatch.setattr(scene, "CACHE_PAIRS", pairs_at_once)
    monkeypatch.setattr(chunks, "CACHE_ELEMENTS", 1)
    pieces = task_aligned(TaskAligned(overlap=overlap), preds, targets)

    for field in ("image", "anchor", "target", "valid", "weight"):
        assert torch.equal(getattr(whole, field), getattr(pieces, field)), field


@pytest.mark.parametrize("topk2", [None, 1])
@pytest.mark.parametrize("conflict_scope", ["containing", "all"])
def test_leaving_out_unused_slots_changes_nothing_else(monkeypatch, conflict_scope, topk2):
    source = generator(12)
    preds = random_predictions(source, 3)
    targets = prepared(random_targets(source, (12, 0, 9)), preds)
    assigner = TaskAligned(conflict_scope=conflict_scope, topk2=topk2)
    short = task_aligned(assigner, preds, targets)

    monkeypatch.setattr(module, "readable", lambda _: False)
    whole = task_aligned(assigner, preds, targets)

    assert short.valid.all()
    assert short.all_valid
    assert not whole.all_valid
    assert len(whole.valid) > len(short.valid) > 0
    for field in ("image", "anchor", "target", "weight"):
        assert torch.equal(getattr(whole, field)[whole.valid], getattr(short, field)), field
    assert short.normalizer.item() == pytest.approx(whole.normalizer.item(), rel=1e-12)


def test_unprepared_targets_give_the_same_pairs():
    source = generator(10)
    preds = random_predictions(source, 2)
    targets = random_targets(source, (4, 6))

    assert weights(task_aligned(TaskAligned(), preds, targets)) == weights(
        task_aligned(TaskAligned(), preds, prepared(targets, preds))
    )


def test_slots_are_those_of_real_candidates_only():
    # Two cells in one box, none in the other, all in the third: 2 + 0 + 10 slots.
    preds = random_predictions(generator(12), 1, SIZE, (8,))
    targets = prepared(make_targets([(0, 0, 16, 8), (5, 5, 7, 7), (0, 0, 96, 64)]), preds)

    assert len(task_aligned(TaskAligned(), preds, targets).image) == 12
