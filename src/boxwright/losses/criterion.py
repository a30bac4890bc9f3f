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
from boxwright.losses.factors import with_factors
from boxwright.losses.terms import Term
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
class Linear:
    """A factor that moves evenly from `start` at the first epoch to `end` at the last."""

    kind: Literal["linear"] = "linear"
    start: float
    end: float

    def at(self, progress: float) -> float:
        """The factor when a share `progress` (0 to 1) of the training is done; progress beyond 1 stays at the end."""
        return max(1.0 - progress, 0.0) * (self.start - self.end) + self.end


Schedule = float | Linear


def value_at(schedule: Schedule, progress: float) -> float:
    """A constant as it is, a schedule at this progress."""
    return schedule.at(progress) if isinstance(schedule, Linear) else float(schedule)


@component
class Weighted:
    """A term and the factor its value enters the loss with."""

    term: AnyTerm
    gain: Schedule = 1.0


@component
class Rule:
    """How predictions of one role are supervised: who learns from whom, and what it costs."""

    assigner: AnyAssigner
    terms: dict[str, Weighted]
    scale: Schedule = 1.0  # of the whole rule, for branches that fade in or out


@component
class Criterion:
    """Rules by role. Calling it gives the loss in parts; it holds no tensor and no state."""

    rules: dict[str, Rule]
    batch_scale: bool = True  # total = images in the batch * sum of the items, as the YOLO recipes assume

    def prepare(self, targets: Targets, grid: Grid | None) -> Targets:
        """The targets with everything laid out on the host that labels and grid decide, so that the step needs no sync.

        Call it after collate and any change of image size, before the move to the device. What is already laid out
        stays as it is.

        Raises:
            ShapeError: a valid slot has a negative label or a box that is not finite.
        """
        for rule in self.rules.values():
            lay_out = getattr(rule.assigner, "prepare", None)
            if lay_out is not None and grid is not None:
                targets = lay_out(targets, grid)
        return targets

    def __call__(self, outputs: Outputs, targets: Targets, progress: float = 0.0) -> LossBreakdown:
        """The loss of a step. Targets that were not prepared for this grid's shapes cost one host sync.

        Args:
            outputs: what the model returned; half precision is computed in float32, float64 stays float64.
            targets: the labels, on the device of the outputs.
            progress: finished share of the training, 0 to 1; gains and rules that fade in or out read it.

        Raises:
            ConfigError: a role has no rule.
            ShapeError: targets and predictions do not belong together (batch, grid or classes).
        """
        targets = self.prepare(targets, outputs.final.grid)
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
                scale = value_at(rule.scale, progress)
                for name, weighted in rule.terms.items():
                    contributions = weighted.term(shared, targets, pairs)
                    contributions = with_factors(contributions, weighted.term, shared, targets, pairs)
                    gain = scale * value_at(weighted.gain, progress)
                    items.append(LossItem(f"{preds.label}/{name}", contributions, gain))
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
        count = torch.full((), float(images), dtype=torch.float32, device=preds.logits.device)
        return ranks * sum_over_ranks(count)


def _check(preds: Predictions, targets: Targets) -> None:
    batch = preds.logits.shape[0]
    if targets.labels.shape[0] != batch:
        raise ShapeError(f"Targets: expected {batch} images as in the predictions, got {targets.labels.shape[0]}")
