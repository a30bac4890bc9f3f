# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.kernels import rows as module
from boxwright.kernels.rows import empty_in_memory_order, readable, take_rows

IMAGE, ANCHOR = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([2, 0, 0, 2, 3])
VALID = torch.tensor([True, True, True, False, True])  # rows 1 and 2 repeat a cell, row 3 is an unused slot


def dense(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("by_channel", [False, True])
def test_rows_and_gradient(by_channel):
    leaf = (dense().transpose(1, 2).contiguous() if by_channel else dense()).requires_grad_()
    view = leaf.transpose(1, 2) if by_channel else leaf

    rows = take_rows(view, IMAGE, ANCHOR, VALID)

    assert torch.equal(rows[0], view[0, 2])
    assert rows[3].tolist() == [0, 0, 0]
    assert torch.autograd.gradcheck(
        lambda x: take_rows(x.transpose(1, 2) if by_channel else x, IMAGE, ANCHOR, VALID), leaf
    )


def test_an_infinite_value_under_an_unused_slot_stays_out_of_the_gradient():
    leaf = dense()
    leaf[0, 2] = torch.inf
    leaf.requires_grad_()

    take_rows(leaf, IMAGE[1:], ANCHOR[1:], VALID[1:]).square().sum().backward()

    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32_and_gets_its_gradient_back(dtype):
    leaf = dense(dtype).requires_grad_()

    rows = take_rows(leaf, IMAGE, ANCHOR, VALID)
    rows.sum().backward()

    assert rows.dtype == torch.float32
    assert leaf.grad.dtype == dtype
    assert leaf.grad[1, 0].tolist() == [2, 2, 2]


def test_gradients_take_the_memory_order_of_the_head():
    maps = torch.zeros(2, 3, 4)

    assert empty_in_memory_order(maps.transpose(1, 2)).transpose(1, 2).is_contiguous()
    assert empty_in_memory_order(torch.zeros(2, 4, 3)).is_contiguous()
    # A slice of a larger map is not dense; its gradient is.
    assert empty_in_memory_order(maps[:, :2].transpose(1, 2)).transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("pairs", [0, 5])
def test_plane_by_plane_is_what_indexing_gives(pairs, dtype, monkeypatch):
    leaf = dense(dtype).transpose(1, 2).contiguous().requires_grad_()

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        rows = take_rows(leaf.transpose(1, 2), IMAGE[:pairs], ANCHOR[:pairs], VALID[:pairs])
        weights = torch.arange(rows.numel(), dtype=rows.dtype).view(rows.shape)
        return rows, torch.autograd.grad(rows, leaf, weights)[0]

    by_plane = both()
    monkeypatch.setattr(module, "_in_planes", lambda _: False)
    by_index = both()

    assert by_plane[0].stride(0) == 1 or pairs == 0
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(by_plane, by_index, strict=True))


def test_a_slice_of_a_larger_map_is_read_in_its_place():
    leaf = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    view = leaf[:, 2:5].transpose(1, 2)

    rows = take_rows(view, IMAGE, ANCHOR, VALID)
    rows.sum().backward()

    assert torch.equal(rows[1], view[1, 0])
    assert leaf.grad[1, 2:5, 0].tolist() == [2, 2, 2]
    assert not leaf.grad[:, :2].any()


def test_values_of_fake_tensors_are_not_read():
    assert readable(torch.zeros(2))
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.zeros(2, 3, 4)).transpose(1, 2)
        places = (mode.from_tensor(part) for part in (IMAGE, ANCHOR, VALID))
        assert not readable(fake)
        assert take_rows(fake, *places).shape == (5, 3)
