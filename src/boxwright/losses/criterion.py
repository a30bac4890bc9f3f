# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The criterion: for every prediction its role's rule; one assigner, then terms that share its pairs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Discriminator, Tag
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.assign import Assigner
from boxwright.losses.terms import Term
from boxwright.ops.candidates import lay_out_candidates
from boxwright.ops.collective import sum_over_ranks, world_size
from boxwright.ops.rows import take_rows
from boxwright.structures import Assignment, Grid, LossBreakdown, LossItem, MatchedRows, Outputs, Predictions, Targets


def _origin(value: Any) -> Literal["built_in", "custom"]:
    return "custom" if callable(value) and not hasattr(value, "kind") else "built_in"


# YAML can only name built-ins; in Python any callable of the same signature does.
AnyTerm = Annotated[
    Annotated[Term, Tag("built_in")] | Annotated[Callable[[Predictions, Targets, Assignment], Tensor], Tag("custom")],
    Discriminator(_origin),
]
AnyAssigner = Annotated[
    Annotated[Assigner, Tag("built_in")] | Annotated[Callable[[Predictions, Targets], Assignment], Tag("custom")],
    Discriminator(_origin),
]


@component
class Weighted:
    """A term and the factor its value enters the loss with."""

    term: AnyTerm
    gain: float = 1.0


@component
class Rule:
    """How predictions of one role are supervised: who learns from whom, and what it costs."""

    assigner: AnyAssigner
    terms: dict[str, Weighted]


@component
class Criterion:
    """Rules by role. Calling it gives the loss in parts; it holds no tensor and no state."""

    rules: dict[str, Rule]
    batch_scale: bool = True  # total = images in the batch * sum of the items, as the YOLO recipes assume

    def prepare(self, targets: Targets, grid: Grid) -> Targets:
        """The targets with their candidate pairs laid out on the host, so that the step needs no sync.

        Call it after collate and any change of image size, before the move to the device.

        Raises:
            ShapeError: a valid slot has a negative label or a box that is not finite.
        """
        return _with_candidates(targets, grid)

    def __call__(self, outputs: Outputs, targets: Targets, progress: float = 0.0) -> LossBreakdown:
        """The loss of a step. Targets that were not prepared for this grid's shapes cost one host sync.

        Args:
            outputs: what the model returned; half precision is computed in float32, float64 stays float64.
            targets: the labels, on the device of the outputs.
            progress: finished share of the training, 0 to 1; rules that fade in or out read it.

        Raises:
            ConfigError: a role has no rule.
            ShapeError: targets and predictions do not belong together (batch, grid or classes).
        """
        targets = _with_candidates(targets, outputs.final.grid) if targets.candidates is None else targets
        items: list[LossItem] = []
        assignments: dict[str, Assignment] = {}
        with torch.autocast(outputs.final.logits.device.type, enabled=False):
            for preds in (*outputs.auxiliary, outputs.final):
                _check(preds, targets)
                rule = self._rule(preds.role)
                pairs = rule.assigner(preds, targets)
                assignments[preds.label] = pairs
                rows = take_rows(preds.box_raw, pairs.image, pairs.anchor, pairs.valid)
                shared = replace(preds, matched=MatchedRows(pairs, rows))
                for name, weighted in rule.terms.items():
                    contributions = weighted.term(shared, targets, pairs)
                    items.append(LossItem(f"{preds.label}/{name}", contributions, weighted.gain))
        return LossBreakdown(tuple(items), assignments, self._scale(outputs.final))

    def _rule(self, role: str) -> Rule:
        if role not in self.rules:
            raise ConfigError(
                f"criterion.rules: no rule for predictions of role '{role}'; rules: {', '.join(self.rules)}"
            )
        return self.rules[role]

    def _scale(self, preds: Predictions) -> float | Tensor:
        ranks = world_size()
        if not self.batch_scale:
            return float(ranks)
        images = preds.logits.shape[0]
        if ranks == 1:
            return float(images)
        # A tensor: reading the sum of the ranks' images on the host would be a sync.
        return ranks * sum_over_ranks(preds.grid.strides.new_tensor(float(images)))


def _with_candidates(targets: Targets, grid: Grid) -> Targets:
    return replace(targets, candidates=lay_out_candidates(targets, grid).to(targets.boxes.device))


def _check(preds: Predictions, targets: Targets) -> None:
    candidates = targets.candidates
    assert candidates is not None
    batch, _, classes = preds.logits.shape
    if targets.labels.shape[0] != batch:
        raise ShapeError(f"Targets: expected {batch} images as in the predictions, got {targets.labels.shape[0]}")
    grid = preds.grid
    if (candidates.shapes, candidates.level_strides) != (grid.shapes, grid.level_strides):
        raise ShapeError(
            f"Targets.candidates: expected a layout for levels {grid.shapes} with strides {grid.level_strides} as in "
            f"the predictions, got {candidates.shapes} with {candidates.level_strides}; "
            "call `Criterion.prepare` with the predictions' grid"
        )
    if (len(candidates.cells), candidates.slots) != tuple(targets.labels.shape):
        raise ShapeError(
            f"Targets.candidates: expected a layout for (B, M) = {tuple(targets.labels.shape)}, got "
            f"{(len(candidates.cells), candidates.slots)}; call `Criterion.prepare` again after changing the targets"
        )
    if candidates.labels_below > classes:
        raise ShapeError(
            f"Targets.labels: expected class indices below {classes}, the number of classes the predictions have, "
            f"got {candidates.labels_below - 1}"
        )
