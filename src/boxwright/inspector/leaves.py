# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Outputs whose raw tensors are leaves, so that the gradient that reaches every candidate can be read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.structures import Assignment, Outputs, Predictions

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
    changed: dict[str, Any] = {}
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


class RowGradients:
    """Gradient at chosen candidates, summed over the items of a loss: a few thousand rows instead of the dense maps."""

    def __init__(self, leaves: tuple[Tensor, ...], pairs: Assignment) -> None:
        self._leaves = leaves
        self._rows = pairs.valid.nonzero()[:, 0]
        self._place = pairs.image[self._rows], pairs.anchor[self._rows]
        self._count = len(pairs.valid)
        self._sums: dict[int, Tensor] = {}

    def add(self, gradients: Mapping[int, Tensor]) -> None:
        """Adds gradients by the id of their leaf."""
        for leaf in self._leaves:
            if id(leaf) in gradients:
                rows = gradients[id(leaf)][self._place].double()
                self._sums[id(leaf)] = rows if id(leaf) not in self._sums else self._sums[id(leaf)] + rows

    def lengths(self) -> Float[Tensor, " P"]:
        """Length at the candidate of every pair over all its raw numbers, float64; 0 where the pair is not valid."""
        squares = torch.zeros(len(self._rows), dtype=torch.float64, device=self._rows.device)
        for rows in self._sums.values():
            squares = squares + rows.reshape(len(rows), math.prod(rows.shape[1:])).square().sum(dim=1)
        found = squares.new_zeros(self._count)
        found[self._rows] = squares.sqrt()
        return found
