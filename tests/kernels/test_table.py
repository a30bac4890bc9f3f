# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest
import torch

from boxwright.kernels import table as module
from boxwright.kernels.table import take_matched

IMAGE = torch.tensor([0, 1, 1, 0, 1])
ANCHOR = torch.tensor([2, 0, 0, 2, 3])  # two candidates twice
VALID = torch.tensor([True, True, True, True, False])


def layouts() -> dict[str, torch.Tensor]:
    """The same (2, 4, 6) table, stored in a row, by column, and as a part of something wider."""
    values = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wide = torch.zeros(2, 4, 9, dtype=torch.float64)
    wide[..., 2:8] = values
    return {
        "rows": values,
        "columns": values.transpose(1, 2).contiguous().transpose(1, 2),
        "part": wide[..., 2:8],
    }


@pytest.mark.parametrize("name", list(layouts()))
def test_parts_and_plane(name):
    table = layouts()[name]

    box, none, scores, plane = take_matched(table, IMAGE, ANCHOR, VALID, (4, 0, 2), plane=4)

    rows = table[IMAGE, ANCHOR]
    rows[4] = 0
    assert torch.equal(box, rows[:, :4])
    assert none.shape == (5, 0)
    assert torch.equal(scores, rows[:, 4:])
    assert torch.equal(plane, table[..., 4])


@pytest.mark.parametrize("name", list(layouts()))
@pytest.mark.parametrize("plane", [None, 4])
def test_gradient(name, plane):
    table = layouts()[name].detach().requires_grad_()

    def run(table: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(part.square() for part in take_matched(table, IMAGE, ANCHOR, VALID, (4, 2), plane))

    assert torch.autograd.gradcheck(run, table)


def test_parts_that_nobody_used_have_no_gradient():
    table = layouts()["rows"].clone().requires_grad_()

    take_matched(table, IMAGE, ANCHOR, VALID, (4, 2), plane=4)[0].sum().backward()

    assert table.grad[0, 2].tolist() == [2, 2, 2, 2, 0, 0]
    assert table.grad.count_nonzero() == 8


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_unused_slots_reach_nothing(value):
    table = layouts()["rows"].clone()
    table[1, 3] = value
    table.requires_grad_()

    parts = take_matched(table, IMAGE, ANCHOR, VALID, (4, 2))
    torch.cat(parts, dim=1).square().sum().backward()

    assert table.grad.isfinite().all()
    assert table.grad[1, 3].eq(0).all()


def test_half_precision_is_read_in_float32():
    table = layouts()["rows"].to(torch.bfloat16).requires_grad_()

    parts = take_matched(table, IMAGE, ANCHOR, VALID, (4, 2), plane=4)
    sum(part.sum() for part in parts).backward()

    assert {part.dtype for part in parts} == {torch.float32}
    assert table.grad.dtype == torch.bfloat16


def test_no_pairs():
    table, none = layouts()["rows"].clone().requires_grad_(), torch.zeros(0, dtype=torch.int64)

    box, plane = take_matched(table, none, none, none.bool(), (6,), plane=0)
    (box.sum() + plane.sum()).backward()

    assert box.shape == (0, 6)
    assert table.grad.sum().item() == 8


def test_the_cut_into_pieces_changes_nothing(monkeypatch):
    whole, cut = (layouts()["rows"].clone().requires_grad_() for _ in range(2))
    sum(part.square().sum() for part in take_matched(whole, IMAGE, ANCHOR, VALID, (4, 2), plane=4)).backward()
    monkeypatch.setattr(module, "CACHE_ROWS", 2)

    sum(part.square().sum() for part in take_matched(cut, IMAGE, ANCHOR, VALID, (4, 2), plane=4)).backward()

    assert torch.allclose(cut.grad, whole.grad, rtol=1e-12)
