# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What holds for every term on class scores, whoever its candidates are."""

import dataclasses

import pytest
import torch
from tests.losses.terms.score_cases import CASES, WEIGHTS, Case

from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.terms import (
    ExclusiveScores,
    FocalScores,
    HardScores,
    QualityFocalScores,
    QueryVarifocalScores,
    VarifocalScores,
)

NAMED = [pytest.param(case, id=name) for name, case in CASES.items()]


def cost(case: Case, logits: torch.Tensor, *, weights: tuple[float, ...] | None = None, mode: str = "both"):
    preds, targets, pairs = case.scene(torch.float64)
    term = case.term if weights is None else case.with_weights(weights, mode)
    return term(dataclasses.replace(preds, logits=logits), targets, pairs)


def small(case: Case) -> torch.Tensor:
    preds, _, _ = case.scene(torch.float64)
    return preds.logits.detach().clone().requires_grad_()


@pytest.mark.parametrize("mode", [None, "positive", "both"])
@pytest.mark.parametrize("case", NAMED)
def test_gradcheck(case, mode):
    def run(logits: torch.Tensor) -> torch.Tensor:
        return cost(case, logits, weights=None if mode is None else WEIGHTS, mode=mode)

    leaf = small(case)
    assert torch.autograd.gradcheck(run, leaf, fast_mode=leaf.numel() > 100)


@pytest.mark.parametrize("extreme", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("case", NAMED)
def test_extreme_logits_stay_finite(case, dtype, extreme):
    preds, targets, pairs = case.scene(dtype)
    logits = preds.logits.detach().clone()
    logits[..., 0] = extreme  # one class of all candidates, all classes of half of them, and one against the others
    logits[:, ::2] = extreme
    logits[pairs.image[1], pairs.anchor[1], 0] = -extreme
    leaf = logits.requires_grad_()

    got = case.term(dataclasses.replace(preds, logits=leaf), targets, pairs)
    got.sum().backward()

    assert got.isfinite().all()
    assert leaf.grad.isfinite().all()
    if got.ndim == 2:
        assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("mode", ["positive", "both"])
@pytest.mark.parametrize("case", NAMED)
def test_class_weights_of_one_change_nothing(case, mode):
    preds, targets, pairs = case.scene(torch.float64)

    weighted = case.with_weights((1.0, 1.0, 1.0), mode)(preds, targets, pairs)

    assert torch.allclose(weighted, case.term(preds, targets, pairs), rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", NAMED)
def test_weighing_both_halves_twice_costs_twice(case):
    preds, targets, pairs = case.scene(torch.float64)

    plain = case.term(preds, targets, pairs)
    twice = case.with_weights((2.0, 2.0, 2.0), "both")(preds, targets, pairs)

    if preds.exclusive and plain.ndim == 2:  # there background has no class: it keeps 1
        matched = torch.zeros_like(plain, dtype=torch.bool)
        matched[pairs.image[pairs.valid], pairs.anchor[pairs.valid]] = True
        assert torch.allclose(twice, torch.where(matched, 2 * plain, plain), rtol=1e-12, atol=0)
    else:
        assert torch.allclose(twice, 2 * plain, rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", NAMED)
def test_no_pairs_keep_the_graph(case):
    preds, targets, pairs = case.scene(torch.float64)
    names = ("image", "anchor", "target", "valid", "weight")
    none = dataclasses.replace(pairs, **{name: getattr(pairs, name)[:0] for name in names})
    leaf = small(case)

    got = case.term(dataclasses.replace(preds, logits=leaf), targets, none)
    got.sum().backward()

    if got.ndim == 1:
        assert got.shape == (0,)
        assert leaf.grad.eq(0).all()
    else:
        assert leaf.grad.gt(0).all()  # every entry is background


@pytest.mark.parametrize("case", NAMED)
def test_class_weights_of_another_number_are_refused(case):
    preds, targets, pairs = case.scene(torch.float64)

    named = f"{type(case.term).__name__}." if isinstance(case.term, HardScores | ExclusiveScores) else ""
    with pytest.raises(ShapeError, match=f"^{named}class_weights: expected 3 numbers, one for each class, got 2$"):
        case.with_weights((1.0, 2.0), "both")(preds, targets, pairs)


@pytest.mark.parametrize("kind", [FocalScores, QualityFocalScores, VarifocalScores, HardScores, QueryVarifocalScores])
def test_a_slope_without_bound_is_refused(kind):
    with pytest.raises(ConfigError, match=rf"{kind.__name__}\.gamma: expected at least 1 .* got 0.5"):
        kind(gamma=0.5)
