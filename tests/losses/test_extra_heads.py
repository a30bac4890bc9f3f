# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Whole criteria of segmentation and pose: what must hold for a step, beyond the terms one by one."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.losses.scenes import criterion, generator, random_predictions, random_targets
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.kernels.mask_sums import mask_sums, tiled_mask_sums
from boxwright.losses.assign import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import (
    KeypointLikelihood,
    KeypointLocation,
    KeypointVisibility,
    PrototypeMasks,
    SemanticMap,
)
from boxwright.structures import Outputs, Predictions, Targets

LEAVES = ("logits", "box_raw", "mask_coefs", "prototypes", "semantic_logits", "keypoints_raw", "keypoint_scale")


def density(residuals: torch.Tensor) -> torch.Tensor:
    return -residuals.square().sum(dim=1) - 2


def rules(*, per_image: bool = False) -> Criterion:
    terms = dict(criterion().rules["main"].terms)
    terms["seg"] = Weighted(term=PrototypeMasks(reduction="image_levels" if per_image else "pairs"), gain=7.5)
    terms["sem"] = Weighted(term=SemanticMap(), gain=7.5)
    terms["pose"] = Weighted(term=KeypointLocation(), gain=12.0)
    terms["kobj"] = Weighted(term=KeypointVisibility(), gain=1.0)
    terms["rle"] = Weighted(term=KeypointLikelihood(), gain=1.0)
    return Criterion(rules={"main": Rule(assigner=TaskAligned(), terms=terms)})


def scene(
    counts: tuple[int, ...], dtype: torch.dtype = torch.float64, *, per_slot: bool = False
) -> tuple[Predictions, Targets]:
    source, batch = generator(0), len(counts)
    plain, labels = random_predictions(source, batch, dtype=dtype), random_targets(source, counts)
    slots, anchors = labels.labels.shape[1], plain.logits.shape[1]
    shapes = {
        "mask_coefs": (batch, anchors, 3),
        "prototypes": (batch, 3, 16, 24),
        "semantic_logits": (batch, 3, 8, 12),
        "keypoints_raw": (batch, anchors, 4, 3),
        "keypoint_scale": (batch, anchors, 4, 2),
    }
    extra = {
        name: torch.randn(shape, generator=source, dtype=torch.float64).to(dtype).requires_grad_()
        for name, shape in shapes.items()
    }
    places = torch.rand(batch, slots, 4, 2, generator=source, dtype=torch.float64) * 64
    seen = torch.randint(0, 3, (batch, slots, 4, 1), generator=source).double()
    maps = {"instance_map": torch.randint(0, slots, (batch, 16, 24), generator=source).int()}
    if per_slot:
        maps = {"masks": torch.rand(batch, slots, 16, 24, generator=source) < 0.3}
    classes = torch.randint(0, 3, (batch, 16, 24), generator=source)
    labels = dataclasses.replace(labels, keypoints=torch.cat((places, seen), dim=-1), class_map=classes, **maps)
    return dataclasses.replace(plain, keypoint_density=density, **extra), labels


def test_both_forms_of_the_mask_term_give_one_loss(monkeypatch):
    preds, labels = scene((5, 0, 9))
    expected = step(part(preds, slice(None)), labels)
    monkeypatch.setattr("boxwright.kernels.terms.mask.mask_sums", tiled_mask_sums)

    got = step(part(preds, slice(None)), labels)

    for name, value in expected.items():
        assert torch.allclose(got[name], value, rtol=1e-10, atol=1e-13), name


def part(value: Any, images: slice) -> Any:
    """Some images of predictions (as fresh leaves) or targets."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        tensor = getattr(value, field.name)
        if isinstance(tensor, torch.Tensor):
            mine = tensor.detach()[images].clone()
            changes[field.name] = mine.requires_grad_() if tensor.requires_grad else mine
    return dataclasses.replace(value, **changes)


def step(preds: Predictions, labels: Targets, chosen: Criterion | None = None) -> dict[str, torch.Tensor]:
    chosen = chosen or rules()
    loss = chosen(Outputs(preds), chosen.prepare(labels, preds.grid))
    loss.total.backward()
    found = {name: value.detach() for name, value in loss.components.items()}
    return found | {"total": loss.total.detach()} | {name: getattr(preds, name).grad for name in LEAVES}


def faked(value: Any, mode: FakeTensorMode) -> Any:
    if isinstance(value, torch.Tensor):
        return mode.from_tensor(value)
    if isinstance(value, dict):
        return {name: faked(part, mode) for name, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **{name: faked(of, mode) for name, of in fields.items()})
    return value


@pytest.mark.parametrize("form", [mask_sums, tiled_mask_sums], ids=["cpu", "accelerator"])
@pytest.mark.parametrize("counts", [(5, 0, 9), (0, 0)])
@pytest.mark.parametrize("per_slot", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prepared_targets_need_no_sync(counts, per_slot, dtype, form, monkeypatch):
    # What an accelerator runs is made of plain operations, each of which must do without values.
    monkeypatch.setattr("boxwright.kernels.terms.mask.mask_sums", form)
    preds, labels = scene(counts, dtype, per_slot=per_slot)
    chosen = rules(per_image=per_slot)
    prepared = chosen.prepare(labels, preds.grid)

    with FakeTensorMode(allow_fallback_kernels=False) as mode:
        fake, there = faked(preds, mode), faked(prepared, mode)
        loss = chosen(Outputs(fake), there)
        loss.total.backward()

    assert fake.prototypes.grad.shape == preds.prototypes.shape
    assert fake.keypoints_raw.grad.shape == preds.keypoints_raw.shape


TRACE = """
import dataclasses, torch
from boxwright.structures import Outputs
from tests.losses.test_extra_heads import LEAVES, rules, scene

chosen = rules()
preds, labels = scene((4, 7), torch.float64)
targets = chosen.prepare(labels, preds.grid)

def total(*leaves):
    return chosen(Outputs(dataclasses.replace(preds, **dict(zip(LEAVES, leaves)))), targets).total

leaves = [getattr(preds, name) for name in LEAVES]
expected = total(*leaves)
wanted = torch.autograd.grad(expected, leaves)
got = torch.compile(total, fullgraph=True, backend="eager")(*leaves)
torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
torch.testing.assert_close(torch.autograd.grad(got, leaves), wanted, rtol=1e-12, atol=1e-12)
print("one graph")
"""


@pytest.mark.slow
def test_prepared_targets_trace_as_one_graph():
    # In a process of its own: the run-time type checks of the test run are what a tracer cannot follow.
    root = Path(__file__).parents[2]

    result = subprocess.run([sys.executable, "-c", TRACE], cwd=root, capture_output=True, text=True, check=False)

    assert result.stdout.strip() == "one graph", result.stderr


@pytest.mark.parametrize("per_slot", [False, True])
def test_no_objects_cost_background_only(per_slot):
    found = step(*scene((0, 0), per_slot=per_slot))

    for name in ("seg", "sem", "pose", "kobj", "rle"):
        assert found[f"main/{name}"] == 0
    for name in LEAVES[2:]:
        assert found[name].eq(0).all()


def test_order_of_images_does_not_matter():
    preds, labels = scene((5, 0, 9, 2))
    order = torch.tensor([2, 0, 3, 1])

    first, second = step(preds, labels), step(part(preds, order), part(labels, order))

    assert second["total"].item() == pytest.approx(first["total"].item(), rel=1e-12)
    for name in LEAVES:
        assert torch.allclose(first[name][order], second[name], rtol=1e-9, atol=1e-13), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_even_under_autocast(dtype):
    preds, labels = scene((3, 4), dtype)
    rounded = dataclasses.replace(preds, **{name: getattr(preds, name).detach().float() for name in LEAVES})
    chosen = rules()

    with torch.autocast("cpu", torch.bfloat16):
        loss = chosen(Outputs(preds), labels)
    loss.total.backward()

    assert loss.total.dtype == torch.float32
    assert loss.scalars() == chosen(Outputs(rounded), labels).scalars()
    assert all(getattr(preds, name).grad.dtype == dtype for name in LEAVES)


def test_weights_of_objects_scale_their_masks_and_keypoints():
    preds, labels = scene((3,))
    only = dataclasses.replace(labels, weights=torch.zeros_like(labels.valid, dtype=torch.float64))
    only.weights[0, 1] = 3.0

    plain, weighted = (rules()(Outputs(preds), of) for of in (labels, only))

    mine = plain.assignments["main"].target == 1
    assert mine.any()
    for item, other in zip(plain.items, weighted.items, strict=True):
        if item.name in ("main/seg", "main/pose", "main/kobj", "main/rle"):
            assert torch.allclose(other.contributions, torch.where(mine, 3 * item.contributions, 0.0))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    images = slice(0, 1) if rank == 0 else slice(1, 4)
    preds, labels = scene((0, 7, 1, 5))
    for per_image in (False, True):
        found = step(part(preds, images), part(labels, images), rules(per_image=per_image))
        torch.save(found, f"{folder}/{rank}{per_image}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    mp.spawn(work, (str(tmp_path),), nprocs=2)

    for per_image in (False, True):
        whole = step(*scene((0, 7, 1, 5)), rules(per_image=per_image))
        ranks = [torch.load(tmp_path / f"{rank}{per_image}.pt", weights_only=True) for rank in (0, 1)]
        for name, value in whole.items():
            if name in LEAVES:
                joined = torch.cat([rank[name] for rank in ranks]) / 2
                assert torch.allclose(joined, value, rtol=1e-9, atol=1e-14), name
            elif name == "total":
                assert sum(rank[name].item() for rank in ranks) / 2 == pytest.approx(value.item(), rel=1e-12)
            else:
                assert sum(rank[name].item() for rank in ranks) == pytest.approx(value.item(), rel=1e-12), name
