# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""One training step: batch to device, forward, loss, backward, and the optimizer step when enough images were seen.

Source: architecture section 4, spec/recipe 2 (step rule, loss scale, clipping).
"""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from boxwright.engine.distributed import Ranks, mean_over_ranks
from boxwright.engine.ema import Ema
from boxwright.engine.nonfinite import (
    Visit,
    explain_gradient,
    explain_labels,
    explain_loss,
    not_finite_gradients,
    save_replay,
)
from boxwright.engine.optim import Schedule, set_pace
from boxwright.engine.precision import Resolved, autocast
from boxwright.engine.recipe import AnyCriterion
from boxwright.errors import ShapeError, TrainingError
from boxwright.loading.collate import Batch
from boxwright.models.network import Network
from boxwright.structures import LossBreakdown, Targets


def to_network(images: Tensor, device: torch.device, *, channels_last: bool) -> Tensor:
    """uint8 images as float in 0..1 on the device."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    # The bytes are moved and reordered, not the four times larger floats.
    return images.to(device, non_blocking=True).contiguous(memory_format=layout).float().div_(255)


def resized(batch: Batch, size: tuple[int, int]) -> Batch:
    """The batch at another (height, width): images bilinear, labels scaled with them."""
    height, width = batch.images.shape[2:]
    if (height, width) == size:
        return batch
    pixels = nn.functional.interpolate(batch.images.float(), size=size, mode="bilinear", align_corners=False)
    targets = batch.targets
    if isinstance(targets, Targets):
        targets = targets.scaled(size[1] / width, size[0] / height)
    return dataclasses.replace(batch, images=pixels.round_().to(torch.uint8), targets=targets)


def multi_scale_size(size: tuple[int, int], stride: int, *, seed: int, iteration: int) -> tuple[int, int]:
    """A random training size from half to one and a half of the usual one, the same on every rank.

    Source: spec/recipe 6, multi-scale.
    """
    generator = np.random.default_rng([seed, iteration])
    longest = max(size)
    side = int(generator.integers(longest // 2, longest * 3 // 2 + stride)) // stride * stride
    return tuple(max(stride, -(-round(length * side / longest) // stride) * stride) for length in size)  # type: ignore[return-value]


def prepare(batch: Batch, criterion: AnyCriterion, model: Network) -> Batch:
    """The batch with its candidate pairs counted on the host, so that the step needs no sync."""
    height, width = (int(side) for side in batch.images.shape[2:])
    targets: Any = criterion.prepare(batch.targets, model.grid((height, width)))  # type: ignore[arg-type]
    return dataclasses.replace(batch, targets=targets)


@dataclasses.dataclass(frozen=True, slots=True)
class StepSettings:
    """What every step of a run has in common."""

    device: torch.device
    precision: Resolved
    channels_last: bool
    clip_norm: float  # 0 never clips
    multi_scale: bool
    seed: int
    ranks: Ranks
    folder: Path  # where a batch with a non-finite loss is saved


class Stepper:
    """Owns what a step changes: weights, optimizer, scaler, average, and the accumulation in flight."""

    def __init__(
        self,
        model: Network,
        criterion: AnyCriterion,
        optimizer: Optimizer,
        schedule: Schedule,
        ema: Ema[Network],
        scaler: torch.amp.GradScaler,
        settings: StepSettings,
    ) -> None:
        self.model = model
        self.criterion = criterion
        self.optimizer = optimizer
        self.schedule = schedule
        self.ema = ema
        self.scaler = scaler
        self.settings = settings
        self.last_step = -1  # iteration of the last optimizer step
        self._stride = max(model.strides)
        self._visits: list[Visit] = []
        self._network: nn.Module = model
        if settings.ranks.world > 1:
            ids = [settings.device.index] if settings.device.type == "cuda" else None
            self._network = DistributedDataParallel(model, device_ids=ids)

    def run(self, batch: Batch, iteration: int, epoch: int, progress: float) -> LossBreakdown:
        """Learns from one batch; iterations count from 0 over all epochs, epochs from 1.

        Raises:
            TrainingError: labels, the loss or a gradient are not finite; the weights are those before the step.
        """
        pace = self.schedule.at(iteration)
        set_pace(self.optimizer, pace)
        due = iteration - self.last_step >= pace.accumulate
        try:
            batch = self._ready(batch, iteration)
        except ShapeError as error:
            raise TrainingError(explain_labels(batch, error, iteration, epoch)) from error
        with nullcontext() if due else self._unsynchronised():
            breakdown = self._learn(batch, iteration, epoch, progress)
        if due:
            self._step(epoch)
            self.last_step = iteration
        return breakdown

    def _ready(self, batch: Batch, iteration: int) -> Batch:
        if self.settings.multi_scale:
            height, width = (int(side) for side in batch.images.shape[2:])
            size = multi_scale_size((height, width), self._stride, seed=self.settings.seed, iteration=iteration)
            batch = resized(batch, size)
        return prepare(batch, self.criterion, self.model).to(self.settings.device)

    def _learn(self, batch: Batch, iteration: int, epoch: int, progress: float) -> LossBreakdown:
        settings = self.settings
        images = to_network(batch.images, settings.device, channels_last=settings.channels_last)
        with autocast(settings.device, settings.precision):
            outputs = self._network(images, batch.targets)
        criterion: Any = self.criterion  # of the kind that the batch is for
        breakdown: LossBreakdown = criterion(outputs, batch.targets, progress)
        total = breakdown.total
        self._visits.append(Visit(iteration, batch, breakdown, total.detach()))
        if settings.device.type == "cpu":  # reading a number is free here; a GPU is asked once per optimizer step
            self._check_losses(epoch)
        # Never divided by the accumulation: the sum over batches is what the nominal batch means.
        torch.autograd.backward(self.scaler.scale(total))
        return breakdown

    def _step(self, epoch: int) -> None:
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self._check_losses(epoch)
        if not self.scaler.is_enabled():  # in fp16 an overflowing gradient is normal: the scaler skips the step
            self._check_gradient(norm, epoch)
        if self.settings.clip_norm > 0:
            torch._foreach_mul_(gradients, (self.settings.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._visits.clear()
        self.ema.update()

    def leftover_gradients(self) -> dict[str, Tensor]:
        """Gradients of the accumulation in flight, averaged over ranks as the step would. Empty right after a step."""
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        return {name: tensor.detach().clone() for name, tensor in mean_over_ranks(gradients).items()}

    def close(self) -> None:
        """Lets go of the data-parallel wrapper, so that the group of ranks can be left."""
        self._network = self.model

    def restore_gradients(self, gradients: dict[str, Tensor]) -> None:
        """Puts saved leftovers back."""
        for name, parameter in self.model.named_parameters():
            if name in gradients:
                parameter.grad = torch.empty_like(parameter).copy_(gradients[name])

    def _check_losses(self, epoch: int) -> None:
        if torch.isfinite(torch.stack([visit.total for visit in self._visits]).sum()).item():
            return
        for visit in self._visits:
            if not torch.isfinite(visit.total).item():
                saved = self._save(visit, epoch)
                raise TrainingError(explain_loss(visit, epoch, saved))

    def _check_gradient(self, norm: Tensor, epoch: int) -> None:
        if torch.isfinite(norm).item():
            return
        names = not_finite_gradients(self.model)
        if names:  # a norm can overflow although every entry is finite: clipping by it would stop all learning
            saved = self._save(self._visits[-1], epoch)
            raise TrainingError(explain_gradient(self._visits, names, epoch, saved))
        raise TrainingError(
            f"epoch {epoch}: the norm of the gradients overflows; lower train.lr0 or use train.precision=fp32"
        )

    def _save(self, visit: Visit, epoch: int) -> Path:
        rank = f"-rank{self.settings.ranks.rank}" if self.settings.ranks.world > 1 else ""
        path = self.settings.folder / "nonfinite" / f"iteration-{visit.iteration:06d}{rank}.pt"
        save_replay(path, visit, epoch, self.model.state_dict())
        return path

    def _unsynchronised(self) -> AbstractContextManager[None]:
        return self._network.no_sync() if isinstance(self._network, DistributedDataParallel) else nullcontext()
