# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Validation: losses and metrics of a model over a loader, shared among ranks and merged."""

import time
from collections.abc import Iterable, Sized
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist

from boxwright.engine.distributed import same_everywhere
from boxwright.engine.logs import Listener, stage
from boxwright.engine.precision import autocast, choose_precision
from boxwright.engine.predictor import ready
from boxwright.engine.recipe import AnyCriterion, Precision
from boxwright.engine.step import prepare, to_network
from boxwright.errors import ConfigError, ShapeError
from boxwright.evaluation.config import EvaluationConfig
from boxwright.evaluation.result import EvaluationResult
from boxwright.loading.collate import Batch
from boxwright.models.network import Network
from boxwright.ops.collective import alone, sum_over_ranks
from boxwright.structures import ImageOutputs, Outputs
from boxwright.tasks import task_named
from boxwright.tasks.base import AnyEvaluator, Forward, SelectOptions
from boxwright.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Validation:
    """What a validation found; equal on every rank."""

    result: EvaluationResult
    losses: dict[str, float]  # "main/box", ...: gain-weighted, mean over images; empty without a criterion


def validate(
    model: Forward,
    loader: Iterable[Batch],
    *,
    vocabulary: Vocabulary,
    config: EvaluationConfig,
    criterion: AnyCriterion | None = None,
    device: torch.device,
    precision: Precision = "fp32",
    listener: Listener | None = None,
    stage_name: str = "validate",
) -> Validation:
    """Metrics, and losses if a criterion is given, of the model over this rank's share of the images.

    Runs a folded channels-last copy of a network, which itself stays as it is, in its mode; an exported model runs as
    it is. The forward pass runs in `precision`, boxes and losses in float32. Every rank must call it, rank 0 scores,
    and all get the same answer: that of one rank with the same global batches. Ranks with unequal numbers of batches
    still work; each then normalises its losses by its own counts.

    Raises:
        ConfigError: the names do not fit the model's classes.
        ShapeError: a batch has no letterboxes and truths, which a training loader does not give.
    """
    if len(vocabulary.names) != model.num_classes:
        raise ConfigError(
            f"names: expected {model.num_classes} names, one per class of the model, got {len(vocabulary.names)}"
        )
    task, options = task_named(vocabulary.task), _options(config)
    if criterion is not None and not isinstance(model, Network):
        raise ConfigError("validate: expected a network to compute losses of, got an exported model; leave them out")
    copy = ready(model, device, auxiliary=criterion is not None)
    resolved = choose_precision(precision, device).value
    evaluator, losses = task.evaluator(vocabulary, config), _LossMeter(criterion, copy, _in_step(loader))
    began = time.perf_counter()
    with stage(listener or Listener(), stage_name, _length(loader)):
        for done, batch in enumerate(loader, 1):
            if batch.letterboxes is None or batch.truths is None:
                raise ShapeError("validate: expected batches with letterboxes and truths; use `val_loader`")
            # inference_mode for the forward pass only: what leaves this function are ordinary tensors
            with torch.inference_mode(), autocast(device, resolved):
                outputs = copy(to_network(batch.images, device, channels_last=True))
            losses.add(outputs, batch, device)
            found = task.results(outputs, batch.letterboxes, options=options, vocabulary=vocabulary, paths=batch.paths)
            evaluator.update(found, batch.truths, batch.indices)
            if listener is not None:
                listener.advance(done, {"images/s": len(evaluator) / (time.perf_counter() - began)})
    return _merge(evaluator, losses)


class _LossMeter:
    """Means of the loss components over images."""

    def __init__(self, criterion: AnyCriterion | None, model: Forward, in_step: bool) -> None:
        self.criterion: Any = criterion
        self.model: Any = model
        self.in_step = in_step
        self.sums: dict[str, float] = {}
        self.images = 0

    def add(self, outputs: Outputs | ImageOutputs, batch: Batch, device: torch.device) -> None:
        if self.criterion is None:
            return
        with torch.inference_mode(), nullcontext() if self.in_step else alone():
            targets = prepare(batch, self.criterion, self.model).targets.to(device)
            components = self.criterion(outputs, targets).components
            # In step, a rank holds its part of each sum over the global batch; the parts are added in `merge`.
            images = sum_over_ranks(torch.tensor(float(len(batch)), device=device))
            values = (torch.stack(list(components.values())) * images).tolist()
        for name, value in zip(components, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.images += len(batch)

    def merge(self, others: Iterable[tuple[dict[str, float], int]]) -> None:
        for sums, images in others:
            for name, value in sums.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.images += images

    def means(self) -> dict[str, float]:
        return {name: value / self.images for name, value in self.sums.items()}


def _options(config: EvaluationConfig) -> SelectOptions:
    return SelectOptions(
        conf=config.conf,
        iou=config.iou,
        max_det=config.max_det,
        multi_label=config.multi_label,
        agnostic=config.agnostic,
    )


def _merge(evaluator: AnyEvaluator, losses: _LossMeter) -> Validation:
    """Rank 0 scores what all ranks saw; every rank gets the same answer."""
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if ranks == 1:
        return Validation(evaluator.result(), losses.means())
    rank = dist.get_rank()
    mine = (evaluator.state(), losses.sums, losses.images)
    gathered: list[Any] | None = [None] * ranks if rank == 0 else None
    dist.gather_object(mine, gathered, dst=0)
    if gathered is None:
        return same_everywhere(cast("Validation", None))
    evaluator.merge(state for state, _, _ in gathered[1:])
    losses.merge((sums, images) for _, sums, images in gathered[1:])
    return same_everywhere(Validation(evaluator.result(), losses.means()))


def _in_step(loader: Iterable[Batch]) -> bool:
    """Whether all ranks have as many batches, so that exchanges within a batch find their partners."""
    if not dist.is_available() or not dist.is_initialized():
        return True
    lengths: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(lengths, _length(loader))
    return len(set(lengths)) == 1 and lengths[0] > 0


def _length(loader: Iterable[Batch]) -> int:
    return len(loader) if isinstance(loader, Sized) else 0
