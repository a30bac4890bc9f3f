# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.losses.query_scenes import fresh, labelled_targets, layers, leaves_of, part_of, query_predictions
from tests.losses.scenes import SIZE, generator, make_targets
from tests.losses.test_criterion import faked
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.config import from_yaml, override, to_yaml
from boxwright.losses.assign import Hungarian, Known
from boxwright.losses.balance import InverseFrequency
from boxwright.losses.criterion import Criterion
from boxwright.losses.query_recipes import rtdetr, rtdetr_modern, set_prediction_components
from boxwright.losses.terms import Attribute
from boxwright.ops.denoising import Denoising
from boxwright.structures import Outputs, Predictions, Targets

ATTRIBUTES = (Attribute(name="loc"), Attribute(name="action"))
DENOISING = Denoising(budget=12)
RECIPES = {
    "varifocal": rtdetr(attributes=ATTRIBUTES),
    "focal": rtdetr(class_term="focal", attributes=ATTRIBUTES),
    "bce": rtdetr(class_term="bce", attributes=ATTRIBUTES),
    "modern": rtdetr_modern(attributes=ATTRIBUTES),
}


def scene(seed: int, counts: tuple[int, ...], **options: Any) -> tuple[Outputs, Targets]:
    source = generator(seed)
    targets = labelled_targets(source, counts)
    return layers(source, targets, decoder=2, denoising=DENOISING, attributes=True, **options), targets


def run(rules: Criterion, outputs: Outputs, targets: Targets) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Published values with the total, and all gradients."""
    outputs = fresh(outputs)
    loss = rules(outputs, rules.prepare(targets, None))
    loss.total.backward()
    values = {name: value.item() for name, value in set_prediction_components(loss).items()}
    return values | {"total": loss.total.item()}, [leaf.grad for leaf in leaves_of(outputs)]


def test_every_published_name_is_there_and_they_add_up():
    outputs, targets = scene(0, (3, 2))

    values, _ = run(RECIPES["varifocal"], outputs, targets)

    total = values.pop("total")
    names = ("class", "bbox", "giou", "loc", "action")
    assert list(values) == [f"{name}{suffix}" for suffix in ("", "_aux", "_dn", "_aux_dn") for name in names]
    assert all(value > 0 for value in values.values())
    assert total == pytest.approx(sum(values.values()), rel=1e-12)


def test_layers_without_denoising_give_all_twelve_names_too():
    source = generator(1)
    targets = labelled_targets(source, (3, 2))
    rules = rtdetr()

    values = set_prediction_components(rules(layers(source, targets, decoder=1), targets))

    assert len(values) == 12
    assert {name for name, value in values.items() if value == 0} == {n for n in values if n.endswith("_dn")}


def test_each_layer_lands_in_its_own_sum():
    outputs, targets = scene(2, (3, 2))
    rules = RECIPES["modern"]

    loss = rules(outputs, targets)
    sums, parts = set_prediction_components(loss), loss.components

    for name in ("class", "bbox", "giou", "loc", "action"):
        assert sums[name] == parts[f"decoder1/{name}"]
        assert sums[f"{name}_dn"] == parts[f"denoise1/{name}"]
        aux = [parts[f"{label}/{name}"].item() for label in ("encoder", "decoder")]
        assert sums[f"{name}_aux"].item() == pytest.approx(sum(aux), rel=1e-12)
        dn = [parts[f"{label}/{name}"].item() for label in ("denoise",)]
        assert sums[f"{name}_aux_dn"].item() == pytest.approx(sum(dn), rel=1e-12)


def test_more_than_ten_denoising_layers_are_ordered_by_number():
    source = generator(3)
    targets = labelled_targets(source, (1,))
    outputs = layers(source, targets, decoder=12, denoising=DENOISING)

    loss = rtdetr()(outputs, targets)

    assert set_prediction_components(loss)["class_dn"] == loss.components["denoise11/class"]


def test_one_copy_to_the_host_for_a_whole_step(monkeypatch):
    outputs, targets = scene(4, (3, 2))
    rules, copies, cpu = RECIPES["varifocal"], [], torch.Tensor.cpu
    prepared = rules.prepare(targets, None)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: copies.append(tensor.shape) or cpu(tensor))

    rules(outputs, prepared)

    assert len(copies) == 1


def test_rules_with_their_own_matching_are_asked_apart():
    outputs, targets = scene(5, (4, 3))
    base = rtdetr()
    other = dataclasses.replace(base.rules["encoder"], assigner=Hungarian(l1_gain=0.0, giou_gain=0.0))
    rules = dataclasses.replace(base, rules=base.rules | {"encoder": other})

    got = rules(outputs, targets).assignments

    for label, preds in (("encoder", outputs.auxiliary[0]), ("decoder1", outputs.final)):
        expected = rules.rules[preds.role].assigner(preds, targets)
        assert torch.equal(got[label].anchor, expected.anchor)
        assert torch.equal(got[label].target, expected.target)
    assert not torch.equal(got["encoder"].anchor, Hungarian()(outputs.auxiliary[0], targets).anchor)


@pytest.mark.parametrize("name", RECIPES)
def test_no_objects_are_pure_background(name):
    source = generator(6)
    targets = dataclasses.replace(
        make_targets([], []),
        attributes={"loc": torch.zeros(2, 0, dtype=torch.int64), "action": torch.zeros(2, 0, 3, dtype=torch.float64)},
    )
    outputs = layers(source, targets, denoising=DENOISING, attributes=True)

    values, gradients = run(RECIPES[name], outputs, targets)

    z = outputs.final.logits.detach()
    each = torch.nn.functional.softplus(z, threshold=100)
    expected = each.sum() / z.shape[1] if name == "bce" else (0.75 * z.sigmoid() ** 1.5 * each).sum()
    assert values["class"] == pytest.approx(expected.item(), rel=1e-11)
    assert {key for key, value in values.items() if value != 0} == {"class", "class_aux", "total"}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 10_000),
    counts=st.lists(st.integers(0, 12), min_size=2, max_size=4),
    name=st.sampled_from(sorted(RECIPES)),
    data=st.data(),
)
def test_order_of_images_and_slots_and_padding_change_nothing(seed, counts, name, data):
    # Up to 12 objects for 9 queries. Costs of random queries have no ties, so the matching is unique.
    outputs, targets = scene(seed, tuple(counts))
    images = torch.tensor(data.draw(st.permutations(range(len(counts)))))
    width = targets.labels.shape[1] + 2
    slots = torch.tensor(data.draw(st.permutations(range(width))))
    moved = _with_slots(part_of(targets, images), slots)
    there = fresh(outputs, images)
    place = torch.argsort(slots)  # where each slot went
    aux = tuple(_with_targets(preds, place) for preds in there.auxiliary)

    values, gradients = run(RECIPES[name], outputs, targets)
    again, others = run(RECIPES[name], Outputs(there.final, aux), moved)

    assert again == pytest.approx(values, rel=1e-9, abs=1e-12)
    for one, other in zip(gradients, others, strict=True):
        assert torch.allclose(one[images], other, rtol=1e-8, atol=1e-12)


def _with_slots(targets: Targets, slots: torch.Tensor) -> Targets:
    """Padded to as many slots as are named, in their order."""
    more = len(slots) - targets.labels.shape[1]

    def moved(tensor: torch.Tensor, fill: float = 0) -> torch.Tensor:
        padding = tensor.new_full((tensor.shape[0], more, *tensor.shape[2:]), fill)
        return torch.cat((tensor, padding), dim=1)[:, slots]

    attributes = {name: moved(of, -1) for name, of in targets.attributes.items()}
    return Targets(moved(targets.labels), moved(targets.boxes), moved(targets.valid), attributes=attributes)


def _with_targets(preds: Predictions, place: torch.Tensor) -> Predictions:
    if preds.known is None:
        return preds
    return dataclasses.replace(preds, known=dataclasses.replace(preds.known, target=place[preds.known.target]))


@settings(deadline=None, max_examples=6)
@given(
    seed=st.integers(0, 10_000),
    counts=st.tuples(*[st.integers(1, 6)] * 3),
    name=st.sampled_from(["varifocal", "focal"]),
)
def test_two_halves_weighted_by_their_pairs_make_the_whole(seed, counts, name):
    # Class, L1 and GIoU are sums divided by the matched pairs, so halves add up by their numbers of pairs.
    outputs, targets = scene(seed, counts)
    rules = rtdetr(class_term=name)

    whole, gradients = run(rules, outputs, targets)
    halves = [slice(0, 1), slice(1, 3)]
    parts = [run(rules, fresh(outputs, images), part_of(targets, images)) for images in halves]

    queries = outputs.final.logits.shape[1]
    pairs = [sum(min(count, queries) for count in counts[images]) for images in halves]
    made = [sum(counts[images]) for images in halves]
    for key in ("class", "bbox", "giou", "class_dn", "giou_aux_dn"):
        share = made if "dn" in key else pairs
        joined = sum(values[key] * n for (values, _), n in zip(parts, share, strict=True)) / sum(share)
        assert joined == pytest.approx(whole[key], rel=1e-9)
    final = next(index for index, leaf in enumerate(leaves_of(outputs)) if leaf is outputs.final.box_raw)
    joined = torch.cat([grads[final] * n for (_, grads), n in zip(parts, pairs, strict=True)]) / sum(pairs)
    assert torch.allclose(joined, gradients[final], rtol=1e-9, atol=1e-13)


@settings(deadline=None, max_examples=8)
@given(
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    value=st.sampled_from([1e4, -1e4]),
    name=st.sampled_from(sorted(RECIPES)),
    box=st.sampled_from(
        [(10.0, 10.0, 10.0, 40.0), (7.0, 7.0, 7.0, 7.0), (-500.0, -500.0, -400.0, -400.0), (0.0, 0.0, 96.0, 64.0)]
    ),
)
def test_hard_scenes_stay_finite(dtype, value, name, box):
    # A line, a point, a box far outside, and the whole image; every third logit is extreme.
    targets = dataclasses.replace(
        make_targets([box] * 4, [box]),
        attributes={"loc": torch.zeros(2, 4, dtype=torch.int64), "action": torch.ones(2, 4, 3)},
    )
    source = generator(7)
    final = query_predictions(source, 2, 3, dtype=dtype, attributes=True)
    logits = final.logits.detach().clone()
    logits[:, :, 0] = value
    rules = RECIPES[name]
    outputs = fresh(Outputs(dataclasses.replace(final, logits=logits)))

    loss = rules(outputs, targets)
    loss.total.backward()

    assert loss.total.isfinite()
    assert loss.total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert all(leaf.grad.isfinite().all() for leaf in leaves_of(outputs))


def test_ignored_regions_and_weights_of_objects_reach_queries():
    # Query 0 lies in the region, query 1 is matched there and keeps its cost, query 2 lies elsewhere.
    targets = make_targets([(48, 0, 96, 64)])
    boxes = torch.tensor([[[0.75, 0.25, 0.2, 0.2], [0.75, 0.5, 0.5, 1.0], [0.2, 0.5, 0.2, 0.2]]], dtype=torch.float64)
    preds = dataclasses.replace(query_predictions(generator(8), 1, 3), box_raw=boxes)
    ignoring = dataclasses.replace(
        targets,
        ignore=torch.tensor([[[45.0, 0.0, 96.0, 64.0]]], dtype=torch.float64),
        weights=torch.tensor([[3.0]], dtype=torch.float64),
    )

    for name in ("varifocal", "bce"):
        plain, got = (rtdetr(class_term=name)(Outputs(preds), of).items for of in (targets, ignoring))
        by_query = [items[0].contributions[0].tolist() for items in (plain, got)]
        assert by_query[1] == pytest.approx([0.0, 3 * by_query[0][1], by_query[0][2]], rel=1e-12)
        assert [item.contributions.item() for item in got[1:]] == pytest.approx(
            [3 * item.contributions.item() for item in plain[1:]]
        )


def fixed(rules: Criterion) -> Criterion:
    """The same rules for predictions that bring their pairs along: the solver is on the host."""
    known = {role: dataclasses.replace(rule, assigner=Known()) for role, rule in rules.rules.items()}
    return dataclasses.replace(rules, rules=known)


def with_pairs(rules: Criterion, outputs: Outputs, targets: Targets) -> Outputs:
    pairs = rules(outputs, targets).assignments
    given = [dataclasses.replace(preds, known=pairs[preds.label]) for preds in (*outputs.auxiliary, outputs.final)]
    return Outputs(given[-1], tuple(given[:-1]))


@pytest.mark.parametrize("counts", [(5, 0, 9), (0, 0)])
@pytest.mark.parametrize("name", RECIPES)
def test_everything_but_the_matching_needs_no_sync(name, counts):
    rules = RECIPES[name]
    outputs, targets = scene(9, counts)
    outputs = with_pairs(rules, outputs, targets)

    with FakeTensorMode() as mode:
        fake = Outputs(_faked(outputs.final, mode), tuple(_faked(preds, mode) for preds in outputs.auxiliary))
        labels = _faked(targets, mode)
        loss = fixed(rules)(fake, labels)
        loss.total.backward()
        total = sum(set_prediction_components(loss).values())

        assert loss.total.shape == total.shape == ()
        assert all(leaf.grad.shape == leaf.shape for leaf in leaves_of(fake))


def _faked(value: Any, mode: FakeTensorMode) -> Any:
    """As `faked`, with attributes."""
    name = "attribute_logits" if isinstance(value, Predictions) else "attributes"
    attributes = {key: mode.from_tensor(of) for key, of in (getattr(value, name) or {}).items()} or None
    return dataclasses.replace(faked(dataclasses.replace(value, **{name: None}), mode), **{name: attributes})


TRACE = """
import dataclasses, torch
from boxwright.structures import Outputs
from tests.losses.test_query_recipes import RECIPES, fixed, scene, with_pairs

for name in RECIPES:
    outputs, targets = scene(1, (4, 7))
    outputs, rules = with_pairs(RECIPES[name], outputs, targets), fixed(RECIPES[name])
    final = outputs.final

    def total(logits, raw):
        given = dataclasses.replace(final, logits=logits, box_raw=raw)
        return rules(Outputs(given, outputs.auxiliary), targets).total

    expected = total(final.logits, final.box_raw)
    expected.backward()
    wanted = [leaf.grad.clone() for leaf in (final.logits, final.box_raw)]
    final.logits.grad = final.box_raw.grad = None
    torch._dynamo.reset()
    got = torch.compile(total, fullgraph=True, backend="eager")(final.logits, final.box_raw)
    got.backward()
    assert got.item() == expected.item(), (name, got, expected)
    assert torch.equal(final.logits.grad, wanted[0]) and torch.equal(final.box_raw.grad, wanted[1]), name
print("one graph each")
"""


@pytest.mark.slow
def test_everything_but_the_matching_traces_as_one_graph():
    # In a process of its own: the run-time type checks of the test run are what a tracer cannot follow.
    root = Path(__file__).parents[2]

    result = subprocess.run([sys.executable, "-c", TRACE], cwd=root, capture_output=True, text=True, check=False)

    assert result.stdout.strip() == "one graph each", result.stderr


def test_half_precision_is_computed_in_float32_even_under_autocast():
    source = generator(10)
    targets = labelled_targets(source, (3, 2))
    half = query_predictions(source, 2, 9, dtype=torch.bfloat16)
    full = dataclasses.replace(half, logits=half.logits.float(), box_raw=half.box_raw.float())

    with torch.autocast("cpu", torch.bfloat16):
        inside = rtdetr()(Outputs(half), targets)

    assert inside.total.dtype == torch.float32
    assert inside.scalars() == rtdetr()(Outputs(full), targets).scalars()


@pytest.mark.parametrize("name", RECIPES)
def test_survives_yaml_and_takes_checked_settings(name):
    rules = RECIPES[name]

    assert from_yaml(Criterion, to_yaml(rules)) == rules
    changed = override(rules, ["rules.decoder.assigner.class_gain=3", "rules.decoder.terms.giou.term.overlap=ciou"])
    assert changed.rules["decoder"].assigner == Hungarian(class_gain=3.0)


def test_the_two_recipes_differ_in_the_varifocal_constants_only():
    assert rtdetr(alpha=0.25, gamma=1.5) == rtdetr_modern()
    assert rtdetr() != rtdetr_modern()


def test_class_weights_from_counts_reach_the_class_term():
    rules = dataclasses.replace(rtdetr(), class_weights=InverseFrequency()).with_class_counts((100, 50, 10))

    for rule in rules.rules.values():
        assert rule.terms["class"].term.class_weights == pytest.approx((0.533333, 1.066667, 5.333333), rel=1e-5)


def test_size_comes_from_the_predictions():
    # The same normalised queries in a picture of another size: pixel targets must follow it.
    source = generator(11)
    preds, targets = query_predictions(source, 1, 5), labelled_targets(source, (3,))
    wide = dataclasses.replace(preds, input_size=(SIZE[0] * 2, SIZE[1] * 4))
    scaled = dataclasses.replace(targets, boxes=targets.boxes * torch.tensor([4.0, 2.0, 4.0, 2.0]))

    one, other = (rtdetr()(Outputs(p), t).scalars() for p, t in ((preds, targets), (wide, scaled)))

    assert other == pytest.approx(one, rel=1e-12)
