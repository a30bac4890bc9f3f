# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import math

import pytest
import torch

from boxwright.kernels import chunks
from boxwright.kernels.softplus import sparse_bce

IMAGE, ANCHOR, LABEL = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 0, 3, 1]), torch.tensor([2, 0, 4, 1])
SOFT = torch.tensor([0.7, 0.25, 1.0, 0.0], dtype=torch.float64)  # the last entry is an unused slot on a used anchor


def logits(classes: int = 5, dtype: torch.dtype = torch.float64, scale: float = 3.0) -> torch.Tensor:
    source = torch.Generator().manual_seed(classes)
    return (torch.randn(2, 4, classes, generator=source, dtype=torch.float64) * scale).to(dtype)


def plain(z: torch.Tensor) -> torch.Tensor:
    """The same with a dense target, by torch's own BCE."""
    target = torch.zeros_like(z)
    target[IMAGE[:3], ANCHOR[:3], LABEL[:3]] = SOFT[:3].to(z.dtype)
    return torch.nn.functional.binary_cross_entropy_with_logits(z, target, reduction="none").sum(dim=-1)


@pytest.mark.parametrize("classes", [5, 6, 33, 81])
@pytest.mark.parametrize("by_channel", [False, True])
def test_sparse_bce_equals_the_dense_one(classes, by_channel):
    z = logits(classes)
    leaf = (z.transpose(1, 2).contiguous() if by_channel else z.clone()).requires_grad_()
    dense = z.clone().requires_grad_()

    values = sparse_bce(leaf.transpose(1, 2) if by_channel else leaf, IMAGE, ANCHOR, LABEL, SOFT)
    slope = torch.rand(2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (values * slope).sum().backward()
    (plain(dense) * slope).sum().backward()

    assert torch.allclose(values, plain(z), rtol=1e-12, atol=1e-14)
    gradient = leaf.grad.transpose(1, 2) if by_channel else leaf.grad
    assert torch.allclose(gradient, dense.grad, rtol=1e-12, atol=1e-15)


def test_sparse_bce_gradcheck():
    z = logits().requires_grad_()

    assert torch.autograd.gradcheck(lambda z: sparse_bce(z, IMAGE, ANCHOR, LABEL, SOFT), z)


@pytest.mark.parametrize("offset", [-12.0, 0.0, 12.0])
@pytest.mark.parametrize("classes", [1, 2, 3, 16, 31, 80, 81, 82, 255])
def test_few_logarithms_lose_no_precision(classes, offset):
    # Small exponentials are where a product of (1 + e) would lose digits, equal logits are where errors would add up.
    for z in (logits(classes, torch.float32) + offset, torch.full((2, 4, classes), offset)):
        none = torch.zeros(0, dtype=torch.int64)

        values = sparse_bce(z, none, none, none, torch.zeros(0))

        exact = torch.nn.functional.softplus(z.double(), threshold=100.0).sum(dim=-1)
        assert torch.allclose(values.double(), exact, rtol=4e-6, atol=0)


def test_zeros_in_every_class_do_not_overflow_and_have_slope_one_half():
    z = torch.zeros(1, 1, 1000, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)

    value = sparse_bce(z, none, none, none, torch.zeros(0))
    value.sum().backward()

    assert value.item() == pytest.approx(1000 * math.log(2), rel=1e-6)
    assert z.grad.unique().tolist() == [0.5]


@pytest.mark.parametrize("extreme", [torch.inf, -torch.inf, 3e38, -3e38])
def test_one_extreme_logit_leaves_the_other_gradients_alone(extreme):
    z = logits()
    z[0, 1, 1] = extreme  # unmatched, but an unused slot points at it
    z.requires_grad_()
    calm = logits().requires_grad_()

    sparse_bce(z, IMAGE, ANCHOR, LABEL, SOFT).sum().backward()
    sparse_bce(calm, IMAGE, ANCHOR, LABEL, SOFT).sum().backward()

    assert z.grad[0, 1, 1].item() == (1.0 if extreme > 0 else 0.0)
    others = torch.ones_like(z, dtype=torch.bool)
    others[0, 1, 1] = False
    assert torch.equal(z.grad[others], calm.grad[others])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    half = logits(dtype=dtype).requires_grad_()
    full = half.detach().float().requires_grad_()

    values = sparse_bce(half, IMAGE, ANCHOR, LABEL, SOFT.float())
    values.sum().backward()
    sparse_bce(full, IMAGE, ANCHOR, LABEL, SOFT.float()).sum().backward()

    assert values.dtype == torch.float32
    assert torch.allclose(values, plain(full.detach()), rtol=1e-5)
    assert half.grad.dtype == dtype
    # One rounding of the dense part, one of the correction at a matched entry.
    assert torch.allclose(half.grad.float(), full.grad, rtol=0, atol=2 * torch.finfo(dtype).eps)


def test_backward_twice_gives_the_same_gradient():
    z = logits().requires_grad_()
    value = sparse_bce(z, IMAGE, ANCHOR, LABEL, SOFT).sum()

    first, second = (torch.autograd.grad(value, z, retain_graph=True)[0] for _ in range(2))

    assert torch.equal(first, second)


def test_cutting_into_pieces_changes_nothing(monkeypatch):
    z = logits()
    whole = sparse_bce(z, IMAGE, ANCHOR, LABEL, SOFT)

    monkeypatch.setattr(chunks, "CACHE_ELEMENTS", 1)

    assert torch.equal(sparse_bce(z, IMAGE, ANCHOR, LABEL, SOFT), whole)
