# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A kernel gives what its definition gives: every contribution, and the gradient of each of them.

Both forms get the same pairs. The gradient is that of contributions times random numbers, so that none hides another.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.losses.anchor_scenes import joined, pyramid, random_maps
from tests.losses.dense_scenes import CRITERIA, scene
from tests.losses.query_scenes import query_predictions
from tests.losses.scenes import generator, random_targets
from tests.losses.terms.conftest import TERMS
from torch import Tensor

from boxwright.kernels import definitions, fast, kernel_of
from boxwright.losses.assign import AnchorRatio, Hungarian, TaskAligned
from boxwright.losses.criterion import Criterion
from boxwright.losses.factors import with_factors
from boxwright.losses.shared import SharedPredictions
from boxwright.losses.terms import (
    AnchorOverlap,
    BoxOverlap,
    DistanceBins,
    DistanceL1,
    FocalScores,
    HardScores,
    KeypointLocation,
    KeypointVisibility,
    Objectness,
    PrototypeMasks,
    QualityFocalScores,
    QueryScores,
    QueryVarifocalScores,
    SemanticMap,
    SoftScores,
    VarifocalScores,
)
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.structures import Assignment, Outputs, Predictions, Targets

# Rounding only, so both are in units of the last place. An entry is the outcome of about a hundred operations, and
# of differences of larger numbers (1 - overlap, a corrected background) that cost two digits more; where it is nearly 0
# itself, of numbers as large as a fiftieth of the tensor's largest. The worst of these cases is 211 units off.
RELATIVE, OF_LARGEST = 1024, 20

COUNTS = {"mixed": (4, 0, 7), "empty": (0, 0), "one pair": (0, 3), "crowded": (70,), "twins": (6, 2), "padded": (5, 3)}
WEIGHTS = (0.5, 1.0, 4.0)
LEAVES = (
    "logits",
    "box_raw",
    "angle",
    "objectness",
    "mask_coefs",
    "prototypes",
    "semantic_logits",
    "keypoints_raw",
    "table",
)

Case = tuple[Predictions, Targets, Assignment]


def weighted(term: Any) -> Iterator[Any]:
    """The term without and with class weights of each mode."""
    yield term
    for mode in ("positive", "both"):
        yield dataclasses.replace(term, class_weights=WEIGHTS, weight_mode=mode)


SCORES = [
    *weighted(SoftScores()),
    SoftScores(empty_norm="anchors"),
    *weighted(FocalScores()),
    *weighted(FocalScores(target="hard", gamma=1.5)),
    FocalScores(alpha=0.0, gamma=1.0),
    *weighted(QualityFocalScores()),
    QualityFocalScores(alpha=0.25, gamma=1.5),
    *weighted(VarifocalScores()),
    VarifocalScores(detach_weight=True),
]
OVERLAPS = ("iou", "giou", "diou", "ciou", "eiou", "siou", "mpdiou", "wiou", "nwd")
BOXES = [*(BoxOverlap(overlap=name) for name in OVERLAPS), BoxOverlap(unit="normalized", inner_ratio=0.75)]
MASKS = [
    PrototypeMasks(),
    PrototypeMasks(reduction="image_levels", crop="centre"),
    PrototypeMasks(resize="prototypes"),
]
HARD = [
    HardScores(),
    HardScores(smoothing=0.2),
    HardScores(pos_weight=2.0, modulation="focal"),
    *weighted(HardScores(modulation="quality_focal", smoothing=0.1)),
]
OBJECTNESS = [
    Objectness(),
    Objectness(duplicates="last", gr=0.5),
    Objectness(pos_weight=2.0, overlap="giou"),
    Objectness(focal_gamma=1.5),
]
QUERIES = [
    *weighted(QueryScores()),
    *weighted(QueryVarifocalScores()),
    *weighted(QueryVarifocalScores(alpha=0.25, gamma=1.5)),
    QueryVarifocalScores(detach_weight=True),
]
HEADS: dict[str, list[Any]] = {
    "detect": [*SCORES, *BOXES, DistanceBins()],
    "detect, one bin": [BoxOverlap(), DistanceL1(), DistanceBins()],
    "exclusive": [*weighted(SoftScores()), SoftScores(empty_norm="anchors")],
    "segment": [*MASKS, SemanticMap(), BoxOverlap()],
    "pose": [KeypointLocation(), KeypointLocation(sigmas=(0.1, 0.2, 0.3, 0.4)), KeypointVisibility()],
    "pose, likelihood": [KeypointLocation(), KeypointVisibility()],  # offsets from the cell's centre
    "oriented": [BoxOverlap(overlap="probiou", cov_floor=0.1), DistanceBins(), DistanceBins(rotated=False)],
    "anchors": [*HARD, *OBJECTNESS, AnchorOverlap(), AnchorOverlap(overlap="giou")],
    "table": [HardScores(), Objectness(), Objectness(focal_gamma=1.5), AnchorOverlap()],
    "queries": QUERIES,
}
CASES = [(head, term) for head, terms in HEADS.items() for term in terms]
NAMES = [f"{head} {number} {term.kind}" for number, (head, term) in enumerate(CASES)]


def test_every_kernel_has_a_case():
    with_kernel = {part for part in TERMS if kernel_of(_any(part)) is not None}

    assert with_kernel == {type(term) for _, term in CASES}


def _any(part: type) -> Any:
    return part(name="loc") if part.__name__ == "Attribute" else part()


def dense(head: str, layout: str, dtype: torch.dtype) -> Case:
    outputs, targets = scene(head, COUNTS[layout], seed=len(layout), dtype=dtype)
    preds, targets = outputs.final, twins(targets) if layout == "twins" else targets
    overlap = "probiou" if targets.oriented else "ciou"
    return preds, targets, TaskAligned(overlap=overlap)(preds, targets)


def with_anchors(table: bool, layout: str, dtype: torch.dtype) -> Case:
    grid, source = pyramid(), generator(len(layout))
    targets = random_targets(source, COUNTS[layout], dtype=dtype)
    targets = twins(targets) if layout == "twins" else targets
    maps = random_maps(source, len(COUNTS[layout]), grid, dtype=dtype)
    preds = joined([part.detach() for part in maps], grid, table=table).final
    return preds, targets, AnchorRatio()(preds, targets)


def with_queries(layout: str, dtype: torch.dtype) -> Case:
    source, counts = generator(len(layout)), COUNTS[layout]
    targets = random_targets(source, counts, dtype=dtype)
    targets = twins(targets) if layout == "twins" else targets
    preds = query_predictions(source, len(counts), 90, dtype=dtype)
    return preds, targets, Hungarian()(preds, targets)


def twins(targets: Targets) -> Targets:
    """Every odd slot holds the box of the slot before it: their claims tie."""
    boxes = targets.boxes.clone()
    last = boxes.shape[1] // 2 * 2
    boxes[:, 1:last:2] = boxes[:, 0:last:2]
    return dataclasses.replace(targets, boxes=boxes)


def build(head: str, layout: str, dtype: torch.dtype) -> Case:
    if head in ("anchors", "table"):
        preds, targets, pairs = with_anchors(head == "table", layout, dtype)
    else:
        preds, targets, pairs = with_queries(layout, dtype) if head == "queries" else dense(head, layout, dtype)
    if layout == "one pair":
        first = pairs.valid & (pairs.valid.cumsum(0) == 1)
        assert first.sum() == 1
        pairs = dataclasses.replace(
            pairs, **{name: getattr(pairs, name)[first] for name in ("image", "anchor", "target", "valid", "weight")}
        )
    return preds, targets, padded(pairs) if layout == "padded" else pairs


def padded(pairs: Assignment) -> Assignment:
    """Two unused slots among the pairs, which point at candidates that others hold."""
    order = torch.cat((torch.tensor([0]), torch.arange(len(pairs.image)), torch.tensor([1])))
    used = torch.ones(len(order), dtype=torch.bool)
    used[[0, -1]] = False
    parts = {name: getattr(pairs, name)[order] for name in ("image", "anchor", "target")}
    return dataclasses.replace(
        pairs, **parts, valid=pairs.valid[order] & used, weight=pairs.weight[order] * used, all_valid=False
    )


def leaves_of(preds: Predictions) -> tuple[Predictions, dict[str, Tensor]]:
    """A copy whose raw tensors are leaves; fields that are views of a table are views of its copy."""
    found = {
        name: getattr(preds, name).detach().clone().requires_grad_()
        for name in LEAVES
        if getattr(preds, name) is not None and (preds.table is None or name == "table")
    }
    if preds.table is None:
        return dataclasses.replace(preds, **found), found
    table = found["table"]
    views = {"box_raw": table[..., :4], "objectness": table[..., 4], "logits": table[..., 5:]}
    return dataclasses.replace(preds, table=table, **views), found


def run(call: Callable[..., Tensor], case: Case, shared: bool) -> tuple[Tensor, dict[str, Tensor]]:
    preds, targets, pairs = case
    preds, leaves = leaves_of(preds)
    values = call(SharedPredictions.of(preds, pairs) if shared else preds, targets, pairs)
    if not values.requires_grad:
        return values, {}
    weights = torch.rand(values.shape, generator=generator(1), dtype=torch.float64).to(values.dtype) + 0.1
    (values * weights).sum().backward()
    return values.detach(), {
        name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()
    }


def assert_equal(got: Tensor, expected: Tensor, name: str) -> None:
    unit = torch.finfo(expected.dtype).eps
    largest = expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(
        got,
        expected,
        rtol=RELATIVE * unit,
        atol=OF_LARGEST * unit * largest,
        msg=lambda text: f"{name}: {text}",
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("layout", COUNTS)
@pytest.mark.parametrize(("head", "term"), CASES, ids=NAMES)
def test_values_and_gradients_are_equal(head, term, layout, dtype):
    case = build(head, layout, dtype)

    expected, by_definition = run(term, case, shared=False)
    got, by_kernel = run(fast(term), case, shared=True)

    assert got.dtype == expected.dtype
    assert_equal(got, expected, "contributions")
    assert by_kernel.keys() == by_definition.keys()
    for name, gradient in by_definition.items():
        assert_equal(by_kernel[name], gradient, name)


IGNORING = [(head, term) for head, term in CASES if term.scope in ("candidate", "own")]


@pytest.mark.parametrize(("head", "term"), IGNORING, ids=[f"{i} {term.kind}" for i, (_, term) in enumerate(IGNORING)])
def test_weights_of_objects_and_ignore_regions_are_equal(head, term):
    preds, targets, pairs = build(head, "mixed", torch.float64)
    source, shape = generator(3), targets.labels.shape
    weights = torch.rand(shape, generator=source, dtype=torch.float64) * (torch.rand(shape, generator=source) < 0.7)
    centre = torch.rand(shape[0], 2, 4, generator=source, dtype=torch.float64)
    regions = cxcywh_to_xyxy(centre * torch.tensor([96.0, 64.0, 40.0, 40.0], dtype=torch.float64))
    targets = dataclasses.replace(targets, weights=weights, ignore=regions)

    def factored(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda preds, targets, pairs: with_factors(call(preds, targets, pairs), term, preds, targets, pairs)

    expected, by_definition = run(factored(term), (preds, targets, pairs), shared=False)
    got, by_kernel = run(factored(fast(term)), (preds, targets, pairs), shared=True)

    assert expected.eq(0).any()
    assert_equal(got, expected, "contributions")
    for name, gradient in by_definition.items():
        assert_equal(by_kernel[name], gradient, name)


@pytest.mark.parametrize("name", CRITERIA)
def test_a_whole_criterion_is_equal(name):
    """All terms of a rule at once: what they share changes none of them."""
    outputs, targets = scene(name, (5, 0, 3))
    rules = CRITERIA[name]()
    every = (*outputs.auxiliary, outputs.final)
    found = dict(zip((preds.role for preds in every), rules._assign(every, targets), strict=True))
    fixed = {
        role: dataclasses.replace(rule, assigner=lambda preds, targets: found[preds.role])
        for role, rule in rules.rules.items()
    }
    rules = Criterion(rules=fixed, batch_scale=rules.batch_scale)

    def step() -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        copies = [leaves_of(preds) for preds in every]
        loss = rules(Outputs(copies[-1][0], tuple(copy for copy, _ in copies[:-1])), targets, 0.3)
        loss.total.backward()
        gradients = {
            preds.role: {key: leaf.grad for key, leaf in leaves.items() if leaf.grad is not None}
            for preds, leaves in copies
        }
        return {item.name: item.contributions.detach() for item in loss.items}, gradients

    got, by_kernel = step()
    with definitions():
        expected, by_definition = step()

    assert got.keys() == expected.keys()
    for item, values in expected.items():
        assert_equal(got[item], values, item)
    for role, gradients in by_definition.items():
        assert by_kernel[role].keys() == gradients.keys()
        for key, gradient in gradients.items():
            assert_equal(by_kernel[role][key], gradient, f"{role}/{key}")
