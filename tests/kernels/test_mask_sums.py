# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
from typing import Any

import pytest
import torch
from tests.losses.scenes import generator
from tests.reference.masks import bce
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.kernels import mask_sums as cropped
from boxwright.kernels import mask_tiles as tiled
from boxwright.kernels.mask_sums import mask_sums, tiled_mask_sums

FORMS = pytest.mark.parametrize("form", [mask_sums, tiled_mask_sums], ids=["cropped", "tiled"])


@dataclasses.dataclass
class Scene:
    coefs: torch.Tensor
    prototypes: torch.Tensor
    truth: torch.Tensor
    crops: torch.Tensor
    image: torch.Tensor
    target: torch.Tensor
    valid: torch.Tensor

    def run(self, form: Any, **changes: torch.Tensor) -> torch.Tensor:
        return form(**{**self.__dict__, **changes})

    def leaves(self) -> "Scene":
        fresh = (x.detach().clone().requires_grad_() for x in (self.coefs, self.prototypes))
        return dataclasses.replace(self, **dict(zip(("coefs", "prototypes"), fresh, strict=True)))


def scene(seed: int, *, pairs: int = 40, per_slot: bool = False, dtype: torch.dtype = torch.float64) -> Scene:
    """Two images of 5 x 7 pixels with three slots; image 1 holds most of the pairs; some crops are empty."""
    source = generator(seed)
    corner = torch.randint(0, 5, (2, 3, 2), generator=source)
    extent = torch.randint(0, 5, (2, 3, 2), generator=source)
    extent[0, 0] = 0
    limit = torch.tensor([7, 5])
    crops = torch.cat((torch.minimum(corner, limit), torch.minimum(corner + extent, limit)), dim=-1)
    if per_slot:
        truth = torch.rand(2, 3, 5, 7, generator=source) < 0.5
    else:
        truth = torch.randint(0, 4, (2, 5, 7), generator=source).int()
    return Scene(
        coefs=torch.randn(pairs, 4, generator=source, dtype=dtype),
        prototypes=torch.randn(2, 4, 5, 7, generator=source, dtype=dtype),
        truth=truth,
        crops=crops,
        image=(torch.rand(pairs, generator=source) < 0.9).long(),
        target=torch.randint(0, 3, (pairs,), generator=source),
        valid=torch.rand(pairs, generator=source) < 0.8,
    )


def by_hand(of: Scene) -> list[float]:
    found = []
    for row in range(len(of.coefs)):
        image, slot = of.image[row].item(), of.target[row].item()
        left, top, right, bottom = of.crops[image, slot].tolist()
        logits = torch.einsum("q,qhw->hw", of.coefs[row].detach(), of.prototypes[image].detach())
        seen = of.truth[image] == slot + 1 if of.truth.ndim == 3 else of.truth[image, slot]
        pixels = [(y, x) for y in range(top, bottom) for x in range(left, right)] if of.valid[row] else []
        found.append(sum(bce(logits[at].item(), seen[at].item()) for at in pixels))
    return found


@FORMS
@pytest.mark.parametrize("per_slot", [False, True])
@pytest.mark.parametrize("pairs", [1, 40, 200])
def test_equals_a_sum_over_pixels(form, per_slot, pairs):
    of = scene(0, per_slot=per_slot, pairs=pairs)

    assert of.run(form).tolist() == pytest.approx(by_hand(of), rel=1e-10)


@FORMS
@pytest.mark.parametrize("per_slot", [False, True])
def test_gradcheck(form, per_slot):
    of = scene(1, per_slot=per_slot, pairs=9).leaves()

    assert torch.autograd.gradcheck(
        lambda coefs, prototypes: of.run(form, coefs=coefs, prototypes=prototypes), (of.coefs, of.prototypes)
    )


@pytest.mark.parametrize(("name", "value"), [("CROP_ELEMENTS", 1), ("TILE_ELEMENTS", 1), ("TILE_ROWS", 3)])
@FORMS
def test_the_cut_into_pieces_changes_nothing(form, name, value, monkeypatch):
    # Crops of up to 1200 pixels: more than the least piece of the cropped form.
    source = generator(2)
    of = Scene(
        coefs=torch.randn(30, 2, generator=source, dtype=torch.float64),
        prototypes=torch.randn(2, 2, 40, 60, generator=source, dtype=torch.float64),
        truth=torch.randint(0, 3, (2, 40, 60), generator=source).int(),
        crops=torch.tensor([[[0, 0, 60, 40], [3, 5, 50, 38]]]).repeat(2, 1, 1),
        image=torch.randint(0, 2, (30,), generator=source),
        target=torch.randint(0, 2, (30,), generator=source),
        valid=torch.ones(30, dtype=torch.bool),
    )
    whole, cut = of.leaves(), of.leaves()
    expected = whole.run(form)
    expected.square().sum().backward()
    monkeypatch.setattr(tiled if name.startswith("TILE") else cropped, name, value)

    got = cut.run(form)
    got.square().sum().backward()

    assert torch.allclose(got, expected, rtol=1e-12)
    assert torch.allclose(cut.coefs.grad, whole.coefs.grad, rtol=1e-10)
    assert torch.allclose(cut.prototypes.grad, whole.prototypes.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("per_slot", [False, True])
def test_slopes_kept_or_computed_again_give_the_same_gradients(per_slot, monkeypatch):
    kept, again = scene(6, per_slot=per_slot).leaves(), scene(6, per_slot=per_slot).leaves()
    weights = torch.randn(40, generator=generator(7), dtype=torch.float64)
    expected = kept.run(mask_sums)
    (expected * weights).sum().backward()
    monkeypatch.setattr(cropped, "KEPT_ELEMENTS", 0)

    got = again.run(mask_sums)
    (got * weights).sum().backward()

    assert torch.equal(got, expected)
    assert torch.allclose(again.coefs.grad, kept.coefs.grad, rtol=1e-12)
    assert torch.allclose(again.prototypes.grad, kept.prototypes.grad, rtol=1e-12)


@FORMS
def test_no_pairs_and_only_unused_slots_give_zero_gradients(form):
    for of in (scene(3, pairs=0), dataclasses.replace(scene(3), valid=torch.zeros(40, dtype=torch.bool))):
        of = of.leaves()
        sums = of.run(form)
        sums.sum().backward()

        assert sums.eq(0).all()
        assert of.coefs.grad.eq(0).all()
        assert of.prototypes.grad.eq(0).all()


@FORMS
@pytest.mark.parametrize("value", [torch.inf, torch.nan, 1e300])
def test_an_unused_slot_may_hold_anything(form, value):
    of = dataclasses.replace(scene(4), valid=torch.arange(40) != 5)
    calm = of.leaves()
    calm.run(form).sum().backward()
    of.coefs[5] = value
    wild = of.leaves()

    got = wild.run(form)
    got.sum().backward()

    assert got.isfinite().all()
    assert torch.equal(wild.prototypes.grad, calm.prototypes.grad)
    assert wild.coefs.grad[5].eq(0).all()


@FORMS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_of_ten_thousand_stay_exact(form, dtype):
    zero = torch.zeros(1, dtype=torch.int64)
    coefs = torch.full((1, 1), 1e4, dtype=dtype, requires_grad=True)
    prototypes = torch.tensor([1.0, -1.0, 1.0, 0.0], dtype=dtype).view(1, 1, 1, 4)
    truth = torch.tensor([[[1, 0, 0, 1]]], dtype=torch.int32)

    sums = form(coefs, prototypes, truth, torch.tensor([[[0, 0, 4, 1]]]), zero, zero, zero == 0)
    sums.sum().backward()

    # Right, right, wrong by 1e4, undecided.
    assert sums.item() == pytest.approx(1e4 + torch.tensor(2.0).log().item(), rel=1e-6)
    assert coefs.grad.item() == 1.0


def test_both_forms_agree_in_float32():
    of = scene(6, dtype=torch.float32, pairs=100)
    one, other = of.leaves(), of.leaves()
    first, second = one.run(mask_sums), other.run(tiled_mask_sums)
    for sums in (first, second):
        (sums * torch.arange(100)).sum().backward()

    assert torch.allclose(first, second, rtol=1e-5)
    assert torch.allclose(one.coefs.grad, other.coefs.grad, rtol=1e-4, atol=1e-3)
    assert torch.allclose(one.prototypes.grad, other.prototypes.grad, rtol=1e-4, atol=1e-3)


@FORMS
def test_needs_no_value_under_a_tracer(form):
    # On an accelerator `mask_sums` is the tiled form, which is plain PyTorch: nonzero or item would raise here.
    of = scene(7).leaves()

    with FakeTensorMode() as mode:
        fake = Scene(**{name: mode.from_tensor(value) for name, value in of.__dict__.items()})
        sums = fake.run(form)
        sums.sum().backward()

    assert sums.shape == (40,)
    assert fake.prototypes.grad.shape == of.prototypes.shape


def test_the_operation_keeps_the_rules_of_custom_operations():
    of = scene(8, dtype=torch.float32).leaves()

    torch.library.opcheck(torch.ops.boxwright.cropped_mask_sums, tuple(of.__dict__.values()))
