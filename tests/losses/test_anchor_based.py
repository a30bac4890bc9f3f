# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The YOLOv5 criteria as a whole."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies
from tests.golden.common import targets_from_rows
from tests.losses.anchor_scenes import PRIORS, by_level, joined, pyramid, random_maps
from tests.losses.scenes import SIZE, generator, make_targets, random_targets
from tests.reference import anchor_based as reference
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from boxwright.config import from_yaml, override, to_yaml
from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.criterion import Criterion
from boxwright.losses.recipes import yolov5_detect, yolov5_exclusive, yolov5_gains, yolov5_segment
from boxwright.losses.terms.objectness import AutoBalance, published_balance
from boxwright.structures import Grid, Outputs, Targets

RECIPES = {"detect": yolov5_detect, "exclusive": yolov5_exclusive}


def run(
    criterion: Criterion, maps: list[Tensor], targets: Targets, grid: Grid, *, single: bool = True, **options: Any
) -> tuple[dict[str, float], list[Tensor]]:
    """Values by term, and the gradient of every map."""
    fresh = [of.detach().clone().requires_grad_() for of in maps]
    outputs = by_level(fresh, grid, **options) if single else joined(fresh, grid, **options)
    loss = criterion(outputs, criterion.prepare(targets, grid))
    loss.total.backward()
    values: dict[str, float] = {"total": loss.total.item()}
    for name, value in loss.components.items():
        term = name.split("/")[1]
        values[term] = values.get(term, 0.0) + value.item()
    return values, [of.grad for of in fresh]


def close(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-10) -> bool:
    return all(torch.allclose(a, b, rtol=tolerance, atol=1e-15) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_equals_the_loops_for_one_to_five_levels(recipe, levels, smoothing):
    grid, targets = pyramid(levels), random_targets(generator(levels), (3, 2))
    maps = random_maps(generator(0), 2, grid)
    exclusive = recipe == "exclusive"

    got, _ = run(RECIPES[recipe](smoothing=smoothing), maps, targets, grid, exclusive=exclusive)

    boxes = [
        [tuple(box) if used else None for box, used in zip(*of, strict=True)]
        for of in zip(targets.boxes.tolist(), targets.valid.tolist(), strict=True)
    ]
    expected = reference.loss(
        [of.tolist() for of in maps],
        boxes,
        targets.labels.tolist(),
        PRIORS[:levels],
        grid.level_strides,
        published_balance(levels),
        exclusive=exclusive,
        smoothing=smoothing,
    )
    gains = {"box": 0.05, "obj": 1.0, "cls": 0.5}
    parts = {name: gains[name] * value for name, value in expected.items()}
    assert got == pytest.approx({**parts, "total": 2 * sum(parts.values())}, rel=1e-9)


@pytest.mark.parametrize("recipe", RECIPES)
def test_all_forms_of_predictions_give_one_loss(recipe):
    grid, targets = pyramid(), random_targets(generator(2), (6, 0, 4))
    maps, criterion, exclusive = random_maps(generator(0), 3, grid), RECIPES[recipe](), recipe == "exclusive"
    values, gradients = run(criterion, maps, targets, grid, exclusive=exclusive)

    by_cell = pyramid(prior_first=False)
    for options in ({"table": False}, {"single": False}, {"single": False, "table": False}):
        again, theirs = run(criterion, maps, targets, grid, exclusive=exclusive, **options)
        assert again == pytest.approx(values, rel=1e-12)
        assert close(theirs, gradients)
    again, theirs = run(criterion, maps, targets, by_cell, single=False, exclusive=exclusive)
    assert again == pytest.approx(values, rel=1e-12)
    assert close(theirs, gradients)


@pytest.mark.parametrize("layout", ["channels last", "part of a wider map"])
def test_tables_that_are_strided_views(layout):
    grid, targets = pyramid(), random_targets(generator(2), (6, 3))
    maps = random_maps(generator(0), 2, grid)
    values, gradients = run(yolov5_detect(), maps, targets, grid)
    leaves = []
    for of in maps:
        if layout == "channels last":
            leaves.append(of.detach().movedim(-1, 2).contiguous().requires_grad_())
        else:
            leaves.append(torch.nn.functional.pad(of.detach(), (2, 3)).requires_grad_())
    views = [x.movedim(2, -1) if layout == "channels last" else x[..., 2:-3] for x in leaves]
    criterion = yolov5_detect()

    loss = criterion(by_level(views, grid), criterion.prepare(targets, grid))
    loss.total.backward()

    assert loss.total.item() == pytest.approx(values["total"], rel=1e-12)
    back = [x.grad.movedim(2, -1) if layout == "channels last" else x.grad[..., 2:-3] for x in leaves]
    assert close(back, gradients)


def test_unprepared_targets_give_the_same_loss():
    grid, targets = pyramid(), random_targets(generator(2), (6, 3))
    maps, criterion = random_maps(generator(0), 2, grid), yolov5_detect()
    values, _ = run(criterion, maps, targets, grid)

    assert criterion(by_level(maps, grid), targets).total.item() == pytest.approx(values["total"], rel=1e-12)


def test_rows_of_images_may_be_interleaved():
    rows = [
        [1, 0, 0.3, 0.4, 0.2, 0.3],
        [0, 2, 0.5, 0.5, 0.4, 0.5],
        [1, 1, 0.7, 0.6, 0.3, 0.2],
        [0, 1, 0.2, 0.8, 0.3, 0.3],
    ]
    grid, criterion = pyramid(), yolov5_detect(duplicates="last")
    maps = random_maps(generator(0), 2, grid)

    def values(order: list[int]) -> dict[str, float]:
        table = torch.tensor([rows[i] for i in order], dtype=torch.float64).numpy()
        flat = {"batch_idx": table[:, 0].astype(int), "cls": table[:, 1].astype(int), "bboxes": table[:, 2:]}
        return run(criterion, maps, targets_from_rows(flat, 2, SIZE, torch.float64), grid)[0]

    assert values([0, 1, 2, 3]) == pytest.approx(values([1, 3, 0, 2]), rel=1e-12)


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_objects_are_objectness_only(recipe):
    grid = pyramid()
    maps = random_maps(generator(0), 2, grid)

    values, gradients = run(RECIPES[recipe](), maps, make_targets([], []), grid, exclusive=recipe == "exclusive")

    assert (values["box"], values["cls"]) == (0, 0)
    assert values["total"] == pytest.approx(2 * values["obj"], rel=1e-12)
    for level, (of, gradient) in enumerate(zip(maps, gradients, strict=True)):
        share = published_balance(3)[level] / of[..., 4].numel() * 2
        assert torch.allclose(gradient[..., 4], of[..., 4].detach().sigmoid() * share, rtol=1e-12)
        gradient[..., 4] = 0
        assert gradient.eq(0).all()


def test_one_class_has_no_class_term():
    grid, targets = pyramid(), random_targets(generator(1), (4, 2))
    targets = dataclasses.replace(targets, labels=targets.labels * 0)

    values, gradients = run(yolov5_detect(), random_maps(generator(0), 2, grid, classes=1), targets, grid)

    assert values["cls"] == 0
    assert values["box"] > 0
    assert all(gradient[..., 5].eq(0).all() for gradient in gradients)


def test_object_weights_multiply_all_contributions_of_an_object():
    grid, targets = pyramid(), make_targets([(10, 10, 40, 40), (50, 20, 90, 60)], labels=[[1, 2]])
    maps, criterion = random_maps(generator(0), 1, grid), yolov5_detect()
    alone = dataclasses.replace(targets, valid=torch.tensor([[True, False]]))
    weighted = dataclasses.replace(targets, weights=torch.tensor([[1.0, 0.0]], dtype=torch.float64))

    (_, some), (_, only) = (run(criterion, maps, of, grid) for of in (weighted, alone))

    # Divisors do not change, so gradients of the kept object's rows shrink by the share of its claims.
    for ours, theirs in zip(some, only, strict=True):
        touched = theirs[..., :4].ne(0).any(dim=-1)
        assert torch.equal(ours[..., :4].ne(0).any(dim=-1), touched)


# -- the balance that adapts ---------------------------------------------------------------------------------------


def adaptive(**options: Any) -> Criterion:
    return yolov5_detect(balance=AutoBalance(**options))


@pytest.mark.parametrize("single", [True, False])
def test_the_balance_follows_the_loss(single):
    grid, targets = pyramid(), random_targets(generator(1), (4, 2))
    maps, criterion = random_maps(generator(0), 2, grid), adaptive()
    unit, _ = run(yolov5_detect(balance=(1.0, 1.0, 1.0)), maps, targets, grid, single=single)
    losses = []
    for level in range(3):
        weights = tuple(float(level == other) for other in range(3))
        losses.append(run(yolov5_detect(balance=weights), maps, targets, grid, single=single)[0]["obj"])

    first, _ = run(criterion, maps, targets, grid, single=single)
    second, _ = run(criterion, maps, targets, grid, single=single)

    balance = [4.0, 1.0, 0.4]
    for seen in (first, second):
        assert seen["obj"] == pytest.approx(sum(b * x for b, x in zip(balance, losses, strict=True)), rel=1e-12)
        balance = [0.9999 * b + 0.0001 / x for b, x in zip(balance, losses, strict=True)]
        balance = [b / balance[1] for b in balance]
    assert criterion.state_dict() == {"main/obj": pytest.approx(balance, rel=1e-12)}
    assert sum(losses) == pytest.approx(unit["obj"], rel=1e-12)


def test_evaluation_leaves_the_balance_alone():
    grid, targets = pyramid(), random_targets(generator(1), (4, 2))
    maps = random_maps(generator(0), 2, grid)
    ours, published = adaptive(), adaptive(in_eval=True)

    for criterion in (ours, published):
        with torch.no_grad():
            criterion(by_level(maps, grid), targets)

    assert ours.state_dict() == {"main/obj": [4.0, 1.0, 0.4]}
    assert published.state_dict() != ours.state_dict()


def test_the_balance_survives_a_restart():
    grid, targets = pyramid(), random_targets(generator(1), (4, 2))
    maps, criterion = random_maps(generator(0), 2, grid), adaptive()
    run(criterion, maps, targets, grid)
    again = from_yaml(Criterion, to_yaml(criterion))

    assert again == criterion
    assert again.state_dict() == {}
    again.load_state_dict(criterion.state_dict())

    assert run(again, maps, targets, grid)[0] == run(criterion, maps, targets, grid)[0]
    assert again.state_dict() == criterion.state_dict()


def test_a_criterion_without_memory_has_an_empty_state():
    grid, criterion = pyramid(), yolov5_detect()
    run(criterion, random_maps(generator(0), 1, grid), make_targets([]), grid)

    assert criterion.state_dict() == {}


@pytest.mark.parametrize("state", [{"main/obj": [1.0, -1.0]}, {"main/obj": "text"}, {"main/obj": []}])
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises(ConfigError, match="criterion state of main/obj: expected a list of positive numbers"):
        adaptive().load_state_dict(state)


def test_a_state_of_another_pyramid_is_refused():
    criterion, grid = adaptive(), pyramid()
    criterion.load_state_dict({"main/obj": [1.0, 2.0]})

    with pytest.raises(ConfigError, match="expected 3 levels, got 2"):
        criterion(by_level(random_maps(generator(0), 1, grid), grid), make_targets([]))


# -- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [yolov5_detect, yolov5_exclusive, yolov5_segment, adaptive])
def test_recipes_survive_yaml_and_take_settings(build):
    criterion = build()

    assert from_yaml(Criterion, to_yaml(criterion)) == criterion
    changed = override(criterion, ["rules.main.assigner.ratio=3", "rules.main.terms.obj.term.balance=[1, 2]"])
    assert changed.rules["main"].terms["obj"].term.balance == (1.0, 2.0)


def test_gains_for_other_models():
    assert yolov5_gains(80) == {"box": 0.05, "obj": 1.0, "cls": 0.5}
    got = yolov5_gains(classes=20, image_size=1280, levels=4, gains={"obj": 0.7, "seg": 3.0})
    assert got == pytest.approx({"box": 0.05 * 0.75, "obj": 0.7 * 4 * 0.75, "cls": 0.5 * 0.25 * 0.75, "seg": 3.0})
    assert yolov5_detect(gains=got).rules["main"].terms["obj"].gain == got["obj"]


def test_a_table_of_other_columns_is_refused():
    grid = pyramid()
    outputs = joined(random_maps(generator(0), 1, grid), grid)
    preds = dataclasses.replace(outputs.final, table=outputs.final.table[..., :-1])

    with pytest.raises(ShapeError, match=r"Predictions.table: expected 8 columns .*got 7"):
        yolov5_detect()(Outputs(preds), make_targets([]))


# -- properties ----------------------------------------------------------------------------------------------------

scenes = strategies.builds(
    lambda seed, counts, scale: (seed, counts, scale),
    strategies.integers(0, 2**31),
    strategies.lists(strategies.integers(0, 9), min_size=2, max_size=4),
    strategies.sampled_from((1.0, 30.0)),
)
slowly = hypothesis.settings(deadline=None, max_examples=15, derandomize=True)


def drawn(scene: tuple[int, list[int], float]) -> tuple[list[Tensor], Targets, Grid]:
    seed, counts, scale = scene
    source, grid = generator(seed), pyramid()
    maps = [(of.detach() * scale).requires_grad_() for of in random_maps(source, len(counts), grid)]
    return maps, random_targets(source, counts), grid


@pytest.mark.parametrize("recipe", RECIPES)
@slowly
@hypothesis.given(scene=scenes, data=strategies.data())
def test_orders_and_padding_do_not_matter(recipe, scene, data):
    maps, targets, grid = drawn(scene)
    images = torch.tensor(data.draw(strategies.permutations(range(len(targets.labels)))))
    slots = torch.tensor(data.draw(strategies.permutations(range(targets.labels.shape[1]))))
    padding = data.draw(strategies.integers(0, 5))
    criterion, exclusive = RECIPES[recipe](), recipe == "exclusive"
    moved = Targets(
        torch.nn.functional.pad(targets.labels[images][:, slots], (0, padding)),
        torch.nn.functional.pad(targets.boxes[images][:, slots], (0, 0, 0, padding)),
        torch.nn.functional.pad(targets.valid[images][:, slots], (0, padding)),
    )

    values, gradients = run(criterion, maps, targets, grid, exclusive=exclusive)
    again, theirs = run(criterion, [of[images] for of in maps], moved, grid, exclusive=exclusive)

    assert again == pytest.approx(values, rel=1e-9)
    assert close(theirs, [of[images] for of in gradients], 1e-8)


@pytest.mark.parametrize("recipe", RECIPES)
@slowly
@hypothesis.given(scene=scenes)
def test_a_batch_may_be_split_in_two(recipe, scene):
    maps, targets, grid = drawn(scene)
    criterion, exclusive = RECIPES[recipe](), recipe == "exclusive"
    halves = [
        (
            [of[part] for of in maps],
            Targets(targets.labels[part], targets.boxes[part], targets.valid[part]),
        )
        for part in (slice(0, 1), slice(1, None))
    ]

    values, _ = run(criterion, maps, targets, grid, exclusive=exclusive)
    parts = [run(criterion, *half, grid, exclusive=exclusive)[0] for half in halves]

    # Objectness is a mean over candidates, so it goes by images; box and class terms are means over a level's claims.
    share = [len(half[1].labels) / len(targets.labels) for half in halves]
    assert sum(s * p["obj"] for s, p in zip(share, parts, strict=True)) == pytest.approx(values["obj"], rel=1e-9)
    rows = [criterion.prepare(half[1], grid).prior_matches.level_rows for half in halves]
    by_level_parts = [_by_level(criterion, *half, grid, exclusive) for half in halves]
    for name in ("box", "cls"):
        expected = 0.0
        for level in range(3):
            count = sum(of[level] for of in rows)
            expected += sum(of[level] * p[name][level] for of, p in zip(rows, by_level_parts, strict=True)) / max(
                count, 1
            )
        assert expected == pytest.approx(values[name], rel=1e-9)


def _by_level(
    criterion: Criterion, maps: list[Tensor], targets: Targets, grid: Grid, exclusive: bool
) -> dict[str, list[float]]:
    loss = criterion(by_level(maps, grid, exclusive=exclusive), criterion.prepare(targets, grid)).components
    return {name: [loss[f"main{level or ''}/{name}"].item() for level in range(3)] for name in ("box", "cls")}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [1e4, -1e4])
@pytest.mark.parametrize("recipe", RECIPES)
def test_extreme_outputs_and_odd_boxes_stay_finite(recipe, value, dtype):
    grid = pyramid()
    odd = make_targets(
        [(10, 10, 10, 40), (-50, -50, -20, -20), (-20, 10, 30, 50), (500, 500, 520, 530), *[(8, 8, 24, 24)] * 40], []
    )
    maps = [torch.full_like(of, value, dtype=dtype).requires_grad_() for of in random_maps(generator(0), 2, grid)]
    criterion = RECIPES[recipe]()

    loss = criterion(by_level(maps, grid, exclusive=recipe == "exclusive"), criterion.prepare(odd, grid))
    loss.total.backward()

    assert loss.total.isfinite()
    assert loss.total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert all(of.grad.isfinite().all() and of.grad.dtype == dtype for of in maps)


# -- no sync, one graph --------------------------------------------------------------------------------------------


def faked(value: Any, mode: FakeTensorMode) -> Any:
    if isinstance(value, torch.Tensor):
        return mode.from_tensor(value)
    if isinstance(value, tuple):
        return tuple(faked(part, mode) for part in value)
    if isinstance(value, dict):
        return {name: faked(part, mode) for name, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: faked(part, mode) for name, part in parts.items()})
    return value


@pytest.mark.parametrize("counts", [(5, 0, 9), (0, 0)])
@pytest.mark.parametrize("name", ["detect", "exclusive", "adaptive", "focal", "weighted"])
def test_prepared_targets_need_no_sync(counts, name):
    grid = pyramid()
    criterion = {
        "detect": yolov5_detect,
        "exclusive": yolov5_exclusive,
        "adaptive": adaptive,
        "focal": lambda: yolov5_detect(focal_gamma=1.5, duplicates="last"),
        "weighted": yolov5_detect,
    }[name]()
    targets = random_targets(generator(0), counts, dtype=torch.float32)
    if name == "weighted":
        targets = dataclasses.replace(
            targets, weights=torch.ones(targets.labels.shape), ignore=torch.zeros(len(counts), 2, 4)
        )
    targets = criterion.prepare(targets, grid)
    maps = random_maps(generator(0), len(counts), grid, dtype=torch.float32)

    with FakeTensorMode() as mode:
        leaves = [mode.from_tensor(of) for of in maps]
        fake = by_level(leaves, grid, exclusive=name == "exclusive")
        loss = criterion(fake, faked(targets, mode))
        loss.total.backward()

        assert loss.total.shape == ()
        assert [of.grad.shape for of in leaves] == [of.shape for of in maps]


TRACE = """
import torch
from boxwright.losses.recipes import yolov5_detect, yolov5_exclusive
from tests.losses.anchor_scenes import by_level, pyramid, random_maps
from tests.losses.scenes import generator, random_targets

grid, source = pyramid(), generator(1)
maps = random_maps(source, 2, grid, dtype=torch.float64)
for rules, exclusive in ((yolov5_detect(), False), (yolov5_exclusive(), True)):
    targets = rules.prepare(random_targets(source, (4, 7), dtype=torch.float64), grid)

    def total(*maps):
        return rules(by_level(list(maps), grid, exclusive=exclusive), targets).total

    expected = total(*maps)
    wanted = torch.autograd.grad(expected, maps)
    got = torch.compile(total, fullgraph=True, backend="eager")(*maps)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(got, maps), wanted, rtol=1e-12, atol=1e-12)
print("one graph")
"""


@pytest.mark.slow
def test_prepared_targets_trace_as_one_graph():
    root = Path(__file__).parents[2]

    result = subprocess.run([sys.executable, "-c", TRACE], cwd=root, capture_output=True, text=True, check=False)

    assert result.stdout.strip() == "one graph", result.stderr
