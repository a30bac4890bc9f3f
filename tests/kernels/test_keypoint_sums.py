# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest
import torch

from boxwright.kernels import keypoint_sums as module
from boxwright.kernels.keypoint_sums import keypoint_columns, keypoint_miss_sums
from boxwright.ops.keypoints import keypoint_misses


def scene(pairs: int, count: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    """Float64 arguments of `keypoint_miss_sums` but x and y."""
    g = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    return {
        "origin": random(2, pairs) * 8,
        "wanted": random(2, count, pairs) * 8,
        "visible": random(count, pairs) < 0.7,
        "area": random(pairs) * 20,
        "sigmas": random(count) + 0.1,
    }


def raw_of(pairs: int, values: int = 3, count: int = 5) -> torch.Tensor:
    g = torch.Generator().manual_seed(7)
    return torch.randn(pairs, count, values, generator=g, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("step", [1.0, 2.0])
@pytest.mark.parametrize("pairs", [0, 1, 12])
def test_sums_and_gradient_are_those_of_autograd(pairs, step):
    given, raw = scene(pairs), raw_of(pairs)
    columns = keypoint_columns(raw)
    got = keypoint_miss_sums(columns.x, columns.y, **given, step=step)
    places = raw[..., :2] * step + given["origin"].t()[:, None]
    wanted = given["wanted"].permute(2, 1, 0)
    expected = keypoint_misses(places, wanted, given["visible"].t(), given["area"], given["sigmas"]).sum(dim=1)

    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    weights = torch.rand(pairs).double()
    slopes = [torch.autograd.grad(of, raw, weights)[0] for of in (got, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-11, atol=1e-12)
    assert not slopes[0][..., 2].any()


def test_gradients_equal_differences():
    given, raw = scene(4), raw_of(4)

    def total(x: torch.Tensor) -> torch.Tensor:
        columns = keypoint_columns(x)
        assert columns.seen is not None
        return keypoint_miss_sums(columns.x, columns.y, **given) + columns.seen.square().sum(dim=0)

    assert torch.autograd.gradcheck(total, raw)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_visible_may_hold_anything(value):
    given, raw = scene(6), raw_of(6)
    hidden = ~given["visible"]
    sums = [keypoint_miss_sums(*keypoint_columns(raw)[:2], **given)]
    given["wanted"] = given["wanted"].masked_fill(hidden, value)
    with torch.no_grad():
        spoiled = torch.where(hidden.t()[..., None], torch.full_like(raw, value), raw)
    spoiled.requires_grad_()
    sums.append(keypoint_miss_sums(*keypoint_columns(spoiled)[:2], **given))

    assert torch.equal(sums[0], sums[1])
    assert torch.autograd.grad(sums[1].sum(), spoiled)[0].isfinite().all()


def test_cutting_into_pieces_changes_nothing(monkeypatch):
    given, raw = scene(11), raw_of(11)

    def both() -> list[torch.Tensor]:
        sums = keypoint_miss_sums(*keypoint_columns(raw)[:2], **given)
        return [sums, *torch.autograd.grad(sums.sum(), raw)]

    whole = both()
    monkeypatch.setattr(module, "CACHE_ENTRIES", 5 * 3)

    assert all(torch.equal(a, b) for a, b in zip(whole, both(), strict=True))


def test_a_head_without_visibility_has_two_columns():
    raw = raw_of(3, values=2)
    columns = keypoint_columns(raw)

    assert columns.seen is None
    (slope,) = torch.autograd.grad(columns.y.sum(), raw)
    assert slope[..., 1].eq(1).all()
    assert not slope[..., 0].any()
