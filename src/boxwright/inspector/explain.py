# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A loss step by step on one batch: every tensor of target building and loss, in the order of the computation.

Nothing is computed a second way: assigners are walked through by their definitions, and the last stage is the
criterion's own total.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from boxwright.errors import ConfigError
from boxwright.inspector.probe import Inspection, inspect
from boxwright.losses.assign.anchor_ratio import AnchorRatio, Claims
from boxwright.losses.assign.hungarian import Hungarian
from boxwright.losses.assign.task_aligned import TaskAligned
from boxwright.losses.criterion import Criterion
from boxwright.ops.decode import Distance, Oriented
from boxwright.structures import Outputs, Targets
from boxwright.table import Table

DIRECTIONS = ("centre", "left neighbour", "upper neighbour", "right neighbour", "lower neighbour")
OFFSETS = np.array([(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)], np.float64)
QUERIES_SHOWN = 3  # cheapest queries of every object


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the computation."""

    title: str
    sentence: str
    table: Table


def explain(outputs: Outputs, targets: Targets, criterion: Criterion, names: Sequence[str] = ()) -> Iterator[Stage]:
    """The stages of a batch, in order. Meant for one image and a few objects: everything is listed.

    Raises:
        ConfigError: the criterion's assigner has no walk-through.
    """
    inspection = inspect(outputs, targets, criterion, names=names, gradients=False, shown=1 << 30)
    yield _labels(inspection)
    assigner = criterion.rules[outputs.final.role].assigner
    for kind, walk in _WALKS:
        if isinstance(assigner, kind):
            yield from walk(outputs, assigner, inspection)
            break
    else:
        raise ConfigError(f"explain: no walk-through for the assigner {type(assigner).__name__}")
    yield from _losses(inspection)


def anchor_stages(level: int, boxes: np.ndarray, priors: np.ndarray, claims: Claims, limit: float) -> list[Stage]:
    """How claims of one level come about: `boxes` (cx, cy, w, h) and `priors` (w, h) in cells."""
    where = f"level {level}"
    ratio, fits, directions, direction, prior, claimant, cell = (part.numpy() for part in claims)
    fitting_prior, fitting = np.nonzero(fits)
    stages = [
        Stage(
            f"{where}: objects in cells",
            "A cell is one stride wide. Centre and size are divided by the stride.",
            Table({"object": np.arange(len(boxes)), **_columns(("cx", "cy", "w", "h"), boxes)}),
        ),
        Stage(
            f"{where}: larger side ratio of every prior (row) and object (column)",
            f"A prior fits when neither side differs by the factor {limit:g} or more.",
            Table(
                {
                    "prior": np.arange(len(priors)),
                    **_columns(("w", "h"), priors),
                    **{f"object {i}": ratio[:, i] for i in range(len(boxes))},
                    **{f"fits {i}": fits[:, i] for i in range(len(boxes))},
                }
            ),
        ),
        Stage(
            f"{where}: matched pairs",
            "Every fitting prior and object, by prior.",
            Table({"object": fitting, "prior": fitting_prior}),
        ),
        Stage(
            f"{where}: which neighbours join in",
            "A pair also takes the neighbours whose border is nearer to the object's centre than half a cell.",
            Table(
                {
                    "object": fitting,
                    "prior": fitting_prior,
                    **{name: directions[i, fitting] for i, name in enumerate(DIRECTIONS)},
                }
            ),
        ),
    ]
    offset = OFFSETS[direction] * 0.5
    centre = boxes[claimant, :2]
    relative = np.concatenate((centre - cell, boxes[claimant, 2:]), axis=1)
    stages.append(
        Stage(
            f"{where}: claims",
            "Centre minus offset, cut to whole numbers, is the claimed cell; the box is then told relative to it.",
            Table(
                {
                    "object": claimant,
                    "prior": prior,
                    "direction": [DIRECTIONS[i] for i in direction],
                    **_columns(("cx", "cy"), centre),
                    **_columns(("offset x", "offset y"), offset),
                    **_columns(("shifted x", "shifted y"), centre - offset),
                    "column": cell[:, 0],
                    "row": cell[:, 1],
                    **_columns(("box cx", "box cy", "box w", "box h"), relative),
                }
            ),
        )
    )
    return stages


def _labels(inspection: Inspection) -> Stage:
    columns = ("image", "object", "class", "x1", "y1", "x2", "y2", "w", "h")
    height, width = inspection.image_size
    return Stage(
        "labels",
        f"The objects in pixels of the network input, {width} wide and {height} high.",
        Table({name: inspection.objects[name] for name in columns if name in inspection.objects}),
    )


def _anchor_based(outputs: Outputs, assigner: AnchorRatio, inspection: Inspection) -> Iterator[Stage]:
    objects = inspection.objects
    corners = np.stack([objects[name] for name in ("x1", "y1", "x2", "y2")], axis=1).astype(np.float64)
    boxes = np.concatenate(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), axis=1)
    for preds in (*outputs.auxiliary, outputs.final):
        grid = preds.cells
        for index, (shape, stride) in enumerate(zip(grid.shapes, grid.level_strides, strict=True)):
            priors, in_cells = np.array(grid.level_priors[index]) / stride, boxes / stride
            claims = assigner.claims(torch.from_numpy(in_cells), torch.from_numpy(priors), shape)
            level = grid.first_level + index
            yield from anchor_stages(level, in_cells, priors, claims, assigner.ratio)
    yield _pairs(
        inspection,
        "what the network says at the claims",
        "Predicted corners (px) at every claim, the score of the object's class, and the overlap with the object. "
        "The overlap becomes the objectness target of the candidate; of several claims the largest counts.",
        ("found_x1", "found_y1", "found_x2", "found_y2", "score", "overlap"),
    )


def _task_aligned(outputs: Outputs, assigner: TaskAligned, inspection: Inspection) -> Iterator[Stage]:
    grid = outputs.final.cells
    yield Stage(
        "the grid",
        "Every cell centre is one candidate. Those inside a box may learn from its object.",
        Table(
            {
                "stride": list(grid.level_strides),
                "columns": [columns for _, columns in grid.shapes],
                "rows": [rows for rows, _ in grid.shapes],
                "candidates": list(grid.level_sizes),
            }
        ),
    )
    cells = [name for name in inspection.objects.columns if "cells_s" in name]
    yield Stage(
        "cells inside each object",
        "An object without a cell centre inside can never be learned at this image size.",
        Table({name: inspection.objects[name] for name in ("object", "class", *cells)}),
    )
    columns = ("part", "object", "class", "candidate", "stride", "x", "y", "score", "overlap", "metric", "rank", "fate")
    yield Stage(
        "what every cell inside is worth",
        f"metric = score^{assigner.alpha:g} * overlap^{assigner.beta:g}; every object asks for its {assigner.topk} "
        "best. A cell that several ask for goes to the object it overlaps most.",
        Table({name: inspection.candidates[name] for name in columns}),
    )
    yield _pairs(
        inspection,
        "positives and their weights",
        "A pair's weight is its metric, scaled so that an object's best pair weighs its best overlap. The weights' sum "
        "(at least 1) is the normalizer; share = weight / normalizer.",
        ("overlap", "weight", "share"),
    )
    if isinstance(outputs.final.decoder, Distance | Oriented) and "wanted_left" in inspection.pairs:
        sides = ("left", "top", "right", "bottom")
        yield _pairs(
            inspection,
            "distances to the sides, in strides",
            "The expectation of each side's distribution over bins (found) against the object's side (wanted).",
            tuple(f"{kind}_{side}" for side in sides for kind in ("found", "wanted")),
        )


def _set_prediction(outputs: Outputs, assigner: Hungarian, inspection: Inspection) -> Iterator[Stage]:
    columns = ("part", "object", "class", "candidate", "score", "overlap", "metric", "rank", "fate")
    near = inspection.candidates
    shown = near.take((near["rank"] < QUERIES_SHOWN) | (near["fate"] == "positive")) if len(near) else near
    yield Stage(
        "what every object costs each query",
        f"cost = {assigner.class_gain:g} * class + {assigner.l1_gain:g} * L1 + {assigner.giou_gain:g} * (1 - GIoU); "
        "the metric is minus the cost. Of all one-to-one matchings the cheapest is taken, layer by layer; the cheapest "
        f"{QUERIES_SHOWN} queries of each object and its own are shown.",
        Table({name: shown[name] for name in columns}) if len(shown) else shown,
    )
    yield _pairs(
        inspection,
        "matched queries",
        "Each object has one query in every layer, and its positive denoising queries.",
        ("found_x1", "found_y1", "found_x2", "found_y2", "score", "overlap"),
    )


def _pairs(inspection: Inspection, title: str, sentence: str, columns: Sequence[str]) -> Stage:
    where = ("part", "object", "class", "candidate", "stride")
    held = [name for name in (*where, *columns) if name in inspection.pairs]
    return Stage(title, sentence, Table({name: inspection.pairs[name] for name in held}))


def _losses(inspection: Inspection) -> Iterator[Stage]:
    items = inspection.terms["term"].tolist()
    if len(inspection.objects):
        yield Stage(
            "what each object pays",
            "Gain-weighted and scaled: these numbers and the background's sum to the total.",
            Table({name: inspection.objects[name] for name in ("object", "class", "positives", "loss", *items)}),
        )
    columns = ("term", "value", "gain", "loss", "objects", "background", "images")
    yield Stage(
        "the loss",
        f"loss = {inspection.scale:g} * gain * value for every term; the total, {inspection.total:.6f}, is training's.",
        Table({name: inspection.terms[name] for name in columns}),
    )


def _columns(names: Sequence[str], values: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[:, i] for i, name in enumerate(names)}


_Walk = Callable[[Outputs, Any, Inspection], Iterator[Stage]]
_WALKS: tuple[tuple[type, _Walk], ...] = (
    (AnchorRatio, _anchor_based),
    (TaskAligned, _task_aligned),
    (Hungarian, _set_prediction),
)
