# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLOv8-type segmentation in golden cases, with overlap maps or one mask per instance."""

import dataclasses
from typing import Any

import numpy as np
import torch
from tests.golden.common import COMPATIBLE, Run, predictions, targets_from_rows

from boxwright.losses.assign import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import BoxOverlap, DistanceBins, PrototypeMasks, SemanticMap, SoftScores
from boxwright.structures import Outputs, Targets


def segment(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    config = case["config"]
    known = {"nc", "reg_max", "strides", "overlap", "resize", "min_side"}
    assert set(config) <= known, f"options without a counterpart: {set(config) - known}"
    names = ("coef", "proto", "semantic_logits")
    leaves = {name: torch.from_numpy(inputs[name]).to(dtype).requires_grad_() for name in names if name in inputs}
    feats = [torch.from_numpy(feat).to(dtype).requires_grad_() for feat in inputs["feats"]]
    preds = dataclasses.replace(
        predictions(feats, config),
        mask_coefs=leaves["coef"].transpose(1, 2),
        prototypes=leaves["proto"],
        semantic_logits=leaves.get("semantic_logits"),
    )
    targets = with_masks(targets_from_rows(inputs, len(feats[0]), preds.image_size, dtype), inputs, config["overlap"])
    resize = {"labels": "labels", "protos": "prototypes"}[config.get("resize", "labels")]
    terms = {
        "box": Weighted(term=BoxOverlap(), gain=7.5),
        "seg": Weighted(term=PrototypeMasks(resize=resize), gain=7.5),
        "cls": Weighted(term=SoftScores(), gain=0.5),
        "dfl": Weighted(term=DistanceBins(), gain=1.5),
    }
    if "semantic_logits" in leaves:
        terms["sem"] = Weighted(term=SemanticMap(), gain=7.5)
    options = {"min_side": float(config["min_side"])} if "min_side" in config else {}
    criterion = Criterion(rules={"main": Rule(assigner=TaskAligned(**options, **COMPATIBLE), terms=terms)})
    loss = criterion(Outputs(preds), criterion.prepare(targets, preds.grid))
    return Run(
        components={name.removeprefix("main/"): value for name, value in loss.components.items()},
        total=loss.total,
        leaves={**{f"feats{index}": feat for index, feat in enumerate(feats)}, **leaves},
        assignments={"assign": loss.assignments["main"]},
    )


def with_masks(targets: Targets, inputs: dict[str, Any], overlap: bool) -> Targets:
    """The targets with the masks of a case: a map per image, or rows in the order of the batch."""
    batch, slots = targets.labels.shape
    masks = torch.from_numpy(inputs["masks"])
    labelled = torch.from_numpy(inputs["sem_masks"]) if "sem_masks" in inputs else None
    if overlap:
        return dataclasses.replace(targets, instance_map=masks.int(), class_map=labelled)
    padded = torch.zeros(batch, slots, *masks.shape[1:], dtype=torch.bool)
    for image in range(batch):
        rows = np.nonzero(inputs["batch_idx"] == image)[0]
        padded[image, : len(rows)] = masks[rows] > 0
    return dataclasses.replace(targets, masks=padded, class_map=labelled)
