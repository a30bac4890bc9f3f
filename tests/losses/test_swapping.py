# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Any assigner drives any dense head with any class term and any box term: no sync, one graph, N ranks as one."""

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.losses.scenes import criterion, generator, random_predictions, random_targets
from tests.losses.test_criterion import faked
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.config import from_yaml, override, to_yaml
from boxwright.losses.criterion import Criterion
from boxwright.structures import Outputs, Predictions, Targets

ASSIGNERS = ["task_aligned", "simota", "atss"]
CLASS_TERMS = ["soft_scores", "focal_scores", "quality_focal_scores", "varifocal_scores"]
BOX_TERMS = ["iou", "giou", "diou", "ciou", "eiou", "siou", "mpdiou", "wiou", "nwd"]


def rules_of(assigner: str, scores: str, box: str, *settings: str) -> Criterion:
    """The YOLOv8 rule with other parts, each named by one setting."""
    main = "rules.main"
    chosen = [
        f"{main}.assigner.kind={assigner}", f"{main}.terms.cls.term.kind={scores}",
        f"{main}.terms.box.term.overlap={box}", *settings,
    ]  # fmt: skip
    return override(criterion(), chosen)


VARIANTS = {
    f"{assigner} {scores} {box}": (assigner, scores, box)
    for assigner, scores, box in [
        *itertools.product(ASSIGNERS, CLASS_TERMS, ["ciou"]),
        *itertools.product(["task_aligned"], ["soft_scores"], BOX_TERMS),
    ]
}


@pytest.mark.parametrize("name", VARIANTS)
def test_one_setting_each_and_the_numbers_are_finite(name):
    rules = rules_of(*VARIANTS[name])
    assert from_yaml(Criterion, to_yaml(rules)) == rules
    preds, targets = random_predictions(generator(0), 3), random_targets(generator(0), (4, 0, 7))

    loss = rules(Outputs(preds), rules.prepare(targets, preds.grid))
    loss.total.backward()

    assert all(value.isfinite() and value > 0 for value in loss.components.values())
    assert preds.logits.grad.isfinite().all()
    assert preds.box_raw.grad.ne(0).any(dim=-1).sum() == loss.assignments["main"].valid.sum()


def fake_loss(rules: Criterion, preds: Predictions, targets: Targets) -> None:
    prepared = rules.prepare(targets, preds.grid)
    with FakeTensorMode() as mode:
        fake = faked(preds, mode)
        loss = rules(Outputs(fake), faked(prepared, mode))
        loss.total.backward()
        assert fake.logits.grad.shape == preds.logits.shape


@pytest.mark.parametrize("counts", [(5, 0, 9), (0, 0), (90,)])
@pytest.mark.parametrize("name", VARIANTS)
def test_prepared_targets_need_no_sync(name, counts):
    preds = random_predictions(generator(0), len(counts), dtype=torch.float32)

    fake_loss(rules_of(*VARIANTS[name]), preds, random_targets(generator(0), counts, dtype=torch.float32))


OPTIONS: dict[str, list[str]] = {
    "weights": ["class_weights={kind: explicit, values: [1, 2, 3]}"],
    "weights of both halves": ["class_weights={kind: explicit, values: [1, 2, 3], mode: both}"],
    "by candidates": ["rules.main.terms.cls.term.empty_norm=anchors"],
    "inner": ["rules.main.terms.box.term.inner_ratio=0.75"],
}


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("option", OPTIONS)
def test_options_need_no_sync(option, exclusive):
    preds = random_predictions(generator(0), 2, dtype=torch.float32)
    targets = random_targets(generator(0), (3, 4), dtype=torch.float32)
    rules = override(criterion(), OPTIONS[option]).with_class_counts((1, 1, 1))

    fake_loss(rules, Predictions(preds.logits, preds.box_raw, preds.decoder, preds.grid, exclusive=exclusive), targets)


TRACE = """
import dataclasses, sys, torch
from boxwright.structures import Outputs
from tests.losses.scenes import generator, gradients, random_predictions, random_targets
from tests.losses.test_swapping import rules_of

for assigner, scores, box, exclusive in (
    ("simota", "soft_scores", "eiou", False), ("atss", "quality_focal_scores", "siou", False),
    ("task_aligned", "varifocal_scores", "wiou", False), ("task_aligned", "focal_scores", "mpdiou", False),
    ("task_aligned", "soft_scores", "nwd", True),
):
    weights = "class_weights={kind: explicit, values: [1, 2, 3]}"
    rules, source = rules_of(assigner, scores, box, weights).with_class_counts((1, 1, 1)), generator(1)
    preds = dataclasses.replace(random_predictions(source, 2, dtype=torch.float64), exclusive=exclusive)
    targets = rules.prepare(random_targets(source, (4, 7), dtype=torch.float64), preds.grid)
    ignore = torch.tensor([[[0.0, 0.0, 40.0, 40.0]]]).expand(2, 1, 4)
    targets = dataclasses.replace(targets, ignore=ignore, weights=torch.rand(targets.labels.shape))

    def total(logits, raw):
        return rules(Outputs(dataclasses.replace(preds, logits=logits, box_raw=raw)), targets).total

    expected = total(preds.logits, preds.box_raw)
    expected.backward()
    wanted = [gradient.clone() for gradient in gradients(preds)]
    preds.logits.grad = preds.box_raw.grad = None
    got = torch.compile(total, fullgraph=True, backend="eager")(preds.logits, preds.box_raw)
    got.backward()
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(list(gradients(preds)), wanted, rtol=1e-12, atol=1e-12)
print("one graph each")
"""


@pytest.mark.slow
def test_the_parts_trace_as_one_graph():
    # In a process of its own: the run-time type checks of the test run are what a tracer cannot follow.
    root = Path(__file__).parents[2]

    result = subprocess.run([sys.executable, "-c", TRACE], cwd=root, capture_output=True, text=True, check=False)

    assert result.stdout.strip() == "one graph each", result.stderr


RANKED: dict[str, tuple[str, str, str, list[str]]] = {
    "simota": ("simota", "quality_focal_scores", "siou", []),
    "atss": ("atss", "focal_scores", "eiou", []),
    "varifocal": ("task_aligned", "varifocal_scores", "wiou", []),
    "by candidates": ("task_aligned", "soft_scores", "nwd", ["rules.main.terms.cls.term.empty_norm=anchors"]),
    "weights": ("task_aligned", "soft_scores", "ciou", OPTIONS["weights"]),
}


def steps(preds: Predictions, targets: Targets) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (assigner, scores, box, settings) in RANKED.items():
        rules = rules_of(assigner, scores, box, *settings).with_class_counts((1, 1, 1))
        preds.logits.grad = preds.box_raw.grad = None
        loss = rules(Outputs(preds), rules.prepare(targets, preds.grid))
        loss.total.backward()
        found[name] = {"total": loss.total.detach(), "logits": preds.logits.grad, "box_raw": preds.box_raw.grad}
    return found


COUNTS = {"uneven": (3, 7, 1, 5), "a rank without labels": (6, 0, 0, 0), "no labels at all": (0, 0, 0, 0)}


def parts(scene: str, images: slice) -> tuple[Predictions, Targets]:
    """Some images of a scene whose objects have weights and whose images have ignore regions."""
    preds, targets = random_predictions(generator(0), 4), random_targets(generator(0), COUNTS[scene])
    mine = {name: getattr(preds, name).detach()[images].clone().requires_grad_() for name in ("logits", "box_raw")}
    weights = torch.rand(targets.labels.shape, generator=generator(1), dtype=torch.float64)
    ignore = torch.tensor([[[0.0, 0.0, 40.0, 40.0], [60.0, 20.0, 90.0, 60.0]]], dtype=torch.float64).expand(4, 2, 4)
    picked = Targets(
        targets.labels[images], targets.boxes[images], targets.valid[images],
        weights=weights[images], ignore=ignore[images],
    )  # fmt: skip
    return dataclasses.replace(preds, **mine), picked


def work(rank: int, scene: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(steps(*parts(scene, slice(0, 1) if rank == 0 else slice(1, 4))), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("scene", COUNTS)
def test_two_ranks_equal_one(scene: str, tmp_path: Path) -> None:
    mp.spawn(work, (scene, str(tmp_path)), nprocs=2)

    whole = steps(*parts(scene, slice(None)))
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]

    for name, wanted in whole.items():
        total = sum(half[name]["total"].item() for half in halves) / 2
        assert total == pytest.approx(wanted["total"].item(), rel=1e-12), name
        for leaf in ("logits", "box_raw"):
            joined = torch.cat([half[name][leaf] for half in halves]) / 2
            assert torch.allclose(joined, wanted[leaf], rtol=1e-10, atol=1e-15), name
