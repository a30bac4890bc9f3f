# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Outputs whose raw tensors are leaves, so that the gradient that reaches every candidate can be read."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from boxwright.structures import Outputs, Predictions

CANDIDATE_FIELDS = ("logits", "box_raw", "objectness", "mask_coefs", "keypoints_raw", "keypoint_scale", "angle")


@dataclass(frozen=True, slots=True)
class Leaves:
    """Predictions that share no memory with a graph, and those of their tensors that have a row for every candidate."""

    outputs: Outputs
    of: tuple[tuple[Tensor, ...], ...]  # by prediction, auxiliary ones first; each (B, A, ...)

    def all(self) -> list[Tensor]:
        """Every tensor once."""
        return list({id(leaf): leaf for leaves in self.of for leaf in leaves}.values())


def with_leaves(outputs: Outputs) -> Leaves:
    """A copy of the outputs, detached from their graph, in which every raw tensor asks for its gradient."""
    made = [_leaf_predictions(preds) for preds in (*outputs.auxiliary, outputs.final)]
    copies = [copy for copy, _ in made]
    return Leaves(Outputs(final=copies[-1], auxiliary=tuple(copies[:-1])), tuple(leaves for _, leaves in made))


def _leaf_predictions(preds: Predictions) -> tuple[Predictions, tuple[Tensor, ...]]:
    changed: dict[str, Any] = {"matched": None}
    leaves: list[Tensor] = []
    if preds.table is not None:
        table = _leaf(preds.table)
        leaves.append(table)
        changed |= {"table": table, **_columns(preds, table)}
    for name in CANDIDATE_FIELDS:
        value = getattr(preds, name)
        if value is not None and name not in changed:
            changed[name] = _leaf(value)
            leaves.append(changed[name])
    if preds.attribute_logits is not None:
        changed["attribute_logits"] = {name: _leaf(part) for name, part in preds.attribute_logits.items()}
        leaves += changed["attribute_logits"].values()
    for name in ("prototypes", "semantic_logits"):
        if getattr(preds, name) is not None:
            changed[name] = getattr(preds, name).detach()
    return replace(preds, **changed), tuple(leaves)


def _columns(preds: Predictions, table: Tensor) -> dict[str, Tensor]:
    """The fields that are views of a table's columns, as views of another."""
    found, first = {}, 0
    for name in ("box_raw", "objectness", "logits", "mask_coefs"):
        value = getattr(preds, name)
        if value is None:
            continue
        width = 1 if name == "objectness" else value.shape[-1]
        part = table[..., first : first + width]
        found[name] = part[..., 0] if name == "objectness" else part
        first += width
    return found


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(True) if tensor.is_floating_point() else tensor


def row_norms(gradients: tuple[Tensor | None, ...]) -> Tensor | None:
    """(B, A) length of the gradient of every candidate over all its raw numbers, float64; None without gradients."""
    squares = None
    for gradient in gradients:
        if gradient is None:
            continue
        flat = gradient.double().flatten(2) if gradient.ndim > 2 else gradient.double()[..., None]
        part = flat.square().sum(dim=-1)
        squares = part if squares is None else squares + part
    return None if squares is None else torch.sqrt(squares)
