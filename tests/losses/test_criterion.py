# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.losses.scenes import (
    CLASSES,
    SIZE,
    STRIDES,
    criterion,
    generator,
    gradients,
    make_targets,
    random_predictions,
    random_targets,
)
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright import kernels
from boxwright.config import from_yaml, override, to_yaml
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.assign import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import BoxOverlap, SoftScores
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Assignment, Outputs, Predictions, Targets

GRID = grid_for_image(SIZE, STRIDES)


def leaves(preds: Predictions, **changes: torch.Tensor) -> Predictions:
    """A copy with fresh leaves."""
    fresh = {name: getattr(preds, name).detach().clone() for name in ("logits", "box_raw")} | changes
    return dataclasses.replace(
        preds, **{name: value.detach().clone().requires_grad_() for name, value in fresh.items()}
    )


def run(preds: Predictions, targets: Targets, rules: Criterion | None = None) -> tuple[dict[str, float], Predictions]:
    """Scalars after backward, and the predictions with their gradients."""
    preds, rules = leaves(preds), rules or criterion()
    loss = rules(Outputs(preds), rules.prepare(targets, preds.grid))
    loss.total.backward()
    return loss.scalars(), preds


def faked(value: Any, mode: FakeTensorMode) -> Any:
    if isinstance(value, torch.Tensor):
        return mode.from_tensor(value)
    if isinstance(value, dict):
        return {name: faked(part, mode) for name, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: faked(part, mode) for name, part in fields.items()})
    return value


@pytest.mark.parametrize("counts", [(5, 0, 9), (0, 0)])
@pytest.mark.parametrize(
    "switches", [{}, {"zero_metric_positives": "lowest_index", "conflict_scope": "all", "validity": "sum"}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_prepared_targets_need_no_sync(counts, switches, dtype):
    # Fake tensors hold no values: nonzero, boolean indexing and item raise.
    preds = random_predictions(generator(0), len(counts), dtype=dtype)
    rules = criterion(TaskAligned(**switches))
    targets = rules.prepare(random_targets(generator(0), counts, dtype=torch.float32), preds.grid)

    with FakeTensorMode() as mode:
        fake = faked(preds, mode)
        loss = rules(Outputs(fake), faked(targets, mode))
        loss.total.backward()

        assert loss.total.shape == ()
        assert fake.logits.grad.shape == preds.logits.shape


TRACE = """
import dataclasses, torch
from boxwright.structures import Outputs
from tests.losses.scenes import criterion, generator, gradients, random_predictions, random_targets

rules, source = criterion(), generator(1)
preds = random_predictions(source, 2, dtype=torch.float64)
targets = rules.prepare(random_targets(source, (4, 7), dtype=torch.float64), preds.grid)

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
print("one graph")
"""


@pytest.mark.slow
def test_prepared_targets_trace_as_one_graph():
    # In a process of its own: the run-time type checks of the test run are what a tracer cannot follow.
    root = Path(__file__).parents[2]

    result = subprocess.run([sys.executable, "-c", TRACE], cwd=root, capture_output=True, text=True, check=False)

    assert result.stdout.strip() == "one graph", result.stderr


def test_total_is_the_scaled_sum_of_the_items():
    preds, targets = random_predictions(generator(2), 3), random_targets(generator(2), (4, 0, 6))

    scaled, _ = run(preds, targets)
    plain, _ = run(preds, targets, criterion(batch_scale=False))

    parts = [value for name, value in plain.items() if name != "total"]
    assert list(plain) == ["main/box", "main/cls", "main/dfl", "total"]
    assert plain["total"] == pytest.approx(sum(parts), rel=1e-12)
    assert scaled["total"] == pytest.approx(3 * plain["total"], rel=1e-12)


def test_no_objects_are_pure_background():
    preds = random_predictions(generator(3), 2)

    values, seen = run(preds, make_targets([], []))

    background = torch.nn.functional.softplus(preds.logits.detach(), threshold=100).sum().item()
    assert values == pytest.approx({"main/box": 0, "main/cls": 0.5 * background, "main/dfl": 0, "total": background})
    logits, raw = gradients(seen)
    assert torch.allclose(logits, preds.logits.detach().sigmoid())
    assert raw.eq(0).all()


def test_order_of_images_does_not_matter():
    preds, targets = random_predictions(generator(4), 4), random_targets(generator(4), (5, 0, 9, 2))
    order = torch.tensor([2, 0, 3, 1])
    moved = Targets(targets.labels[order], targets.boxes[order], targets.valid[order])
    there = dataclasses.replace(preds, logits=preds.logits[order], box_raw=preds.box_raw[order])

    (values, first), (again, second) = run(preds, targets), run(there, moved)

    assert again == pytest.approx(values, rel=1e-12)
    for one, other in zip(gradients(first), gradients(second), strict=True):
        assert torch.allclose(one[order], other, rtol=1e-10, atol=1e-14)


def test_order_of_slots_and_gaps_between_them_do_not_matter():
    preds, targets = random_predictions(generator(5), 2), random_targets(generator(5), (6, 3))
    order = torch.tensor([6, 2, 5, 0, 4, 1, 3])  # slot 6 is unused
    moved = Targets(targets.labels[:, order], targets.boxes[:, order], targets.valid[:, order])

    (values, first), (again, second) = run(preds, targets), run(preds, moved)

    assert again == pytest.approx(values, rel=1e-12)
    for one, other in zip(gradients(first), gradients(second), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def test_more_padding_changes_nothing():
    preds, targets = random_predictions(generator(6), 2), random_targets(generator(6), (6, 3))
    grown = Targets(
        torch.nn.functional.pad(targets.labels, (0, 20)),
        torch.nn.functional.pad(targets.boxes, (0, 0, 0, 20)),
        torch.nn.functional.pad(targets.valid, (0, 20)),
    )

    (values, first), (again, second) = run(preds, targets), run(preds, grown)

    assert again == values
    for one, other in zip(gradients(first), gradients(second), strict=True):
        assert torch.equal(one, other)


def test_an_unprepared_batch_gives_the_same_loss():
    preds, targets = random_predictions(generator(7), 2), random_targets(generator(7), (6, 3))

    values, _ = run(preds, targets)

    assert criterion()(Outputs(preds), targets).scalars() == values


@pytest.mark.parametrize("extreme", [math.inf, -math.inf, 1e300])
def test_one_extreme_logit_leaves_other_gradients_finite(extreme):
    # The extreme score sits on a cell outside every object, so no pair owns it.
    preds, targets = random_predictions(generator(8), 2), make_targets([(0, 0, 40, 40)], [(4, 4, 30, 30)])
    logits, raw = preds.logits.detach().clone(), preds.box_raw.detach().clone()
    logits[0, 95, 1], raw[0, 95, 3] = extreme, extreme  # the last cell of the finest level, at (92, 60) px

    _, (seen, calm) = None, (run(leaves(preds, logits=logits, box_raw=raw), targets)[1], run(preds, targets)[1])

    for one, other in zip(gradients(seen), gradients(calm), strict=True):
        one, other = one.clone(), other.clone()
        one[0, 95], other[0, 95] = 0, 0
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-15)
    assert gradients(seen)[0][0, 95, 1].item() == (2 * 0.5 / 1 if extreme > 0 else 0) / normalizer(preds, targets)


def normalizer(preds: Predictions, targets: Targets) -> float:
    return kernels.fast(TaskAligned())(preds, targets).normalizer.item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_are_computed_in_float32_even_under_autocast(dtype):
    full, targets = random_predictions(generator(9), 2, dtype=torch.float32), random_targets(generator(9), (5, 2))
    half = leaves(full, logits=full.logits.to(dtype), box_raw=full.box_raw.to(dtype))
    rounded = leaves(full, logits=half.logits.float(), box_raw=half.box_raw.float())
    rules = criterion()

    with torch.autocast("cpu", torch.bfloat16):
        inside = rules(Outputs(half), targets)
    inside.total.backward()

    assert inside.total.dtype == torch.float32
    assert inside.scalars() == rules(Outputs(rounded), targets).scalars()
    assert half.logits.grad.dtype == half.box_raw.grad.dtype == dtype


def test_float64_stays_float64_with_float32_labels():
    preds = random_predictions(generator(10), 2)
    targets = random_targets(generator(10), (5, 2), dtype=torch.float32)

    loss = criterion()(Outputs(preds), targets)

    assert loss.total.dtype == torch.float64
    assert {item.contributions.dtype for item in loss.items} == {torch.float64}


def test_roles_and_layers_have_their_own_rule_and_name():
    preds, targets = random_predictions(generator(11), 2), random_targets(generator(11), (5, 2))
    one = Rule(assigner=TaskAligned(topk=1), terms={"cls": Weighted(term=SoftScores(), gain=2.0)})
    rules = Criterion(rules={**criterion().rules, "one2one": one})
    outputs = Outputs(preds, (dataclasses.replace(preds, role="one2one"), dataclasses.replace(preds, layer=2)))

    loss = rules(outputs, rules.prepare(targets, preds.grid))

    names = ["one2one/cls", "main2/box", "main2/cls", "main2/dfl", "main/box", "main/cls", "main/dfl"]
    assert [item.name for item in loss.items] == names
    assert set(loss.assignments) == {"one2one", "main2", "main"}
    values = loss.scalars()
    assert values["main2/box"] == values["main/box"]
    alone = Criterion(rules={"one2one": one})(Outputs(dataclasses.replace(preds, role="one2one")), targets).scalars()
    assert values["one2one/cls"] == alone["one2one/cls"]


def test_a_callable_of_ones_own_is_a_term_and_an_assigner():
    preds, targets = random_predictions(generator(12), 1), random_targets(generator(12), (4,))

    def assign(preds: Predictions, targets: Targets) -> Assignment:
        return TaskAligned(topk=3)(preds, targets)

    def count(preds: Predictions, targets: Targets, pairs: Assignment) -> torch.Tensor:
        return pairs.valid.double() + 0 * preds.raw_at(pairs).sum(dim=1)

    rule = Rule(assigner=assign, terms={"count": Weighted(term=count, gain=1.0)})

    loss = Criterion(rules={"main": rule}, batch_scale=False)(Outputs(preds), targets)

    assert loss.total.item() == TaskAligned(topk=3)(preds, targets).valid.sum().item()


def test_terms_share_one_gather_of_the_matched_rows():
    preds, seen = random_predictions(generator(13), 1), []

    def look(preds: Predictions, targets: Targets, pairs: Assignment) -> torch.Tensor:
        seen.append(preds.raw_at(pairs))
        return pairs.weight

    rule = Rule(assigner=TaskAligned(), terms={name: Weighted(term=look) for name in ("a", "b")})
    Criterion(rules={"main": rule})(Outputs(preds), random_targets(generator(13), (3,)))

    assert seen[0] is seen[1]


@pytest.mark.parametrize(("batch_scale", "expected"), [(True, 3 * 8.0), (False, 3.0)])
def test_scale_counts_the_images_and_the_ranks(monkeypatch, batch_scale, expected):
    # As if two more ranks held 3 images each; the real collective is tested in test_criterion_ranks.py.
    monkeypatch.setattr("boxwright.losses.criterion.world_size", lambda: 3)
    monkeypatch.setattr("boxwright.losses.criterion.sum_over_ranks", lambda tensor: tensor + 6)
    preds = random_predictions(generator(0), 2)

    loss = criterion(batch_scale=batch_scale)(Outputs(preds), make_targets([], []))

    assert float(loss.scale) == expected
    assert loss.total.item() == pytest.approx(expected * loss.components["main/cls"].item(), rel=1e-6)


def test_an_unknown_role_is_named():
    preds = dataclasses.replace(random_predictions(generator(0), 1), role="decoder")

    with pytest.raises(ConfigError, match="no rule for predictions of role 'decoder'; rules: main"):
        criterion()(Outputs(preds), make_targets([]))


def test_targets_prepared_for_another_image_size_are_refused():
    rules, preds = criterion(), random_predictions(generator(0), 1)
    targets = rules.prepare(make_targets([(0, 0, 9, 9)]), grid_for_image((64, 64), STRIDES))

    with pytest.raises(
        ShapeError, match=r"Targets.candidates: .*\(\(8, 12\), .*got \(\(8, 8\).*call .Criterion.prepare"
    ):
        rules(Outputs(preds), targets)


def test_targets_changed_after_prepare_are_refused():
    rules, preds = criterion(), random_predictions(generator(0), 1)
    old = rules.prepare(make_targets([(0, 0, 9, 9)]), GRID).candidates
    targets = make_targets([(0, 0, 9, 9)], slots=4).with_prepared(candidates=old)

    with pytest.raises(ShapeError, match=r"layout for \(B, M\) = \(1, 4\), got \(1, 1\)"):
        rules(Outputs(preds), targets)


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ShapeError, match="expected 2 images as in the predictions, got 1"):
        criterion()(Outputs(random_predictions(generator(0), 2)), make_targets([]))


def test_a_class_that_the_predictions_lack_is_refused_without_a_sync():
    rules, preds = criterion(), random_predictions(generator(0), 1)
    targets = rules.prepare(make_targets([(0, 0, 9, 9)], labels=[[CLASSES]]), GRID)

    with pytest.raises(ShapeError, match=f"class indices below {CLASSES}, .* got {CLASSES}"):
        rules(Outputs(preds), targets)


def test_topk_of_nothing_is_refused_in_python_too():
    with pytest.raises(ConfigError, match=r"TaskAligned.topk: expected at least 1, got 0"):
        TaskAligned(topk=0)


def test_a_callable_cannot_be_written_as_yaml():
    rule = Rule(assigner=TaskAligned(), terms={"own": Weighted(term=lambda preds, targets, pairs: pairs.weight)})

    with pytest.raises(ConfigError, match="only built-in components"):
        to_yaml(Criterion(rules={"main": rule}))


def test_survives_yaml_and_takes_checked_settings():
    rules = criterion(TaskAligned(topk=7, validity="sum"), batch_scale=False)

    assert from_yaml(Criterion, to_yaml(rules)) == rules
    changed = override(rules, ["rules.main.assigner.topk=13", "rules.main.terms.box.term.overlap=giou"])
    assert changed.rules["main"].assigner == TaskAligned(topk=13, validity="sum")
    assert changed.rules["main"].terms["box"].term == BoxOverlap(overlap="giou")
    swapped = override(rules, ["rules.main.terms.box.term.kind=soft_scores"])
    assert swapped.rules["main"].terms["box"].term == SoftScores()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rules.main.assigner.topk=ten", r"rules\.main\.assigner\.topk: expected .*integer.*'ten'"),
        ("rules.main.assigner.topk=0", r"rules\.main\.assigner\.topk: expected .* 1, got 0"),
        ("rules.main.terms.box.term.overlap=uoi", r"rules\.main\.terms\.box\.term\.overlap: expected 'iou'"),
        ("rules.main.terms.box.term.overlapp=iou", "did you mean 'overlap'"),
        ("rules.main.terms.box.term.kind=box", "rules.main.terms.box.term.kind"),
    ],
)
def test_a_wrong_setting_names_its_path(setting, message):
    with pytest.raises(ConfigError, match=message):
        override(criterion(), [setting])
