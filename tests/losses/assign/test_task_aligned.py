# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import itertools

import pytest
import torch
from tests.losses.assign.forms import assert_refused, faster, pairs_of, prepare
from tests.losses.scenes import generator, make_targets, oriented, random_predictions, random_targets
from tests.reference import task_aligned as reference

from boxwright.errors import ConfigError
from boxwright.losses.assign import TaskAligned
from boxwright.losses.layout.candidates import lay_out_candidates
from boxwright.ops.decode import Distance
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Assignment, Predictions, Targets

SWITCHES = [
    dict(zip(("zero_metric_positives", "conflict_scope", "validity"), values, strict=True))
    for values in itertools.product(("drop", "lowest_index"), ("containing", "all"), ("mask", "sum"))
]


def prepared(targets: Targets, preds: Predictions) -> Targets:
    return targets.with_prepared(candidates=lay_out_candidates(targets, preds.grid))


def owners(pairs: Assignment) -> dict[tuple[int, int], int]:
    valid = pairs.valid
    keys = zip(pairs.image[valid].tolist(), pairs.anchor[valid].tolist(), strict=True)
    return dict(zip(keys, pairs.target[valid].tolist(), strict=True))


def weights(pairs: Assignment) -> dict[tuple[int, int], float]:
    valid = pairs.valid
    keys = zip(pairs.image[valid].tolist(), pairs.anchor[valid].tolist(), strict=True)
    return dict(zip(keys, pairs.weight[valid].tolist(), strict=True))


def by_reference(
    preds: Predictions, targets: Targets, scores: torch.Tensor | None = None, **options: object
) -> reference.Reference:
    # From the numbers the assigner sees: a float32 score is the float64 reading of that float32.
    scores = preds.logits.detach().sigmoid() if scores is None else scores
    scores, boxes = scores.double().numpy(), preds.boxes.double().numpy()
    points, wanted = preds.grid.points.double().numpy(), targets.boxes.double().numpy()
    return reference.assign(
        scores, boxes, points, targets.labels.numpy(), wanted, targets.valid.numpy(), **{"topk": 10, **options}
    )


def assert_equal(pairs: Assignment, expected: reference.Reference, relative: float) -> None:
    assert owners(pairs) == expected.owner
    assert weights(pairs) == pytest.approx(expected.weight, rel=relative, abs=relative)
    assert pairs.weight[~pairs.valid].eq(0).all()
    assert pairs.normalizer.item() == pytest.approx(max(expected.total, 1.0), rel=relative)


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "-".join(s.values()))
@pytest.mark.parametrize("seed", range(6))
def test_equals_brute_force_in_random_scenes(seed, switches):
    source = generator(seed)
    counts = [(3, 0, 5), (12, 1), (0, 0), (1,), (30, 2), (7, 7)][seed]
    topk = (10, 4, 10, 2, 13, 1)[seed]
    preds = random_predictions(source, len(counts), (64, 64))
    targets = random_targets(source, counts, (64, 64))

    pairs = pairs_of(TaskAligned(topk=topk, **switches), preds, prepared(targets, preds))

    assert_equal(pairs, by_reference(preds, targets, topk=topk, **switches), 1e-9)


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "-".join(s.values()))
def test_float32_equals_brute_force(switches):
    source = generator(3)
    preds = random_predictions(source, 2, (64, 64), dtype=torch.float32)
    targets = random_targets(source, (25, 4), (64, 64), dtype=torch.float32)

    pairs = pairs_of(TaskAligned(**switches), preds, prepared(targets, preds))

    assert pairs.weight.dtype == torch.float32
    # Weights go with the sixth power of an overlap known to about 2e-6.
    assert_equal(pairs, by_reference(preds, targets, **switches), 5e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "-".join(s.values()))
def test_ties_go_to_the_lowest_cell_and_the_lowest_slot(switches, dtype):
    # Every cell predicts the same shape and score, and slots 0 to 2 hold one box: metrics and overlaps tie.
    grid = grid_for_image((64, 64), (8, 16))
    cells = len(grid.points)
    raw = torch.ones(1, cells, 4, dtype=dtype)
    preds = Predictions(torch.zeros(1, cells, 1, dtype=dtype), raw, Distance(num_bins=1), grid)
    targets = make_targets([(8, 8, 40, 40)] * 3 + [(0, 0, 64, 64)], dtype=dtype)

    pairs = pairs_of(TaskAligned(topk=3, **switches), preds, prepared(targets, preds))

    assert_equal(pairs, by_reference(preds, targets, topk=3, **switches), 1e-5 if dtype == torch.float32 else 1e-9)
    assert 1 not in pairs.target[pairs.valid].tolist()


def test_more_objects_than_cells():
    source = generator(1)
    preds = random_predictions(source, 1, (32, 32), (16, 32))
    targets = make_targets([(0, 0, 30 + i % 3, 32 - i % 5) for i in range(40)])

    pairs = pairs_of(TaskAligned(), preds, prepared(targets, preds))

    assert_equal(pairs, by_reference(preds, targets), 1e-9)
    assert int(pairs.valid.sum()) <= 5


def test_topk_larger_than_the_number_of_cells():
    source = generator(2)
    preds = random_predictions(source, 1, (32, 32), (16,))
    targets = make_targets([(0, 0, 32, 32), (2, 2, 30, 20)])

    many, all_cells = (pairs_of(TaskAligned(topk=k), preds, prepared(targets, preds)) for k in (100, 4))

    assert owners(many) == owners(all_cells)
    assert_equal(many, by_reference(preds, targets, topk=4), 1e-9)


def test_no_objects_give_no_pairs_and_a_normalizer_of_one():
    preds = random_predictions(generator(0), 2)

    pairs = pairs_of(TaskAligned(), preds, prepared(make_targets([], []), preds))

    assert len(pairs.image) == 0
    assert pairs.normalizer.item() == 1


def test_contested_cell_goes_to_the_better_overlap():
    # One cell of 32 px predicts exactly (0, 0, 30, 30); both boxes contain its centre.
    grid = grid_for_image((32, 32), (32,))
    raw = torch.tensor([[[16.0, 16.0, 14.0, 14.0]]]) / 32
    preds = Predictions(torch.zeros(1, 1, 1), raw, Distance(num_bins=1), grid)
    targets = make_targets([(0, 0, 60, 60), (0, 0, 32, 32)], dtype=torch.float32)

    pairs = pairs_of(TaskAligned(topk=1), preds, prepared(targets, preds))

    assert owners(pairs) == {(0, 0): 1}


def test_an_owner_may_not_have_chosen_the_cell():
    # Slots 1 and 2 hold one box and take cell 0, their best (topk 1); slot 0 overlaps it more but likes cell 1 better.
    grid = grid_for_image((32, 64), (32,))
    # cell 0 predicts (0, 0, 32, 32), cell 1 predicts (0, 0, 64, 32): centre (48, 16)
    raw = torch.tensor([[[16.0, 16.0, 16.0, 16.0], [48.0, 16.0, 16.0, 16.0]]]).double() / 32
    logits = torch.tensor([[[0.0, -9.0], [9.0, -9.0]]]).double()
    preds = Predictions(logits, raw, Distance(num_bins=1), grid)
    targets = make_targets([(0, 0, 50, 32), (0, 0, 20, 32), (0, 0, 20, 32)])

    pairs = pairs_of(TaskAligned(topk=1), preds, prepared(targets, preds))

    assert_equal(pairs, by_reference(preds, targets, topk=1), 1e-9)
    assert owners(pairs) == {(0, 0): 0, (0, 1): 0}


def far_predictions(size: tuple[int, int], stride: int) -> Predictions:
    """Every cell predicts a box far outside the image, so that every overlap and metric is 0."""
    grid = grid_for_image(size, (stride,))
    cells = len(grid.points)
    raw = torch.tensor([-90.0, -90.0, 91.0, 91.0]).double().expand(1, cells, 4)
    return Predictions(torch.zeros(1, cells, 2).double(), raw, Distance(num_bins=1), grid)


def test_zero_metric_pairs_are_dropped_or_fill_up_in_the_order_of_cells():
    preds = far_predictions((32, 32), 8)  # 16 cells; the box holds cells 5, 6, 9, 10
    targets = prepared(make_targets([(8, 8, 24, 24)]), preds)

    dropped = pairs_of(TaskAligned(topk=10), preds, targets)
    filled = pairs_of(TaskAligned(topk=10, zero_metric_positives="lowest_index"), preds, targets)

    assert owners(dropped) == {}
    # The ten lowest cells of the image are 0 to 9: cell 10 is inside but too late.
    assert owners(filled) == {(0, 5): 0, (0, 6): 0, (0, 9): 0}
    assert filled.weight.tolist() == [0.0] * 3


def test_conflict_scope_decides_where_every_overlap_is_zero():
    preds = far_predictions((32, 32), 8)
    # Slot 0 holds no contested cell.
    targets = prepared(make_targets([(24, 24, 32, 32), (8, 8, 24, 24), (8, 8, 24, 24)]), preds)
    options = {"topk": 10, "zero_metric_positives": "lowest_index"}

    containing = pairs_of(TaskAligned(**options), preds, targets)
    everywhere = pairs_of(TaskAligned(**options, conflict_scope="all"), preds, targets)

    assert set(owners(containing).values()) == {1}
    assert set(owners(everywhere).values()) == {0}


def test_validity_by_sum_drops_an_object_mostly_left_of_the_image():
    preds = random_predictions(generator(5), 1)
    targets = prepared(make_targets([(-90, -90, 40, 40)]), preds)

    assert len(owners(pairs_of(TaskAligned(), preds, targets))) > 0
    assert owners(pairs_of(TaskAligned(validity="sum"), preds, targets)) == {}
    assert owners(pairs_of(TaskAligned(validity="sum", zero_metric_positives="lowest_index"), preds, targets)) == {}


@pytest.mark.parametrize("form", [TaskAligned.__call__, faster])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_box_that_is_not_a_number_is_not_hidden(dtype, form):
    preds = random_predictions(generator(6), 1, dtype=dtype)
    raw = preds.box_raw.detach().clone()
    raw[:] = torch.nan
    broken = dataclasses.replace(preds, box_raw=raw)

    pairs = form(TaskAligned(), broken, prepared(random_targets(generator(6), (6,), dtype=dtype), broken))

    assert pairs.valid.any()
    assert pairs.normalizer.isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_assigned_in_float32(dtype):
    source = generator(7)
    full = random_predictions(source, 2, dtype=torch.float32)
    half = dataclasses.replace(full, logits=full.logits.to(dtype), box_raw=full.box_raw.to(dtype))
    rounded = dataclasses.replace(full, logits=half.logits.float(), box_raw=half.box_raw.float())
    targets = prepared(random_targets(source, (5, 3), dtype=torch.float32), full)

    ours, expected = pairs_of(TaskAligned(), half, targets), pairs_of(TaskAligned(), rounded, targets)

    assert ours.weight.dtype == torch.float32
    assert owners(ours) == owners(expected)
    assert weights(ours) == weights(expected)


def test_general_exponents():
    source = generator(11)
    preds = random_predictions(source, 1)
    targets = random_targets(source, (6,))

    pairs = pairs_of(TaskAligned(alpha=1.0, beta=2.5), preds, prepared(targets, preds))

    assert_equal(pairs, by_reference(preds, targets, alpha=1.0, beta=2.5), 1e-9)


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "-".join(s.values()))
@pytest.mark.parametrize(("topk", "topk2"), [(7, 1), (10, 3), (3, 3), (2, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_second_topk_equals_brute_force(seed, topk, topk2, switches):
    source = generator(20 + seed)
    counts = [(9, 3), (40, 0), (6, 12)][seed]
    preds = random_predictions(source, 2, (64, 64))
    targets = random_targets(source, counts, (64, 64))

    pairs = pairs_of(TaskAligned(topk=topk, topk2=topk2, **switches), preds, prepared(targets, preds))

    assert_equal(pairs, by_reference(preds, targets, topk=topk, topk2=topk2, **switches), 1e-9)


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "-".join(s.values()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_second_topk_breaks_ties_by_the_lowest_cell(switches, dtype):
    grid = grid_for_image((64, 64), (8, 16))
    cells = len(grid.points)
    raw = torch.ones(1, cells, 4, dtype=dtype)
    raw[:, :30] = -90  # boxes far away: metric 0 in the first cells
    preds = Predictions(torch.zeros(1, cells, 1, dtype=dtype), raw, Distance(num_bins=1), grid)
    targets = make_targets([(0, 0, 64, 64), (8, 8, 40, 40), (0, 0, 30, 20)], dtype=dtype)
    options = {"topk": 20, "topk2": 12, **switches}

    pairs = pairs_of(TaskAligned(**options), preds, prepared(targets, preds))

    assert_equal(pairs, by_reference(preds, targets, **options), 1e-5 if dtype == torch.float32 else 1e-9)


def test_seven_then_one_finds_a_cell_for_an_object_that_one_alone_loses():
    # Two boxes like the same cell best; the smaller overlaps it more. With topk 1 the larger ends with nothing.
    grid = grid_for_image((32, 64), (32,))
    # Cell 0 predicts (0, 0, 32, 32), cell 1 predicts (0, 0, 64, 32).
    raw = torch.tensor([[[16.0, 16.0, 16.0, 16.0], [48.0, 16.0, 16.0, 16.0]]]).double() / 32
    logits = torch.tensor([[[2.0], [-12.0]]]).double()
    preds = Predictions(logits, raw, Distance(num_bins=1), grid)
    targets = prepared(make_targets([(0, 0, 64, 32), (0, 0, 30, 32)]), preds)

    one, seven_then_one = (
        pairs_of(TaskAligned(topk=1), preds, targets),
        pairs_of(TaskAligned(topk=7, topk2=1), preds, targets),
    )

    assert owners(one) == {(0, 0): 1}
    assert owners(seven_then_one) == {(0, 0): 1, (0, 1): 0}


@pytest.mark.parametrize("seed", range(4))
def test_in_a_crowd_seven_then_one_is_not_one(seed):
    source = generator(30 + seed)
    preds = random_predictions(source, 1, (64, 64))
    targets = random_targets(source, (25,), (64, 64))

    one, seven_then_one = (
        pairs_of(TaskAligned(**k), preds, prepared(targets, preds)) for k in ({"topk": 1}, {"topk": 7, "topk2": 1})
    )

    assert_equal(seven_then_one, by_reference(preds, targets, topk=7, topk2=1), 1e-9)
    assert owners(seven_then_one) != owners(one)
    served = list(owners(seven_then_one).values())
    assert len(set(served)) == len(served)  # with topk 1 alone, winners of contests may hold two cells


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "-".join(s.values()))
@pytest.mark.parametrize("seed", range(4))
def test_oriented_boxes_equal_brute_force(seed, switches):
    source = generator(40 + seed)
    counts = [(3, 0, 5), (12, 1), (0, 0), (30, 2)][seed]
    options = [{}, {"min_side": 16.0}, {}, {"topk": 7, "topk2": 1, "smallest_side": 20.0}][seed] | switches
    preds = random_predictions(source, len(counts), (64, 64))
    preds, targets = oriented(preds, random_targets(source, counts, (64, 64)), source)
    assigner = TaskAligned(overlap="probiou", **options)

    pairs = pairs_of(assigner, preds, prepare(assigner, targets, preds.grid))

    assert_equal(pairs, by_reference(preds, targets, **options), 1e-8)


def test_oriented_float32_equals_brute_force():
    source = generator(50)
    preds = random_predictions(source, 2, (64, 64), dtype=torch.float32)
    preds, targets = oriented(preds, random_targets(source, (25, 4), (64, 64), dtype=torch.float32), source)
    assigner = TaskAligned(overlap="probiou")

    pairs = pairs_of(assigner, preds, prepare(assigner, targets, preds.grid))

    # Weights go with the sixth power of an overlap known to about 2e-6.
    assert_equal(pairs, by_reference(preds, targets), 5e-5)


@pytest.mark.parametrize("validity", ["mask", "sum"])
@pytest.mark.parametrize("seed", range(3))
def test_widened_boxes_equal_brute_force(seed, validity):
    source = generator(60 + seed)
    preds = random_predictions(source, 1, (64, 64))
    targets = make_targets(
        [(10, 10, 13, 30), (30, 30, 33, 33), (40, 5, 40, 20), (0, 0, 60, 60), (50, 50, 64, 52), (-40, -2, 3, 9)]
    )
    options = {"min_side": 16.0, "validity": validity, "zero_metric_positives": "lowest_index"}
    assigner = TaskAligned(**options)

    pairs = pairs_of(assigner, preds, prepare(assigner, targets, preds.grid))

    assert_equal(pairs, by_reference(preds, targets, **options), 1e-9)


def test_the_second_stride_is_that_of_the_grid():
    targets = make_targets([(10, 10, 13, 30)])
    for strides, side in (((8, 16, 32), 16.0), ((4, 8), 8.0), ((8,), 8.0)):
        grid = grid_for_image((64, 64), strides)

        candidates = prepare(TaskAligned(min_side="second_stride"), targets, grid).candidates

        assert candidates.min_side == side


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("objectness", [False, True])
def test_scores_are_the_probabilities_that_the_head_means(exclusive, objectness, dtype):
    source = generator(70)
    preds = random_predictions(source, 2, (64, 64), dtype=dtype)
    plane = torch.randn(preds.logits.shape[:2], generator=source).to(dtype)
    preds = dataclasses.replace(preds, exclusive=exclusive, objectness=plane if objectness else None)
    targets = random_targets(source, (6, 9), (64, 64), dtype=dtype)
    z = preds.logits.detach().double()
    scores = z.sigmoid()
    if exclusive:
        total = z.exp().sum(dim=-1, keepdim=True)
        scores = z.exp() / (total if objectness else 1 + total)
    if objectness:
        scores = scores * plane.double().sigmoid()[..., None]

    pairs = pairs_of(TaskAligned(), preds, prepared(targets, preds))

    assert_equal(pairs, by_reference(preds, targets, scores), 5e-5 if dtype == torch.float32 else 1e-9)


def test_one_exclusive_class_is_a_sigmoid():
    source = generator(71)
    preds = random_predictions(source, 2)
    preds = dataclasses.replace(preds, logits=preds.logits[..., :1])
    targets = dataclasses.replace(t := random_targets(source, (6, 9)), labels=torch.zeros_like(t.labels))
    targets = prepared(targets, preds)

    plain, exclusive = (
        pairs_of(TaskAligned(), dataclasses.replace(preds, exclusive=e), targets) for e in (False, True)
    )

    assert weights(exclusive) == pytest.approx(weights(plain), rel=1e-12)


def test_exclusive_scores_of_extreme_logits_are_finite():
    preds = random_predictions(generator(72), 1, dtype=torch.float32)
    logits = torch.where(preds.logits > -1, 1e4, -1e4)
    preds = dataclasses.replace(preds, logits=logits, exclusive=True)

    pairs = pairs_of(TaskAligned(), preds, prepared(random_targets(generator(72), (6,), dtype=torch.float32), preds))

    assert pairs.weight.isfinite().all()
    assert pairs.normalizer.isfinite()


@pytest.mark.parametrize(("turned", "overlap"), [(True, "ciou"), (False, "probiou")])
def test_the_overlap_has_to_be_one_of_the_targets_kind_of_boxes(turned, overlap):
    source = generator(73)
    preds, targets = random_predictions(source, 1), random_targets(source, (3,))
    if turned:
        preds, targets = oriented(preds, targets, source)

    assert_refused(
        TaskAligned(overlap=overlap), preds, prepared(targets, preds), f"TaskAligned.overlap: expected .* got {overlap}"
    )


def test_a_second_topk_of_nothing_is_refused_in_python_too():
    with pytest.raises(ConfigError, match=r"TaskAligned.topk2: expected at least 1, got 0"):
        TaskAligned(topk2=0)


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "-".join(s.values()))
@pytest.mark.parametrize("seed", range(6))
def test_crowds_with_many_zero_metrics_equal_brute_force(seed, switches):
    # Half of all cells predict a far box: zero metrics enter top-ks and conflicts, which golden files avoid.
    source = generator(80 + seed)
    preds = random_predictions(source, 2, (64, 64), bins=1)
    far = torch.rand(2, len(preds.grid.points), 1, generator=source) < 0.8
    raw = torch.where(far, torch.tensor([-90.0, -90.0, 91.0, 91.0]).double(), preds.box_raw.detach())
    preds = dataclasses.replace(preds, box_raw=raw)
    targets = random_targets(source, (8, 14), (64, 64))

    pairs = pairs_of(TaskAligned(topk=13, **switches), preds, prepared(targets, preds))

    assert_equal(pairs, by_reference(preds, targets, topk=13, **switches), 1e-9)
