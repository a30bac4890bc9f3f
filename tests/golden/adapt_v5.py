# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Golden cases of the anchor-based criteria: one `Predictions` per level, each on the table of a published map."""

import dataclasses
from typing import Any

import numpy as np
import torch
from tests.golden.common import Run, targets_from_rows
from torch import Tensor

from boxwright.losses.criterion import Criterion
from boxwright.losses.recipes import yolov5_detect, yolov5_exclusive, yolov5_segment
from boxwright.losses.terms.anchor_box import boxes_in_cells
from boxwright.losses.terms.objectness import AutoBalance, Objectness
from boxwright.ops.decode import Anchor
from boxwright.ops.grid import make_grid
from boxwright.structures import Assignment, Grid, Outputs, Predictions, Targets

OPTIONS = {"gains", "anchor_t", "smoothing", "obj_pw", "fl_gamma", "gr", "duplicates", "autobalance_level"}


def v5(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    return _run(case, inputs, dtype, yolov5_detect(**_options(case, {"nc", "cls_pw"})))


def v5_ce(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    run = _run(case, inputs, dtype, yolov5_exclusive(**_options(case, {"nc"})), exclusive=True)
    run.components = {**run.components, "sum": torch.stack(list(run.components.values())).sum()}
    return run


def v5_segment(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    options = _options(case, {"nc", "overlap"})
    overlap = options.pop("overlap", False)
    return _run(case, inputs, dtype, yolov5_segment(**options), overlap=overlap)


def grids(inputs: dict[str, Any]) -> tuple[Grid, list[Grid]]:
    """The grid of the whole pyramid, and one of each level."""
    shapes = [tuple(preds.shape[2:4]) for preds in inputs["preds"]]
    finest, levels = 8, len(shapes)
    strides = [finest * shapes[0][0] // rows for rows, _ in shapes]
    priors = [(of.astype(np.float64) * stride).tolist() for of, stride in zip(inputs["anchors"], strides, strict=True)]
    whole = make_grid(shapes, strides, priors=priors, prior_first=True)
    single = [
        make_grid([shape], [stride], priors=[prior], prior_first=True, first_level=level, total_levels=levels)
        for level, (shape, stride, prior) in enumerate(zip(shapes, strides, priors, strict=True))
    ]
    return whole, single


def level_predictions(
    maps: list[Tensor], levels: list[Grid], classes: int, prototypes: Tensor | None = None, *, exclusive: bool = False
) -> Outputs:
    """Published maps (B, priors, rows, columns, 5 + classes + coefficients) as one `Predictions` per level."""
    found = []
    for level, (values, grid) in enumerate(zip(maps, levels, strict=True)):
        table = values.flatten(1, 3)
        found.append(
            Predictions(
                logits=table[..., 5 : 5 + classes],
                box_raw=table[..., :4],
                decoder=Anchor(),
                grid=grid,
                layer=level,
                objectness=table[..., 4],
                table=table,
                mask_coefs=table[..., 5 + classes :] if prototypes is not None else None,
                prototypes=prototypes,
                exclusive=exclusive,
            )
        )
    return Outputs(found[-1], tuple(found[:-1]))


def _options(case: dict[str, Any], others: set[str]) -> dict[str, Any]:
    config = case["config"]
    assert set(config) <= OPTIONS | others, f"options without a counterpart: {set(config) - OPTIONS - others}"
    names = {"anchor_t": "ratio", "obj_pw": "objectness_weight", "cls_pw": "class_weight", "fl_gamma": "focal_gamma"}
    options = {names.get(name, name): value for name, value in config.items() if name != "nc"}
    options.setdefault("duplicates", "last")  # the compatibility position, spec/losses H.2
    level = options.pop("autobalance_level", None)
    if level is not None:
        options["balance"] = AutoBalance(reference_stride=(8, 16, 32)[level])
    return options


def _run(
    case: dict[str, Any],
    inputs: dict[str, Any],
    dtype: torch.dtype,
    criterion: Criterion,
    *,
    exclusive: bool = False,
    overlap: bool = False,
) -> Run:
    maps = [torch.from_numpy(values).to(dtype).requires_grad_() for values in inputs["preds"]]
    leaves = {f"preds{level}": values for level, values in enumerate(maps)}
    whole, levels = grids(inputs)
    rows = inputs["targets"]
    flat = {"batch_idx": rows[:, 0].astype(int), "cls": rows[:, 1].astype(int), "bboxes": rows[:, 2:]}
    targets = targets_from_rows(flat, len(maps[0]), whole.image_size, dtype)
    prototypes = None
    if "proto" in inputs:
        prototypes = torch.from_numpy(inputs["proto"]).to(dtype).requires_grad_()
        leaves["proto"] = prototypes
        targets = _with_masks(targets, inputs, overlap)
    outputs = level_predictions(maps, levels, case["config"]["nc"], prototypes, exclusive=exclusive)
    targets = criterion.prepare(targets, whole)
    loss = criterion(outputs, targets)
    objectness = criterion.rules["main"].terms["obj"].term
    components: dict[str, Tensor] = {}
    for name, value in loss.components.items():
        term = name.split("/")[1]
        components[term] = components[term] + value if term in components else value
    return Run(
        components=components,
        total=loss.total,
        leaves=leaves,
        assignments=loss.assignments,
        extra={
            "levels": [
                _record(preds, targets, loss.assignments[preds.label], objectness)
                for preds in (*outputs.auxiliary, outputs.final)
            ],
            "balance_after": next(iter(criterion.state_dict().values()), None),
        },
    )


def _record(preds: Predictions, targets: Targets, pairs: Assignment, objectness: Objectness) -> dict[str, np.ndarray]:
    """What a golden file lists of one level."""
    height, width = preds.cells.shapes[0]
    prior, cell = pairs.anchor // (height * width), pairs.anchor % (height * width)
    label = targets.labels[pairs.image, pairs.target]
    rows = torch.stack((pairs.image, prior, cell // width, cell % width, label), dim=1)
    return {
        "rows": rows.numpy(),
        "boxes": boxes_in_cells(preds, targets, pairs)[1].double().numpy(),
        "objectness": objectness.target(preds, targets, pairs)[0].double().numpy(),
    }


def _with_masks(targets: Targets, inputs: dict[str, Any], overlap: bool) -> Targets:
    masks = torch.from_numpy(inputs["masks"])
    if overlap:
        return dataclasses.replace(targets, instance_map=masks.int())
    dense = torch.zeros(*targets.labels.shape, *masks.shape[1:], dtype=torch.bool)
    for image in range(len(dense)):
        mine = np.nonzero(inputs["targets"][:, 0].astype(int) == image)[0]
        dense[image, : len(mine)] = masks[mine].bool()
    return dataclasses.replace(targets, masks=dense)
