# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest
import torch

from boxwright.kernels import bins as module
from boxwright.kernels.bins import Bins, distance_cross_entropy, mean_distance
from boxwright.losses.functional import distribution_focal
from boxwright.ops.distances import expected_distance


def rows(pairs: int, bins: int, by_plane: bool, seed: int = 0) -> torch.Tensor:
    """Raw rows (P, 4 R) of a leaf, in either memory order."""
    g = torch.Generator().manual_seed(seed)
    found = torch.randn(pairs, 4 * bins, generator=g, dtype=torch.float64) * 3
    return (found.t().contiguous().t() if by_plane else found).requires_grad_()


def distances(pairs: int, bins: int) -> torch.Tensor:
    """In bins, some of them outside of what the bins can say."""
    g = torch.Generator().manual_seed(1)
    return torch.rand(pairs, 4, generator=g, dtype=torch.float64) * (bins + 2) - 1


@pytest.mark.parametrize("by_plane", [False, True])
@pytest.mark.parametrize(("pairs", "bins"), [(0, 16), (1, 2), (9, 16), (9, 5)])
def test_both_and_their_joint_gradient_are_those_of_autograd(pairs, bins, by_plane):
    raw, wanted = rows(pairs, bins, by_plane), distances(pairs, bins)
    by_mean, by_entropy = torch.randn(pairs, 4).double(), torch.randn(pairs).double()
    kept = Bins.of(raw)
    got = mean_distance(raw, kept), distance_cross_entropy(raw, kept, wanted)
    expected = expected_distance(raw, bins), distribution_focal(raw, wanted)

    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(of, raw, [by_mean, by_entropy]) for of in (got, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-11, atol=1e-12)


def test_gradients_equal_differences():
    raw, wanted = rows(3, 4, by_plane=True), distances(3, 4)

    assert torch.autograd.gradcheck(lambda x: mean_distance(x, Bins.of(x)), raw)
    assert torch.autograd.gradcheck(lambda x: distance_cross_entropy(x, Bins.of(x), wanted), raw)


def test_cutting_into_pieces_changes_nothing(monkeypatch):
    raw, wanted = rows(11, 8, by_plane=True), distances(11, 8)

    def everything() -> list[torch.Tensor]:
        kept = Bins.of(raw)
        values = [mean_distance(raw, kept), distance_cross_entropy(raw, kept, wanted)]
        return [*values, *torch.autograd.grad([value.sum() for value in values], raw)]

    whole = everything()
    monkeypatch.setattr(module, "CACHE_ENTRIES", 4 * 8 * 3)

    for mine, theirs in zip(everything(), whole, strict=True):  # the last bit depends on where a vector ends
        torch.testing.assert_close(mine, theirs, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_logits_stay_finite(dtype):
    raw = (torch.randint(0, 2, (50, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1).to(dtype) * 1e4
    raw.requires_grad_()
    kept = Bins.of(raw)
    values = mean_distance(raw, kept).sum() + distance_cross_entropy(raw, kept, distances(50, 16).to(dtype)).sum()

    assert values.dtype == dtype
    assert values.isfinite()
    assert torch.autograd.grad(values, raw)[0].isfinite().all()


def test_gradients_lie_in_planes():
    raw = rows(5, 4, by_plane=True)

    (slope,) = torch.autograd.grad(mean_distance(raw, Bins.of(raw)).sum(), raw)

    assert slope.t().is_contiguous()
