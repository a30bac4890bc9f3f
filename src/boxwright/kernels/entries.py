# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What every candidate's classes cost as background, and the logits of the few matched entries, in one operation.

A class term is the background cost of all entries plus a correction at P of them. The correction is ordinary autograd
on P numbers; the dense gradient is written once, in the memory order of the logits.
"""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from boxwright.kernels.rows import empty_in_memory_order
from boxwright.kernels.softplus import class_chunks, power, sum_of_softplus
from boxwright.ops.scores import SATURATED
from boxwright.structures import at_least_float32


class Background(NamedTuple):
    """What an entry costs whose target is 0.

    `softplus`: softplus(z). `modulated`: scale * p^gamma * softplus(z), where p = sigmoid(z). `exclusive`:
    log(1 + sum of e^z) of the whole candidate, whose classes exclude one another.
    """

    form: Literal["softplus", "modulated", "exclusive"] = "softplus"
    gamma: float = 0.0
    scale: float = 1.0
    constant_weight: bool = False  # p^gamma is a constant for differentiation

    def of(self, entries: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """The cost of single entries, with gradient; of exclusive classes an entry has none of its own."""
        values = functional.softplus(entries, threshold=SATURATED)
        if self.form == "softplus":
            return values
        probability = torch.sigmoid(entries.detach() if self.constant_weight else entries)
        return self.scale * probability**self.gamma * values


def background_and_entries(
    logits: Float[Tensor, "B A C"],
    image: Int64[Tensor, " P"],
    anchor: Int64[Tensor, " P"],
    label: Int64[Tensor, " P"],
    valid: Bool[Tensor, " P"],
    background: Background,
    weights: Float[Tensor, " C"] | None = None,
    *,
    guard: bool = False,
) -> tuple[Float[Tensor, "B A"], Float[Tensor, " P"]]:
    """Every candidate's background cost summed over its classes, and logits[image, anchor, label], 0 where not valid.

    Computed in at least float32.

    Args:
        logits: raw class scores.
        image: of each entry.
        anchor: of each entry.
        label: of each entry.
        valid: entries that are not may point anywhere: they get no value and no gradient.
        background: the cost.
        weights: factor of each class in the sum; not for exclusive classes, which have one cost together.
        guard: entries of a candidate whose gradient is 0 get 0 even if they are not finite (ignore regions).

    >>> zero = torch.zeros(1, dtype=torch.int64)
    >>> costs, entries = background_and_entries(torch.zeros(1, 1, 3), zero, zero, zero, zero == 0, Background())
    >>> round(costs.item(), 4), entries.item()  # 3 * ln 2
    (2.0794, 0.0)
    """
    assert weights is None or background.form != "exclusive"
    costs, entries = _Entries.apply(logits, image, anchor, label, valid, background, weights, guard)  # type: ignore[no-untyped-call]
    return costs, entries


class _Entries(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        image: Tensor,
        anchor: Tensor,
        label: Tensor,
        valid: Tensor,
        background: Background,
        weights: Tensor | None,
        guard: bool,
    ) -> tuple[Tensor, Tensor]:
        costs = [_cost(at_least_float32(logits[chunk]), background, weights) for chunk in class_chunks(logits)]
        joined = torch.cat(costs)
        entries = at_least_float32(logits[image, anchor, label])
        exclusive = joined if background.form == "exclusive" else None
        ctx.save_for_backward(logits, image, anchor, label, valid, weights, exclusive)
        ctx.background, ctx.guard = background, guard
        return joined, torch.where(valid, entries, torch.zeros_like(entries))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_cost: Tensor, by_entry: Tensor) -> tuple[Tensor | None, ...]:
        logits, image, anchor, label, valid, weights, exclusive = ctx.saved_tensors
        out = empty_in_memory_order(logits)
        for chunk in class_chunks(logits):
            total = None if exclusive is None else exclusive[chunk]
            slope = _slope(at_least_float32(logits[chunk]), ctx.background, weights, total)
            slope.mul_(by_cost[chunk, :, None])
            out[chunk] = slope.masked_fill_(by_cost[chunk, :, None] == 0, 0.0) if ctx.guard else slope
        rows = torch.where(valid, by_entry, torch.zeros_like(by_entry)).to(out.dtype)
        return out.index_put_((image, anchor, label), rows, accumulate=True), *[None] * 7


def _cost(z: Tensor, background: Background, weights: Tensor | None) -> Tensor:
    """Background cost of each candidate; `z` is not written to."""
    if background.form == "exclusive":
        # The background's own logit is 0; subtracting the largest keeps every exponent at most 0.
        peak = z.amax(dim=-1, keepdim=True).clamp_(min=0)
        return (z - peak).exp_().sum(dim=-1).add_((-peak[..., 0]).exp_()).log_().add_(peak[..., 0])
    if background.form == "softplus" and weights is None:
        return sum_of_softplus(z)
    values = functional.softplus(z, threshold=SATURATED)
    if background.form == "modulated":
        values = values.mul_(power(torch.sigmoid(z), background.gamma)).mul_(background.scale)
    return values.sum(dim=-1) if weights is None else values @ weights.to(values.dtype)


def _slope(z: Tensor, background: Background, weights: Tensor | None, exclusive: Tensor | None) -> Tensor:
    """Derivative of `_cost` by each entry, in new memory."""
    if exclusive is not None:
        return (z - exclusive[..., None]).exp_()
    probability = torch.sigmoid(z)
    slope = probability
    if background.form == "modulated":
        if background.constant_weight:
            slope = power(probability, background.gamma) * probability
        else:
            # d/dz p^g softplus(z) = p^g (p + g (1 - p) softplus(z)); where 1 - p loses digits it is nothing beside p.
            inner = functional.softplus(z, threshold=SATURATED).mul_(1 - probability).mul_(background.gamma)
            slope = inner.add_(probability).mul_(power(probability, background.gamma))
        slope = slope.mul_(background.scale)
    return slope if weights is None else slope.mul_(weights.to(slope.dtype))
