# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The criterion: for every prediction its role's rule; one assigner, then terms that share its pairs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Discriminator, Tag
from torch import Tensor

from boxwright.config import component
from boxwright.errors import ConfigError, ShapeError
from boxwright.kernels import by_definition, fast, kernel_of
from boxwright.losses.assign import Assigner
from boxwright.losses.balance import ClassWeights, NoClassWeights
from boxwright.losses.factors import with_factors
from boxwright.losses.memory import Memory, Step
from boxwright.losses.schedule import Linear as Linear
from boxwright.losses.schedule import Schedule, value_at
from boxwright.losses.shared import SharedPredictions
from boxwright.losses.terms import BuiltInTerm
from boxwright.losses.terms.base import takes_class_weights, with_class_weights
from boxwright.ops.collective import sum_over_ranks, world_size
from boxwright.structures import Assignment, Grid, LossBreakdown, LossItem, Outputs, Predictions, Targets


def _origin(value: Any) -> Literal["built_in", "custom"]:
    return "custom" if callable(value) and not hasattr(value, "kind") else "built_in"


# YAML can only name built-ins; in Python any callable of the same signature does.
AnyTerm = Annotated[
    Annotated[BuiltInTerm, Tag("built_in")]
    | Annotated[Callable[[Predictions, Targets, Assignment], Tensor], Tag("custom")],
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
    gain: Schedule = 1.0

    def __post_init__(self) -> None:
        kernel_of(self.term)


@component
class Rule:
    """How predictions of one role are supervised: who learns from whom, and what it costs."""

    assigner: AnyAssigner
    terms: dict[str, Weighted]
    scale: Schedule = 1.0  # of the whole rule, for branches that fade in or out

    def __post_init__(self) -> None:
        for step in (None, "prepare", "assign_many"):
            kernel_of(self.assigner, step)

    def gains(self, progress: float) -> dict[str, float]:
        """Gain of each term times the rule's scale, at a share `progress` (0 to 1) of the training."""
        scale = value_at(self.scale, progress)
        return {name: scale * value_at(weighted.gain, progress) for name, weighted in self.terms.items()}


@component
class Criterion:
    """Rules by role. Calling it gives the loss in parts.

    It remembers nothing from step to step but the level balance of an `Objectness` that adapts it: see `state_dict`.
    """

    kind: Literal["objects"] = "objects"
    rules: dict[str, Rule]
    batch_scale: bool = True  # total = images in the batch * sum of the items, as the YOLO recipes assume
    class_weights: ClassWeights = NoClassWeights()  # a training turns them into numbers, by `with_class_counts`
    memory: Memory = field(default_factory=Memory, init=False, repr=False, compare=False)

    def with_class_counts(self, counts: Sequence[int]) -> "Criterion":
        """A copy whose class terms hold the numbers that `class_weights` gives for these counts of labels.

        Terms that name their own numbers keep them, so doing it again changes nothing.

        Raises:
            ConfigError: no class has a label, or no term takes class weights.
        """
        vector = self.class_weights.of(counts)
        if vector is None or isinstance(self.class_weights, NoClassWeights):
            return self
        terms = [weighted.term for rule in self.rules.values() for weighted in rule.terms.values()]
        if not any(map(takes_class_weights, terms)):
            raise ConfigError(
                "criterion.class_weights: no term of the criterion takes class weights; leave it at 'none'"
            )
        mode = self.class_weights.mode

        def weighing(weighted: Weighted) -> Weighted:
            return replace(weighted, term=with_class_weights(weighted.term, vector, mode))

        rules = {
            role: replace(rule, terms={name: weighing(weighted) for name, weighted in rule.terms.items()})
            for role, rule in self.rules.items()
        }
        return replace(self, rules=rules)

    def state_dict(self) -> dict[str, list[float]]:
        """What resume needs beside the settings: plain numbers, empty for most criteria. Syncs with the device."""
        return self.memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` gave.

        Raises:
            ConfigError: the state is not one of a criterion.
        """
        self.memory.load_state_dict(state)

    def prepare(self, targets: Targets, grid: Grid | None) -> Targets:
        """The targets with everything laid out on the host that labels and grid decide, so that the step needs no sync.

        Call it after collate and any change of image size, before the move to the device. What is already laid out
        stays as it is.

        Raises:
            ShapeError: a valid slot has a negative label or a box that is not finite.
        """
        for rule in self.rules.values():
            lay_out = fast(rule.assigner, "prepare")
            if lay_out is not None and (grid is not None or not getattr(rule.assigner, "needs_grid", True)):
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
        step = Step(self.memory, outputs)
        with torch.autocast(outputs.final.logits.device.type, enabled=False):
            every = (*outputs.auxiliary, outputs.final)
            for preds, pairs in zip(every, self._assign(every, targets), strict=True):
                rule, label = self._rule(preds.role), preds.label
                assignments[label], gains = pairs, rule.gains(progress)
                shared = preds if by_definition() else SharedPredictions.of(preds, pairs)
                for name, weighted in rule.terms.items():
                    contributions = fast(weighted.term)(shared, targets, pairs)
                    contributions = with_factors(contributions, weighted.term, shared, targets, pairs)
                    contributions = step.weigh(name, weighted.term, shared, contributions)
                    items.append(LossItem(f"{label}/{name}", contributions, gains[name]))
            step.finish()
        return LossBreakdown(tuple(items), assignments, self._scale(outputs.final))

    def _assign(self, every: Sequence[Predictions], targets: Targets) -> list[Assignment]:
        """The pairs of each of the predictions; a step `assign_many` gets those of all its rules, at one host sync."""
        found: dict[int, Assignment] = {}
        for index, preds in enumerate(every):
            _check(preds, targets)
            assigner: Any = self._rule(preds.role).assigner
            if index in found:
                continue
            assign_many = fast(assigner, "assign_many")
            if assign_many is None:
                found[index] = fast(assigner)(preds, targets)
                continue
            together = [i for i in range(index, len(every)) if self._rule(every[i].role).assigner == assigner]
            found.update(zip(together, assign_many([every[i] for i in together], targets), strict=True))
        return [found[index] for index in range(len(every))]

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
