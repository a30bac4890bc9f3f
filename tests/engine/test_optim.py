# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Optimizer groups, the automatic choice and the pace of every iteration, against the golden numbers of the recipe."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from boxwright.engine.optim import (
    OPTIMIZERS,
    Schedule,
    build_optimizer,
    choose_optimizer,
    few_steps_message,
    parameter_groups,
    scaled_decay,
    schedule_factor,
    set_pace,
    warmup_iterations,
)
from boxwright.engine.recipe import TrainConfig
from boxwright.errors import ConfigError

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parents[1] / "golden")
GOLDEN = json.loads((FOLDER / "numeric.json").read_text())


def make_schedule(**changes) -> Schedule:
    usual = {
        "epochs": 100, "batches": 100, "batch": 16, "nominal_batch": 64, "lr0": 0.01, "lrf": 0.01, "shape": "linear",
        "warmup": 300, "warmup_bias_lr": 0.1, "warmup_momentum": 0.8, "momentum": 0.937,
    }  # fmt: skip
    return Schedule(**(usual | changes))


def small_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.mark.parametrize(("shape", "key"), [("linear", "lf_linear"), ("cosine", "lf_cos")])
def test_schedule_factor_equals_golden_numbers(shape, key):
    for epoch, expected in GOLDEN[key].items():
        assert schedule_factor(int(epoch), 100, 0.01, shape) == pytest.approx(expected, rel=1e-12)


def test_warmup_equals_golden_numbers():
    # The golden run has a constant target of 0.01: a schedule whose first epoch lasts for ever.
    schedule = make_schedule(batches=10_000)
    for iteration, expected in GOLDEN["warmup"].items():
        pace = schedule.at(int(iteration))
        assert pace.accumulate == expected["accumulate_b16"]
        assert pace.lr_bias == pytest.approx(expected["lr_bias"], rel=1e-12)
        assert pace.lr == pytest.approx(expected["lr_w"], rel=1e-12)
        assert pace.momentum == pytest.approx(expected["momentum"], rel=1e-12)


def test_after_warmup_all_groups_follow_the_epoch():
    pace = make_schedule().at(301)

    assert pace.lr == pace.lr_bias == pytest.approx(0.01 * schedule_factor(3, 100, 0.01, "linear"))
    assert (pace.accumulate, pace.momentum) == (4, 0.937)


def test_no_warmup_starts_at_full_pace():
    pace = make_schedule(warmup=0).at(0)

    assert (pace.lr, pace.lr_bias, pace.momentum, pace.accumulate) == (0.01, 0.01, 0.937, 4)


@pytest.mark.parametrize(("batch", "accumulates"), [(16, {1, 2, 3, 4}), (64, {1}), (128, {1}), (4, set(range(1, 17)))])
def test_accumulation_ramps_up_to_the_nominal_batch(batch, accumulates):
    schedule = make_schedule(batch=batch)

    assert {schedule.at(i).accumulate for i in range(400)} == accumulates


def test_scaled_decay_equals_golden_numbers():
    for batch, expected in GOLDEN["weight_decay_scale"].items():
        assert scaled_decay(5e-4, int(batch), 64) == pytest.approx(expected, rel=1e-12)


def test_automatic_learning_rate_equals_golden_numbers():
    for num_classes, expected in GOLDEN["auto_lr"].items():
        choice = choose_optimizer(TrainConfig(), images=200, num_classes=int(num_classes))
        assert (choice.name, choice.momentum, choice.warmup_bias_lr) == ("adamw", 0.9, 0.0)
        assert choice.lr0 == expected


def test_auto_takes_sgd_above_ten_thousand_nominal_iterations():
    # ceil(6400 / 64) = 100 iterations an epoch
    short = choose_optimizer(TrainConfig(epochs=100), images=6400, num_classes=80)
    long = choose_optimizer(TrainConfig(epochs=101), images=6400, num_classes=80)

    assert short.name == "adamw"
    assert (long.name, long.lr0, long.momentum, long.warmup_bias_lr) == ("sgd", 0.01, 0.9, 0.0)
    assert "10100 nominal iterations" in long.reason


@pytest.mark.parametrize("optimizer", ["auto", "sgd", "adamw"])
def test_what_the_user_set_is_never_overridden(optimizer):
    config = TrainConfig(optimizer=optimizer, lr0=0.05, momentum=0.5, warmup_bias_lr=0.07)

    choice = choose_optimizer(config, images=100, num_classes=3)

    assert (choice.lr0, choice.momentum, choice.warmup_bias_lr) == (0.05, 0.5, 0.07)
    assert "lr0=0.05 (as set)" in choice.reason


def test_auto_keeps_a_single_set_value_and_fills_the_rest():
    choice = choose_optimizer(TrainConfig(momentum=0.8), images=100, num_classes=3)

    assert (choice.lr0, choice.momentum) == (0.001429, 0.8)
    assert "momentum=0.8 (as set)" in choice.reason
    assert "lr0=0.001429," in choice.reason


@pytest.mark.parametrize(
    ("epochs", "batches", "expected"),
    [(100, 1000, 3000), (40, 13, 100), (10, 13, 65), (1, 1, 0)],  # as told, the floor, capped at half, one iteration
)
def test_warmup_has_a_floor_and_is_capped_at_half_of_the_run(epochs, batches, expected):
    assert warmup_iterations(3.0, batches, epochs, 100) == expected


def test_warmup_can_be_switched_off():
    assert warmup_iterations(0.0, 1000, 100, 100) == 0


def test_warmup_without_a_floor_is_a_number_of_epochs():
    assert warmup_iterations(3.0, 13, 40, 0) == 39


def test_groups_are_biases_then_weights_with_decay_then_norms():
    model = small_model()

    biases, weights, norms = parameter_groups(model, 0.1)

    assert [id(p) for p in biases["params"]] == [id(model[0].bias), id(model[1].bias), id(model[2].bias)]
    assert [id(p) for p in weights["params"]] == [id(model[0].weight), id(model[2].weight)]
    assert [id(p) for p in norms["params"]] == [id(model[1].weight)]
    assert (biases["weight_decay"], weights["weight_decay"], norms["weight_decay"]) == (0.0, 0.1, 0.0)


def test_a_bare_parameter_decays_and_a_frozen_one_is_left_out():
    model = small_model()
    model.scale = nn.Parameter(torch.ones(3))
    model[0].requires_grad_(False)

    biases, weights, _ = parameter_groups(model, 0.1)

    assert any(p is model.scale for p in weights["params"])
    assert not any(p is model[0].weight for p in weights["params"])
    assert len(biases["params"]) == 2


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimizer_steps_and_takes_the_pace(name):
    torch.manual_seed(0)
    model = small_model()
    choice = choose_optimizer(TrainConfig(optimizer=name), images=100, num_classes=3)
    optimizer = build_optimizer(model, choice, 5e-4)
    before = [p.detach().clone() for p in model.parameters()]

    set_pace(optimizer, make_schedule().at(150))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()

    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [0.0545455, 0.0049505, 0.0049505], rel=0.02
    )
    has_momentum = name in ("sgd", "rmsprop")
    assert all(("momentum" in group) == has_momentum for group in optimizer.param_groups)
    if has_momentum:
        assert [group["momentum"] for group in optimizer.param_groups] == pytest.approx([0.8685] * 3)
    assert all((new < old).all() for new, old in zip(model.parameters(), before, strict=True))


def test_sgd_is_nesterov_with_the_chosen_momentum():
    choice = choose_optimizer(TrainConfig(optimizer="sgd"), images=100, num_classes=3)
    group = build_optimizer(small_model(), choice, 0.0).param_groups[0]

    assert (group["nesterov"], group["momentum"]) == (True, 0.937)


def test_a_model_without_trainable_parameters_is_an_error():
    choice = choose_optimizer(TrainConfig(), images=100, num_classes=3)

    with pytest.raises(ConfigError, match="nothing to train"):
        build_optimizer(small_model().requires_grad_(False), choice, 0.0)


def test_a_factor_for_the_backbone_gives_it_groups_of_its_own():
    model = nn.ModuleDict({"backbone": small_model(), "head": nn.Linear(2, 2)})
    usual = parameter_groups(model, 0.1)
    assert len(usual) == 3
    assert sum(len(group["params"]) for group in usual) == 8

    groups = parameter_groups(model, 0.1, 0.01)

    inside = [id(p) for p in model["backbone"].parameters()]
    assert [len(group["params"]) for group in groups] == [1, 1, 0, 3, 2, 1]
    assert all((id(p) in inside) == (index >= 3) for index, group in enumerate(groups) for p in group["params"])
    assert [group["weight_decay"] for group in groups] == [0.0, 0.1, 0.0] * 2
    assert [group.get("lr_factor") for group in groups] == [None] * 3 + [0.01] * 3


def test_the_pace_of_the_backbone_follows_with_its_factor():
    model = nn.ModuleDict({"backbone": small_model(), "head": nn.Linear(2, 2)})
    choice = choose_optimizer(TrainConfig(optimizer="adamw"), images=100, num_classes=3)
    optimizer = build_optimizer(model, choice, 0.0, 0.5)

    pace = make_schedule().at(150)
    set_pace(optimizer, pace)

    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == [pace.lr_bias, pace.lr, pace.lr, pace.lr_bias / 2, pace.lr / 2, pace.lr / 2]
    restored = build_optimizer(model, choice, 0.0, 0.5)
    restored.load_state_dict(optimizer.state_dict())  # resume
    assert [group.get("lr_factor") for group in restored.param_groups] == [None] * 3 + [0.5] * 3


def test_a_negative_factor_is_refused():
    with pytest.raises(ConfigError, match=r"train\.backbone_lr: expected a number at least 0, got -1"):
        TrainConfig(backbone_lr=-1.0)


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        (
            {"epochs": 10, "batches": 25, "warmup": 0, "batch": 16, "nominal_batch": 64},
            62,
        ),  # 250 batches, 4 a step, 2 left over
        ({"epochs": 10, "batches": 25, "warmup": 0, "batch": 64, "nominal_batch": 64}, 250),
        ({"epochs": 2, "batches": 4, "warmup": 8, "batch": 16, "nominal_batch": 64}, 4),  # after batches 1, 2, 4 and 7
        ({"epochs": 10**9, "batches": 10**6}, 500),  # counted no further than asked
    ],
)
def test_optimizer_steps_are_counted(changes, steps):
    assert make_schedule(**changes).optimizer_steps(at_most=500) == steps


def test_a_run_of_few_steps_is_told_what_to_change():
    few = make_schedule(epochs=10, batches=25, warmup=0)

    message = few_steps_message(few, images=400)

    assert message == (
        "this run takes only 62 optimizer steps (10 epochs of 400 images, 64 images a step); fresh weights need 300 "
        "and more to find anything: use --batch 4 --set train.nominal_batch=4, or train longer (--epochs 96)"
    )


@pytest.mark.parametrize(
    ("schedule", "images", "remedy"),
    [
        ({"epochs": 40, "batches": 25}, 400, "use --set train.nominal_batch=16, or train longer (--epochs 96)"),
        ({"epochs": 1, "batches": 7}, 100, "train longer (--epochs 384)"),  # no step is small enough
        (
            {"epochs": 20, "batches": 13},
            205,
            "use --batch 4 --set train.nominal_batch=4, or train longer (--epochs 188)",
        ),
    ],
)
def test_what_is_proposed_takes_enough_steps(schedule, images, remedy):
    message = few_steps_message(make_schedule(warmup=0, **schedule), images)

    assert message is not None
    assert message.endswith(": " + remedy)
    numbers = dict(zip(("--batch", "nominal"), (16, 64), strict=True))
    for word, key in (("--batch ", "--batch"), ("nominal_batch=", "nominal")):
        if word in remedy:
            numbers[key] = int(remedy.partition(word)[2].split()[0].rstrip(","))
    epochs = schedule["epochs"] if "--set" in remedy else int(remedy.partition("--epochs ")[2].rstrip(")"))
    changed = make_schedule(
        warmup=0, epochs=epochs, batches=-(-images // numbers["--batch"]), batch=numbers["--batch"],
        nominal_batch=numbers["nominal"],
    )  # fmt: skip
    assert changed.optimizer_steps(at_most=600) >= 580
    assert few_steps_message(changed, images) is None


def test_runs_of_enough_steps_are_left_alone():
    assert few_steps_message(make_schedule(epochs=300, batches=1, batch=16, nominal_batch=16), images=16) is None
