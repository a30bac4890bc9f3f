# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`inspect`: one batch through a criterion as in training, and every part of the loss by who pays it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.faults import Fault, faults_of
from boxwright.inspector.columns import (
    background_table,
    image_table,
    object_table,
    pair_table,
    share_table,
    term_table,
    whole_image_tables,
)
from boxwright.inspector.fates import candidate_table, fate_columns
from boxwright.inspector.leaves import Leaves, RowGradients, with_leaves
from boxwright.inspector.part import ProbedPrediction
from boxwright.inspector.shares import shares_of
from boxwright.losses.assign.trace import trace_of
from boxwright.losses.criterion import Criterion
from boxwright.losses.image_level import ImageCriterion
from boxwright.structures import (
    ImageOutputs,
    ImageTargets,
    LossBreakdown,
    Outputs,
    Targets,
)
from boxwright.table import Table

WORST = 100  # background candidates that are listed
SHOWN = 48  # best candidates of each object that are listed, beside its positives and those it lost


@dataclass(frozen=True, slots=True)
class Inspection:
    """A batch, taken apart. Losses are gain-weighted and scaled: they sum to `total`, what the trainer minimises.

    Rows name an image by its place in the batch and an object by its slot.
    """

    total: float
    scale: float  # total = scale * sum over items of gain * value
    terms: Table  # one row per item of the loss: what objects, background and whole images pay, and its gradient
    objects: Table  # one row per object: positives by level, loss by item, gradient
    pairs: Table  # one row per matched pair: where it is, how well it fits, loss by item, gradient
    candidates: Table  # the best candidates of each object with score, overlap, metric, rank and fate
    background: Table  # the costliest unmatched candidates and the label nearest to each
    images: Table  # one row per image
    names: tuple[str, ...]
    paths: tuple[str, ...]
    image_size: tuple[int, int]  # (H, W) px of the network input
    # One row per object and item of the loss: its share in raw, normalised and gain-weighted units.
    shares: Table = field(default_factory=lambda: Table({}))
    faults: tuple[Fault, ...] = ()  # terms with contributions that are not finite


def inspect(
    outputs: Outputs | ImageOutputs,
    targets: Targets | ImageTargets,
    criterion: Criterion | ImageCriterion,
    *,
    progress: float = 0.0,
    names: Sequence[str] = (),
    paths: Sequence[str] = (),
    worst: int = WORST,
    shown: int = SHOWN,
    gradients: bool = True,
) -> Inspection:
    """Runs the criterion as training does and says who pays what. Nothing given is changed.

    Args:
        outputs: raw outputs of any model, on any device; their graph is not used.
        targets: the labels of the batch.
        criterion: its memory (an adapting level balance) is read and stays as it is.
        progress: finished share of the training, 0 to 1.
        names: of the classes.
        paths: of the images.
        worst: unmatched candidates that are listed.
        shown: best candidates of each object that are listed; 0 leaves out why candidates were not chosen.
        gradients: also measure gradients: one backward pass for every item.

    Raises:
        ShapeError: outputs and targets do not belong together.
    """
    if isinstance(outputs, ImageOutputs) or isinstance(targets, ImageTargets) or isinstance(criterion, ImageCriterion):
        return _whole_images(outputs, targets, criterion, progress, names, paths)
    leaves = with_leaves(outputs)
    own = replace(criterion)
    own.load_state_dict(criterion.state_dict())
    with torch.enable_grad():
        breakdown = own(leaves.outputs, targets, progress)
        total = breakdown.total
    lengths, rows = _gradients_of(breakdown, leaves) if gradients else ({}, {})
    parts = _parts(leaves, breakdown, own, targets, rows)
    scale = float(breakdown.scale)
    files = tuple(str(path) for path in paths) or ("",) * len(targets.labels)
    labels = tuple(names)
    objects = object_table(parts, targets, scale, labels, files)
    candidates = Table({})
    if shown > 0:
        traces = [
            (part, trace_of(own.rules[part.preds.role].assigner, part.preds, targets, part.pairs)) for part in parts
        ]
        candidates = candidate_table(traces, targets, labels, files, shown)
        objects = objects.with_columns(fate_columns(traces, targets))
    return Inspection(
        total=float(total.detach()),
        scale=scale,
        terms=term_table(parts, breakdown, lengths),
        objects=objects,
        pairs=pair_table(parts, targets, scale, labels, files),
        candidates=candidates,
        background=background_table(parts, targets, scale, labels, files, worst),
        images=image_table(parts, targets, scale, files),
        names=labels,
        paths=files,
        image_size=outputs.final.image_size,
        shares=share_table(parts, targets, scale, labels),
        faults=faults_of(breakdown, targets, labels),
    )


def _parts(
    leaves: Leaves, breakdown: LossBreakdown, criterion: Criterion, targets: Targets, lengths: Mapping[str, Tensor]
) -> list[ProbedPrediction]:
    every = (*leaves.outputs.auxiliary, leaves.outputs.final)
    parts = []
    for preds in every:
        terms = criterion.rules[preds.role].terms
        pairs = breakdown.assignments[preds.label]
        shares = {
            item.name: shares_of(item, terms[item.name.rpartition("/")[2]].term, preds, targets, pairs)
            for item in breakdown.items
            if item.name.rpartition("/")[0] == preds.label
        }
        parts.append(ProbedPrediction(preds.label, preds, pairs, shares, lengths.get(preds.label)))
    return parts


def _gradients(value: Tensor, leaves: Sequence[Tensor]) -> dict[int, Tensor]:
    """Gradient at every leaf that the value depends on, by the leaf's id."""
    if not value.requires_grad:
        return {}
    found = torch.autograd.grad(value, list(leaves), retain_graph=True, allow_unused=True)
    return {id(leaf): gradient for leaf, gradient in zip(leaves, found, strict=True) if gradient is not None}


def _gradients_of(breakdown: LossBreakdown, leaves: Leaves) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Lengths of gradients with gain and scale, from one backward pass for every item.

    Returns:
        What each item alone sends into the raw outputs, by item; what all items together send to the candidate of each
        pair, by prediction.
    """
    every, lengths = leaves.all(), {}
    labels = [preds.label for preds in (*leaves.outputs.auxiliary, leaves.outputs.final)]
    rows = {
        label: RowGradients(own, breakdown.assignments[label]) for label, own in zip(labels, leaves.of, strict=True)
    }
    for item in breakdown.items:
        found = _gradients(item.contributions.sum() * item.gain * breakdown.scale, every)
        squares = [_length(gradient).square() for gradient in found.values()]
        lengths[item.name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
        for of in rows.values():
            of.add(found)
    return lengths, {label: of.lengths() for label, of in rows.items()}


def _length(gradient: Tensor) -> Tensor:
    """Of the whole tensor. One pass in its own precision, summed blockwise: 6 digits, for a table."""
    kind = torch.float64 if gradient.dtype == torch.float64 else torch.float32
    length: Tensor = torch.linalg.vector_norm(gradient, dtype=kind)
    return length.double()


def _whole_images(
    outputs: Any, targets: Any, criterion: Any, progress: float, names: Sequence[str], paths: Sequence[str]
) -> Inspection:
    kinds = {"outputs": (outputs, ImageOutputs), "targets": (targets, ImageTargets)}
    for what, (value, kind) in {**kinds, "criterion": (criterion, ImageCriterion)}.items():
        if not isinstance(value, kind):
            raise ShapeError(
                f"inspect: {what}: expected {kind.__name__}, as the others are about whole images, "
                f"got {type(value).__name__}"
            )
    logits = outputs.logits.detach().requires_grad_(True)
    with torch.enable_grad():
        breakdown = criterion(replace(outputs, logits=logits), targets, progress)
        total = breakdown.total
    gradient = _gradients(total, [logits]).get(id(logits), torch.zeros_like(logits))
    shown = tuple(str(path) for path in paths) or ("",) * len(logits)
    terms, images = whole_image_tables(breakdown, logits, targets, gradient, tuple(names), shown)
    empty = Table({})
    return Inspection(
        total=float(total.detach()),
        scale=float(breakdown.scale),
        terms=terms,
        objects=empty,
        pairs=empty,
        candidates=empty,
        background=empty,
        images=images,
        names=tuple(names),
        paths=shown,
        image_size=(0, 0),
        faults=faults_of(breakdown, targets, tuple(names)),
    )
