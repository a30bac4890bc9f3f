# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest
import torch
from tests.losses.scenes import generator

from boxwright.kernels.anchor_ciou import SMALLEST, anchor_ciou
from boxwright.ops.decode import Anchor
from boxwright.ops.overlap import paired_overlap


def boxes(count: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Raw outputs, priors and wanted boxes, in rows; some pairs are equal, some apart, some share an edge."""
    source = generator(0)
    raw = torch.randn(count, 4, generator=source, dtype=dtype) * 2
    priors = torch.rand(count, 2, generator=source, dtype=dtype) * 5 + 0.1
    centre = torch.rand(count, 2, generator=source, dtype=dtype) * 2 - 0.5
    wanted = torch.cat((centre, torch.rand(count, 2, generator=source, dtype=dtype) * 6 + 0.05), dim=1)
    found = Anchor().in_cells(raw, priors)
    tenth = count // 10
    wanted[:tenth] = found[:tenth]
    wanted[tenth : 2 * tenth, 0] = found[tenth : 2 * tenth, 0] + 50
    wanted[2 * tenth : 3 * tenth, 1] = found[2 * tenth : 3 * tenth, 1]
    wanted[2 * tenth : 3 * tenth, 3] = found[2 * tenth : 3 * tenth, 3]
    return raw, priors, wanted


def plain(raw: torch.Tensor, priors: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    found = Anchor().in_cells(raw, priors)
    found = torch.cat((found[:, :2], found[:, 2:].clamp(min=SMALLEST)), dim=-1)
    return paired_overlap(found, wanted, "ciou", box_format="cxcywh")


def run(raw: torch.Tensor, priors: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return anchor_ciou(raw, priors.t().contiguous(), wanted.t().contiguous())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-5)])
def test_value_and_slope_are_those_of_the_plain_formula(dtype, tolerance):
    raw, priors, wanted = boxes(400, dtype)
    weights = torch.randn(400, generator=generator(1), dtype=dtype)
    fused, by_parts = (raw.clone().requires_grad_() for _ in range(2))

    got, expected = run(fused, priors, wanted), plain(by_parts, priors, wanted)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()

    assert got.dtype == dtype
    assert torch.allclose(got, expected, rtol=0, atol=tolerance)
    assert torch.allclose(fused.grad, by_parts.grad, rtol=0, atol=tolerance)


def test_gradcheck_where_the_aspect_weight_is_constant():
    # Equal aspect ratios: the weight of the aspect term is 0, and so is its slope.
    raw, priors, wanted = (rows[200:240] for rows in boxes(400))
    wanted[:, 2:] = Anchor().in_cells(raw, priors)[:, 2:] * 1.3

    assert torch.autograd.gradcheck(lambda z: run(z, priors, wanted), raw.clone().requires_grad_())


@pytest.mark.parametrize("value", [1e4, -1e4])
def test_extreme_raw_values_stay_finite(value):
    raw, priors, wanted = boxes(40, torch.float32)
    raw = torch.full_like(raw, value).requires_grad_()

    got = run(raw, priors, wanted)
    got.sum().backward()

    assert got.isfinite().all()
    assert raw.grad.isfinite().all()


def test_no_pairs_keep_the_graph():
    raw = torch.zeros(0, 4, requires_grad=True)

    run(raw, torch.zeros(0, 2), torch.zeros(0, 4)).sum().backward()

    assert raw.grad.shape == (0, 4)


def test_not_a_number_reaches_the_loss():
    raw, priors, wanted = boxes(10)
    raw[3, 2] = torch.nan

    assert run(raw, priors, wanted).isnan().tolist() == [row == 3 for row in range(10)]
