# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Parameter groups, the automatic choice of an optimizer, and the pace of every step (rates, momentum, accumulation).

All of it follows from the recipe and the iteration number: nothing here has to be saved but the optimizer's own state.

Source: spec/recipe 2.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from boxwright.engine.recipe import TrainConfig
from boxwright.errors import ConfigError

OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
}
_MOMENTUM_KEYWORD = ("sgd", "rmsprop")  # the others take `momentum` as beta1
_FUSED = ("sgd", "adam", "adamw")  # one kernel for all tensors, on CPU too
_NORMS = (
    _NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []),
)
FEW_STEPS = 300  # optimizer steps; a shorter run is warned about: fresh weights end near zero after it
ENOUGH_STEPS = 600  # what the warning aims at
_STEP_SIZES = (64, 32, 16, 8, 4)  # images, what the warning proposes
_GROUPS = 3  # biases, weights, norms
_SWITCH_TO_SGD = 10_000  # iterations: longer runs of the automatic rule use SGD


def parameter_groups(model: nn.Module, weight_decay: float, backbone_lr: float = 1.0) -> list[dict[str, Any]]:
    """Trainable parameters in three groups: biases (no decay), weights (decay), normalisation weights (no decay).

    With a factor for the backbone's rates (other than 1) its parameters are in three more groups after those.
    The order matters: warm-up treats the first of each three differently. A group may be empty.
    """
    seen: set[int] = set()
    groups: list[dict[str, Any]] = []
    backbone = getattr(model, "backbone", None)
    # The backbone is asked first, so that its parameters are seen; its groups come last.
    if backbone_lr != 1 and isinstance(backbone, nn.Module):
        groups = [group | {"lr_factor": backbone_lr} for group in _three_groups(backbone, weight_decay, seen)]
    return _three_groups(model, weight_decay, seen) + groups


def accumulation(batch: int, nominal_batch: int) -> int:
    """How many batches make one optimizer step after warm-up.

    >>> [accumulation(batch, 64) for batch in (1, 16, 24, 64, 128)]
    [64, 4, 3, 1, 1]
    """
    return max(round(nominal_batch / batch), 1)


def scaled_decay(weight_decay: float, batch: int, nominal_batch: int) -> float:
    """Weight decay in proportion to the images that one step really sums over.

    >>> round(scaled_decay(0.0005, 24, 64), 7), scaled_decay(0.0005, 16, 64)
    (0.0005625, 0.0005)
    """
    return weight_decay * batch * accumulation(batch, nominal_batch) / nominal_batch


@dataclass(frozen=True, slots=True)
class OptimizerChoice:
    """The optimizer of a run with every number settled, and the sentence that says why."""

    name: str
    lr0: float
    momentum: float  # SGD momentum or Adam beta1
    warmup_bias_lr: float
    reason: str


def choose_optimizer(config: TrainConfig, *, images: int, num_classes: int) -> OptimizerChoice:
    """Fills in what the recipe left open (None); a value the user set is never changed.

    `auto` takes AdamW for short runs and SGD for long ones.
    Deviation: an Adam-family optimizer named by the user without `lr0` gets 0.001; the published 0.01 is SGD's value.
    """
    if config.optimizer == "auto":
        iterations = math.ceil(images / max(config.batch, config.nominal_batch)) * config.epochs
        long = iterations > _SWITCH_TO_SGD
        name = "sgd" if long else "adamw"
        lr0 = 0.01 if long else round(0.002 * 5 / (4 + num_classes), 6)
        momentum, bias_lr = 0.9, 0.0
        why = f"optimizer auto: {iterations} nominal iterations ({'>' if long else '<='} {_SWITCH_TO_SGD})"
    else:
        name = config.optimizer
        lr0 = 0.01 if name in _MOMENTUM_KEYWORD else 0.001
        momentum, bias_lr = 0.937, 0.1 if name in _MOMENTUM_KEYWORD else 0.0
        why = f"optimizer {name}"
    chosen = {"lr0": lr0, "momentum": momentum, "warmup_bias_lr": bias_lr}
    told = {key: getattr(config, key) for key in chosen if getattr(config, key) is not None}
    settled = chosen | told
    numbers = ", ".join(f"{key}={value:g}{' (as set)' if key in told else ''}" for key, value in settled.items())
    return OptimizerChoice(name=name, **settled, reason=f"{why}: {name} with {numbers}")


def build_optimizer(
    model: nn.Module, choice: OptimizerChoice, weight_decay: float, backbone_lr: float = 1.0
) -> Optimizer:
    """The optimizer over the groups of `parameter_groups`, with the fastest exact implementation."""
    if choice.name not in OPTIMIZERS:
        raise ConfigError(f"train.optimizer: expected auto or one of {', '.join(OPTIMIZERS)}, got {choice.name!r}")
    groups = parameter_groups(model, weight_decay, backbone_lr)
    if not any(group["params"] for group in groups):
        raise ConfigError("train.freeze: every parameter is frozen; there is nothing to train")
    options: dict[str, Any] = {"lr": choice.lr0}
    if choice.name in _MOMENTUM_KEYWORD:
        options["momentum"] = choice.momentum
    else:
        options["betas"] = (choice.momentum, 0.999)
    if choice.name == "sgd":
        options["nesterov"] = choice.momentum > 0
    options["fused" if choice.name in _FUSED else "foreach"] = True
    return OPTIMIZERS[choice.name](groups, **options)


def schedule_factor(epoch: int, epochs: int, lrf: float, shape: Literal["linear", "cosine"]) -> float:
    """Learning rate of an epoch (from 0) as a fraction of lr0: 1 at the start, `lrf` after the last epoch.

    >>> schedule_factor(50, 100, 0.01, "linear"), round(schedule_factor(50, 100, 0.01, "cosine"), 3)
    (0.505, 0.505)
    """
    if shape == "cosine":
        return (1 - math.cos(math.pi * epoch / epochs)) / 2 * (lrf - 1) + 1
    return max(1 - epoch / epochs, 0) * (1 - lrf) + lrf


def warmup_iterations(warmup_epochs: float, batches: int, epochs: int, floor: int) -> int:
    """Length of the warm-up in iterations: at least `floor`, at most half of the run, 0 when switched off.

    Deviation: the reference has no cap, so a tiny run never reaches its learning rate there.
    """
    if warmup_epochs <= 0:
        return 0
    return min(max(round(warmup_epochs * batches), floor), batches * epochs // 2)


@dataclass(frozen=True, slots=True)
class Pace:
    """The settings of one iteration."""

    lr_bias: float  # of biases
    lr: float  # of the other groups
    momentum: float  # applied only to optimizers that have one (not the Adam family)
    accumulate: int  # batches per optimizer step


@dataclass(frozen=True, slots=True)
class Schedule:
    """The pace of every iteration of a run, without any state."""

    epochs: int
    batches: int  # per epoch
    batch: int
    nominal_batch: int
    lr0: float
    lrf: float
    shape: Literal["linear", "cosine"]
    warmup: int  # iterations
    warmup_bias_lr: float
    warmup_momentum: float
    momentum: float

    def at(self, iteration: int) -> Pace:
        """The pace of the iteration, counted from 0 over all epochs."""
        lr = self.lr0 * schedule_factor(iteration // self.batches, self.epochs, self.lrf, self.shape)
        full = accumulation(self.batch, self.nominal_batch)
        if self.warmup == 0:
            return Pace(lr, lr, self.momentum, full)
        if iteration > self.warmup:
            return Pace(lr, lr, self.momentum, full)
        share = iteration / self.warmup
        return Pace(
            lr_bias=_between(self.warmup_bias_lr, lr, share),
            lr=_between(0.0, lr, share),
            momentum=_between(self.warmup_momentum, self.momentum, share),
            accumulate=max(1, round(_between(1.0, self.nominal_batch / self.batch, share))),
        )

    def optimizer_steps(self, at_most: int) -> int:
        """How many optimizer steps the run takes, counted no further than `at_most`."""
        steps, last = 0, -1
        for iteration in range(self.epochs * self.batches):
            if steps == at_most:
                break
            if iteration - last >= self.at(iteration).accumulate:  # the rule of `Stepper.run`
                steps, last = steps + 1, iteration
        return steps


def few_steps_message(schedule: Schedule, images: int) -> str | None:
    """What to change in a run of so few optimizer steps that fresh weights learn next to nothing; None for longer runs.

    Args:
        schedule: of the whole run.
        images: of the training split.
    """
    steps = schedule.optimizer_steps(at_most=FEW_STEPS)
    if steps >= FEW_STEPS:
        return None
    seen, step = images * schedule.epochs, max(schedule.batch, schedule.nominal_batch)
    smaller = next((size for size in _STEP_SIZES if size < step and seen // size >= ENOUGH_STEPS), None)
    epochs = -(-ENOUGH_STEPS * step // images)
    if smaller is None:
        remedy = f"train longer (--epochs {epochs})"
    elif smaller < schedule.batch:
        remedy = f"use --batch {smaller} --set train.nominal_batch={smaller}, or train longer (--epochs {epochs})"
    else:
        remedy = f"use --set train.nominal_batch={smaller}, or train longer (--epochs {epochs})"
    return (
        f"this run takes only {steps} optimizer steps ({schedule.epochs} epochs of {images} images, {step} images a "
        f"step); fresh weights need {FEW_STEPS} and more to find anything: {remedy}"
    )


def set_pace(optimizer: Optimizer, pace: Pace) -> None:
    """Writes the learning rates and, where the optimizer has one, the momentum into the groups."""
    for index, group in enumerate(optimizer.param_groups):
        group["lr"] = (pace.lr_bias if index % _GROUPS == 0 else pace.lr) * group.get("lr_factor", 1.0)
        if "momentum" in group:
            group["momentum"] = pace.momentum


def _three_groups(model: nn.Module, weight_decay: float, seen: set[int]) -> list[dict[str, Any]]:
    """The groups of what is not among the `seen` ids, which it adds to them."""
    biases: list[Tensor] = []
    weights: list[Tensor] = []
    norms: list[Tensor] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if name == "bias":
                biases.append(parameter)
            elif isinstance(module, _NORMS):
                norms.append(parameter)
            else:
                weights.append(parameter)
    return [
        {"params": biases, "weight_decay": 0.0},
        {"params": weights, "weight_decay": weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]


def _between(start: float, end: float, share: float) -> float:
    return start + (end - start) * share
