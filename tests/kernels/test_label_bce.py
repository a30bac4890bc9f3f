# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest
import torch
from tests.losses.scenes import generator
from torch.nn import functional

from boxwright.kernels import label_bce as module
from boxwright.kernels.label_bce import label_bce


def rows(pairs: int = 30, classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    source = generator(0)
    logits = torch.randn(pairs, classes, generator=source, dtype=torch.float64) * 3
    return logits, torch.randint(classes, (pairs,), generator=source)


def plain(logits: torch.Tensor, label: torch.Tensor, smoothing: float) -> torch.Tensor:
    wanted = functional.one_hot(label, logits.shape[1]).to(logits.dtype) * (1 - smoothing) + smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("entries", [1, 50, 1 << 17])
def test_equals_the_dense_formula_in_pieces_of_any_size(smoothing, entries, monkeypatch):
    monkeypatch.setattr(module, "CACHE_ENTRIES", entries)
    logits, label = rows()
    weights = torch.randn(30, generator=generator(1), dtype=torch.float64)
    fused, dense = (logits.clone().requires_grad_() for _ in range(2))

    got, expected = label_bce(fused, label, smoothing), plain(dense, label, smoothing)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()

    assert torch.allclose(got, expected, rtol=1e-12)
    assert torch.allclose(fused.grad, dense.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradcheck(smoothing):
    logits, label = rows(5)

    assert torch.autograd.gradcheck(lambda z: label_bce(z, label, smoothing), logits.requires_grad_())


def test_no_pairs_keep_the_graph():
    logits = torch.zeros(0, 7, requires_grad=True)

    got = label_bce(logits, torch.zeros(0, dtype=torch.int64))
    got.sum().backward()

    assert got.shape == (0,)
    assert logits.grad.shape == (0, 7)


def test_an_extreme_logit_costs_itself_alone():
    logits = torch.tensor([[1e4, 0.0], [0.0, -1e4]], requires_grad=True)

    got = label_bce(logits, torch.tensor([1, 1]))
    got.sum().backward()

    assert got.tolist() == pytest.approx([1e4 + 0.693147, 0.693147 + 1e4])
    assert logits.grad.tolist() == [[1.0, -0.5], [0.5, -1.0]]
