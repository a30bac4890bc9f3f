# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLOv8-type detection in golden cases: one head, and the end-to-end pair of heads."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from tests.golden.common import COMPATIBLE, Run, predictions, targets_from_rows
from torch import Tensor

from boxwright.losses.assign import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import BoxOverlap, DistanceBins, DistanceL1, SoftScores
from boxwright.structures import Outputs

GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5}
HEAD = {"nc", "reg_max", "strides", "gains", "min_side", "plain_l1", "class_weights"}


def check_known(config: Mapping[str, Any], known: set[str]) -> None:
    assert set(config) <= known, f"options without a counterpart: {set(config) - known}"


def leaves_of(maps: list[Any], dtype: torch.dtype) -> list[Tensor]:
    return [torch.from_numpy(one).to(dtype).requires_grad_() for one in maps]


def soft_scores(config: Mapping[str, Any]) -> SoftScores:
    weights = config.get("class_weights")
    return SoftScores(class_weights=None if weights is None else tuple(weights), weight_mode="both")


def detect_rule(config: Mapping[str, Any], topk: int, topk2: int | None, scale: float = 1.0) -> Rule:
    """The rule of one head; options by their golden names."""
    terms = {
        "box": BoxOverlap(),
        "cls": soft_scores(config),
        "dfl": DistanceL1() if config.get("plain_l1") and config["reg_max"] == 1 else DistanceBins(),
    }
    gains = GAINS | config.get("gains", {})
    return Rule(
        assigner=TaskAligned(topk=topk, topk2=topk2, min_side=float(config.get("min_side", 0)), **COMPATIBLE),
        terms={name: Weighted(term=term, gain=gains[name]) for name, term in terms.items()},
        scale=scale,
    )


def detect(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    config = case["config"]
    check_known(config, HEAD | {"topk", "topk2"})
    feats = leaves_of(inputs["feats"], dtype)
    preds = predictions(feats, config)
    targets = targets_from_rows(inputs, len(feats[0]), preds.image_size, dtype)
    criterion = Criterion(rules={"main": detect_rule(config, config.get("topk", 10), config.get("topk2"))})
    loss = criterion(Outputs(preds), criterion.prepare(targets, preds.grid))
    return Run(
        components={name.removeprefix("main/"): value for name, value in loss.components.items()},
        total=loss.total,
        leaves={f"feats{index}": feat for index, feat in enumerate(feats)},
        assignments={"assign": loss.assignments["main"]},
    )


def end2end(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    config = case["config"]
    check_known(config, HEAD | {"topk_many", "topk_one", "topk2_one", "w_many", "w_one", "report"})
    maps = {role: leaves_of(inputs[role], dtype) for role in ("one2many", "one2one")}
    many, one = (replace(predictions(feats, config), role=role) for role, feats in maps.items())
    targets = targets_from_rows(inputs, len(maps["one2one"][0]), one.image_size, dtype)
    scales = {"one2many": config.get("w_many", 1.0), "one2one": config.get("w_one", 1.0)}
    criterion = Criterion(
        rules={
            "one2many": detect_rule(config, config.get("topk_many", 10), None, scales["one2many"]),
            "one2one": detect_rule(config, config.get("topk_one", 1), config.get("topk2_one"), scales["one2one"]),
        }
    )
    loss = criterion(Outputs(one, (many,)), criterion.prepare(targets, one.grid))
    report = {"sum": ("one2many", "one2one"), "one": ("one2one",)}[config.get("report", "sum")]
    return Run(
        # Golden components carry no factor of the branch; the total does.
        components={name: sum(loss.components[f"{role}/{name}"] / scales[role] for role in report) for name in GAINS},
        total=loss.total,
        leaves={f"{role}{index}": feat for role, feats in maps.items() for index, feat in enumerate(feats)},
        assignments={"assign": loss.assignments["one2many"], "assign_one": loss.assignments["one2one"]},
    )
