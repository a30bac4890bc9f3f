# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every YOLOv8-type criterion: no sync, one graph, two ranks, and what must not change its value."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.losses.dense_scenes import (
    CRITERIA,
    branches,
    changed,
    fresh,
    gradients,
    run,
    scene,
    tensors,
    with_branches,
)
from tests.losses.scenes import make_targets, random_predictions
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.losses.dense_recipes import yolov8_detect, yolov8_oriented
from boxwright.structures import Candidates, LossBreakdown, Outputs, Targets

NAMES = list(CRITERIA)
MEANS_OVER_PAIRS = ("seg", "pose", "kobj")

drawn = settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
counts = st.lists(st.integers(0, 7), min_size=2, max_size=3)
seeds = st.integers(0, 10_000)


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor], relative: float = 1e-9) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=relative, atol=relative * float(value.abs().max())), name


@pytest.mark.parametrize("name", NAMES)
@drawn
@given(counts=counts, seed=seeds, data=st.data())
def test_order_of_images_does_not_matter(name, counts, seed, data):
    order = torch.tensor(data.draw(st.permutations(range(len(counts)))))
    outputs, targets = scene(name, counts, seed)

    loss, seen = run(CRITERIA[name](), outputs, targets)
    again, moved = run(CRITERIA[name](), fresh(outputs, lambda x: x[order]), changed(targets, lambda x: x[order]))

    assert again.total.item() == pytest.approx(loss.total.item(), rel=1e-10)
    assert_same({key: value[order] for key, value in gradients(seen).items()}, gradients(moved))


@pytest.mark.parametrize("name", NAMES)
@drawn
@given(counts=counts, seed=seeds, data=st.data())
def test_order_of_objects_does_not_matter(name, counts, seed, data):
    outputs, targets = scene(name, counts, seed)
    slots = targets.labels.shape[1]
    order = torch.tensor(data.draw(st.permutations(range(slots))))
    moved = changed(dataclasses.replace(targets, instance_map=None, class_map=None), lambda x: x.index_select(1, order))
    if targets.instance_map is not None:
        number = torch.cat((torch.zeros(1, dtype=torch.int64), order.argsort() + 1)).int()
        moved = dataclasses.replace(
            moved, instance_map=number[targets.instance_map.long()], class_map=targets.class_map
        )

    loss, seen = run(CRITERIA[name](), outputs, targets)
    again, there = run(CRITERIA[name](), outputs, moved)

    assert again.total.item() == pytest.approx(loss.total.item(), rel=1e-10)
    assert_same(gradients(seen), gradients(there))


@pytest.mark.parametrize("name", NAMES)
@drawn
@given(counts=counts, seed=seeds, more=st.integers(1, 30))
def test_more_padding_changes_nothing(name, counts, seed, more):
    outputs, targets = scene(name, counts, seed)

    def grown(x: Tensor) -> Tensor:
        return torch.cat((x, x.new_zeros(x.shape[0], more, *x.shape[2:])), dim=1)

    wide = changed(dataclasses.replace(targets, instance_map=None, class_map=None), grown)
    wide = dataclasses.replace(wide, instance_map=targets.instance_map, class_map=targets.class_map)

    loss, seen = run(CRITERIA[name](), outputs, targets)
    again, there = run(CRITERIA[name](), outputs, wide)

    assert again.total.item() == pytest.approx(loss.total.item(), rel=1e-12)
    assert_same(gradients(seen), gradients(there), 1e-12)


def divisor(loss: LossBreakdown, item: str, images: int) -> Tensor:
    """What the sum of an item is divided by: the normalizer, the number of pairs, or the number of images."""
    role, term = item.split("/")
    pairs = loss.assignments[role]
    if term == "sem":
        return torch.tensor(float(images))
    return pairs.valid.sum().clamp(min=1) if term in MEANS_OVER_PAIRS else pairs.normalizer


@pytest.mark.parametrize("name", NAMES)
@drawn
@given(seed=seeds, split=st.integers(1, 3))
def test_the_parts_of_a_batch_add_up_by_their_divisors(name, seed, split):
    outputs, targets = scene(name, (5, 2, 7, 3), seed)
    criterion = dataclasses.replace(CRITERIA[name](), batch_scale=False)
    whole, _ = run(criterion, outputs, targets)
    parts = [
        run(criterion, fresh(outputs, lambda x, i=images: x[i]), changed(targets, lambda x, i=images: x[i]))[0]
        for images in (slice(0, split), slice(split, 4))
    ]

    for item, *items in zip(whole.items, *(part.items for part in parts), strict=True):
        if item.name.endswith("/rle"):
            continue  # cut off at zero as a whole, so its parts do not add up
        sizes = (4, split, 4 - split)
        norm, *norms = (divisor(of, item.name, size) for of, size in zip((whole, *parts), sizes, strict=True))
        joined = sum(x.contributions.sum() * of for x, of in zip(items, norms, strict=True))
        assert joined.item() == pytest.approx((item.contributions.sum() * norm).item(), rel=1e-9, abs=1e-12), item.name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["no objects", "one image without", "one class", "more objects than candidates"])
def test_corner_cases_are_finite_and_reach_every_leaf(name, case):
    objects = {"no objects": (0, 0), "one image without": (4, 0), "more objects than candidates": (150, 1)}
    outputs, targets = scene(name, objects.get(case, (3, 2)), 5, classes=1 if case == "one class" else 3)

    loss, seen = run(CRITERIA[name](), outputs, targets)

    assert loss.total.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(seen).values())
    assert all(preds.logits.grad.ne(0).any() for preds in branches(seen))
    if case == "no objects":
        assert {name for name, value in loss.components.items() if value != 0} == {
            f"{preds.role}/cls" for preds in branches(seen)
        }


def everything(extreme: float, dtype: torch.dtype, name: str) -> tuple[Outputs, Targets]:
    outputs, targets = scene(name, (4, 0), 6, torch.float64 if dtype == torch.float64 else torch.float32)

    def pushed(x: Tensor) -> Tensor:
        sign = torch.where(torch.arange(x.numel()).view(x.shape) % 3 == 0, -1.0, 1.0)
        return (sign * extreme).to(dtype)

    return fresh(outputs, pushed), targets


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("extreme", [1e4, -1e4])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_outputs_give_a_finite_loss_and_gradient(name, extreme, dtype):
    outputs, targets = everything(extreme, dtype, name)

    # In half precision the gradients of a sum of thousands may leave the range; the mean over a batch is what counts.
    criterion = dataclasses.replace(CRITERIA[name](), batch_scale=False)
    loss, seen = run(criterion, outputs, targets)

    assert loss.total.isfinite()
    for key, gradient in gradients(seen).items():
        assert gradient.isfinite().all(), key


@pytest.mark.parametrize("modern", [False, True])
def test_objects_without_area_or_outside_the_image_cost_nothing(modern):
    preds = random_predictions(torch.Generator().manual_seed(0), 1)
    odd = make_targets([(10, 10, 10, 40), (10, 10, 40, 10), (30, 30, 30, 30), (-90, -90, -20, -20), (200, 0, 300, 50)])
    criterion = yolov8_detect(modern=modern)

    lonely, _ = run(criterion, Outputs(preds), odd)
    empty, _ = run(criterion, Outputs(preds), make_targets([]))

    assert lonely.total.item() == empty.total.item()


def test_oriented_objects_below_two_pixels_cost_nothing():
    outputs, targets = scene("oriented", (3,), 1)
    boxes = targets.boxes.clone()
    boxes[0, 1, 2] = 1.9
    small = dataclasses.replace(targets, boxes=boxes)
    without = dataclasses.replace(targets, valid=targets.valid & (torch.arange(4) != 1))

    filtered, dropped = (run(yolov8_oriented(), outputs, of)[0].total.item() for of in (small, without))

    assert filtered == dropped != run(yolov8_oriented(), outputs, targets)[0].total.item()


def faked(value: Any, mode: FakeTensorMode) -> Any:
    if isinstance(value, Tensor):
        return mode.from_tensor(value)
    if isinstance(value, Outputs):
        return with_branches(value, lambda preds: faked(preds, mode))
    if isinstance(value, dict):
        return {name: faked(part, mode) for name, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: faked(part, mode) for name, part in fields.items()})
    return value


@pytest.mark.parametrize("objects", [(5, 0, 9), (0, 0)])
@pytest.mark.parametrize("name", NAMES)
def test_prepared_targets_need_no_sync(name, objects):
    # Fake tensors hold no values: nonzero, boolean indexing and item raise.
    outputs, targets = scene(name, objects, 0, torch.float32)
    criterion = CRITERIA[name]()
    targets = criterion.prepare(targets, outputs.final.grid)
    assert isinstance(targets.candidates, Candidates)

    with FakeTensorMode() as mode:
        fake = faked(outputs, mode)
        loss = criterion(fake, faked(targets, mode))
        loss.total.backward()

        assert loss.total.shape == ()
        for preds in branches(fake):
            assert preds.logits.grad.shape == preds.logits.shape


TRACE = """
import dataclasses, torch
from tests.losses.dense_scenes import CRITERIA, branches, fresh, gradients, scene, tensors, with_branches

for name, build in CRITERIA.items():
    criterion = build()
    outputs, targets = scene(name, (4, 7), 1, torch.float64)
    targets = criterion.prepare(targets, outputs.final.grid)

    def total(parts):
        held = iter(parts)
        return criterion(with_branches(outputs, lambda preds: dataclasses.replace(preds, **next(held))), targets).total

    results = []
    for call in (total, torch.compile(total, fullgraph=True, backend="eager")):
        copy = fresh(outputs)
        value = call([tensors(preds) for preds in (copy.final, *copy.auxiliary)])
        value.backward()
        results.append((value.item(), gradients(copy)))
    (expected, wanted), (got, found) = results
    assert abs(got - expected) <= 1e-12 * abs(expected), (name, got, expected)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    torch.compiler.reset()
print("one graph each")
"""


@pytest.mark.slow
def test_prepared_targets_trace_as_one_graph():
    # In a process of its own: the run-time type checks of the test run are what a tracer cannot follow.
    root = Path(__file__).parents[2]

    result = subprocess.run([sys.executable, "-c", TRACE], cwd=root, capture_output=True, text=True, check=False)

    assert result.stdout.strip() == "one graph each", result.stderr


def half(name: str, images: slice) -> tuple[float, dict[str, Tensor]]:
    outputs, targets = scene(name, (3, 6, 0, 4), 2)
    loss, seen = run(CRITERIA[name](), fresh(outputs, lambda x: x[images]), changed(targets, lambda x: x[images]))
    return loss.total.item(), gradients(seen)


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    images = slice(0, 1) if rank == 0 else slice(1, 4)
    torch.save({name: half(name, images) for name in NAMES}, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_equal_one(tmp_path):
    mp.spawn(work, (str(tmp_path),), nprocs=2)

    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name in NAMES:
        total, expected = half(name, slice(None))
        (one, first), (two, second) = (rank[name] for rank in ranks)
        # DDP takes the mean of the ranks' gradients, and a log the mean of their totals.
        assert (one + two) / 2 == pytest.approx(total, rel=1e-10), name
        assert_same(expected, {key: torch.cat((first[key], second[key])) / 2 for key in expected})


@pytest.mark.parametrize("name", NAMES)
def test_the_scene_reaches_every_leaf(name):
    # What a test of invariance cannot see: that each tensor takes part.
    loss, seen = run(CRITERIA[name](), *scene(name, (5, 3), 3))

    unused = {"main/keypoint_scale"} if name == "pose" else set()
    unused |= {"main/semantic_logits"} if name == "segment" else set()
    assert {key for key, value in gradients(seen).items() if not value.any()} == unused & set(gradients(seen))
    assert all(tensors(preds) for preds in branches(seen))
    assert all(value > 0 for value in loss.components.values())
