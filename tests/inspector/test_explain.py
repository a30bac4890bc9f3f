# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The walk-through of a loss: the published worked example number by number, and stages that end in the total."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.golden.inputs import BUILDERS

from boxwright.errors import ConfigError
from boxwright.inspector.explain import DIRECTIONS, anchor_stages, explain
from boxwright.losses import from_detr_stacks, from_yolov5_maps, from_yolov8_maps, rtdetr, yolov5_detect, yolov8_detect
from boxwright.losses.assign.anchor_ratio import AnchorRatio
from boxwright.losses.assign.simota import SimOTA
from boxwright.losses.criterion import Criterion, Rule
from boxwright.structures import Targets

EXAMPLE = json.loads((Path(__file__).parents[1] / "golden" / "worked_example.json").read_text())
PRINTED = 1e-4  # the walk-through prints four decimals


def columns(table, *names):
    return np.stack([table[name] for name in names], axis=1).astype(float)


@pytest.fixture(scope="module")
def stages():
    inputs = BUILDERS["worked_example"]({"seed": 0})
    boxes = inputs["targets"][:, 2:].astype(np.float64) * EXAMPLE["scale"][2:6]
    priors = inputs["anchors"][0].astype(np.float64)
    limit = EXAMPLE["setup"]["anchor_t"]
    claims = AnchorRatio(ratio=limit).claims(torch.from_numpy(boxes), torch.from_numpy(priors), (40, 40))
    return [stage.table for stage in anchor_stages(0, boxes, priors, claims, limit)]


def test_objects_in_cells(stages):
    expected = np.array(EXAMPLE["targets_in_grid_units"])[:, 2:]
    np.testing.assert_allclose(columns(stages[0], "cx", "cy", "w", "h"), expected, atol=PRINTED)


def test_fitting_priors(stages):
    mask = columns(stages[1], *(f"fits {i}" for i in range(5))).astype(int)
    assert mask.tolist() == EXAMPLE["match_mask_anchor_by_target"]
    ratios = columns(stages[1], *(f"object {i}" for i in range(5)))
    assert ((ratios < 4.0).astype(int) == mask).all()


def test_pairs_and_neighbours(stages):
    assert columns(stages[2], "object", "prior").astype(int).tolist() == EXAMPLE["matched_pairs_target_anchor"]
    assert len(stages[2]) == EXAMPLE["matched_count"]
    assert columns(stages[3], *DIRECTIONS).T.astype(int).tolist() == EXAMPLE["direction_mask"]
    assert list(DIRECTIONS) == EXAMPLE["direction_mask_order"]


def test_claims(stages):
    printed, some = EXAMPLE["rows_12_to_17"], stages[4].take(np.arange(12, 17))
    assert len(stages[4]) == EXAMPLE["assigned_count"]
    np.testing.assert_allclose(columns(some, "cx", "cy"), printed["grid_xy"], atol=PRINTED)
    assert columns(some, "offset x", "offset y").tolist() == printed["offset"]
    np.testing.assert_allclose(columns(some, "shifted x", "shifted y"), printed["shifted"], atol=PRINTED)
    assert columns(some, "column", "row").astype(int).tolist() == printed["cell_col_row"]


SIZE, STRIDES = (64, 96), (8, 16, 32)
TARGETS = Targets(
    torch.tensor([[1, 0]]),
    torch.tensor([[[10.0, 8.0, 50.0, 40.0], [60.0, 20.0, 90.0, 60.0]]]),
    torch.ones(1, 2, dtype=torch.bool),
)


def maps(*shape):
    make = torch.Generator().manual_seed(0)
    return [torch.randn(1, *shape[:-1], SIZE[0] // s, SIZE[1] // s, *shape[-1:], generator=make) for s in STRIDES]


def yolov5():
    anchors = [[(10, 13), (16, 30)], [(30, 61), (62, 45)], [(90, 80), (110, 60)]]
    return from_yolov5_maps(maps(2, 8), anchors, STRIDES, anchor_unit="pixel", num_classes=3), yolov5_detect()


def yolov8():
    flat = [m.squeeze(-1) for m in maps(67, 1)]
    return from_yolov8_maps(flat, STRIDES, num_classes=3, num_bins=16), yolov8_detect()


def queries():
    make = torch.Generator().manual_seed(0)
    boxes, logits = torch.rand(3, 1, 20, 4, generator=make), torch.randn(3, 1, 20, 3, generator=make)
    return from_detr_stacks(boxes, logits, image_size=SIZE), rtdetr()


@pytest.mark.parametrize("make", [yolov5, yolov8, queries])
def test_the_last_stage_is_the_criterions_own_total(make):
    outputs, criterion = make()

    stages = list(explain(outputs, TARGETS, criterion, names=("a", "b", "c")))

    total = criterion(outputs, TARGETS).total.item()
    assert stages[0].title == "labels"
    assert stages[-1].table["loss"].sum() == pytest.approx(total, rel=1e-5)
    assert f"{total:.6f}" in stages[-1].sentence
    assert all(stage.sentence.endswith(".") for stage in stages)
    assert all(len(stage.table) for stage in stages)


def test_an_assigner_without_a_walk_through_says_so():
    outputs, criterion = yolov8()
    other = Criterion(rules={"main": Rule(assigner=SimOTA(), terms=criterion.rules["main"].terms)})

    with pytest.raises(ConfigError, match="no walk-through for the assigner SimOTA"):
        list(explain(outputs, TARGETS, other))
