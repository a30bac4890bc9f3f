# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A small scene for every YOLOv8-type criterion: what it learns from, and itself."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from tests.losses.scenes import BINS, CLASSES, generator, oriented, random_predictions, random_targets
from torch import Tensor

from boxwright.losses.criterion import Criterion, LossBreakdown
from boxwright.losses.dense_recipes import (
    end_to_end_detect,
    end_to_end_progressive,
    yolov8_detect,
    yolov8_oriented,
    yolov8_pose,
    yolov8_segment,
)
from boxwright.structures import Outputs, Predictions, Targets

KEYPOINTS, COEFS, MASKS = 4, 5, (16, 24)
LEAVES = (
    "logits",
    "box_raw",
    "angle",
    "mask_coefs",
    "prototypes",
    "semantic_logits",
    "keypoints_raw",
    "keypoint_scale",
)


def log_density(residual: Tensor) -> Tensor:
    """A learned density stands in: any smooth function of the residual."""
    return -0.5 * residual.square().sum(dim=-1) - 1


CRITERIA: dict[str, Callable[[], Criterion]] = {
    "detect": yolov8_detect,
    "detect, one bin": lambda: yolov8_detect(num_bins=1, modern=True),
    "exclusive": yolov8_detect,
    "segment": yolov8_segment,
    "segment, mask aware": lambda: yolov8_segment(modern=True, semantic=True, mask_aware=True),
    "pose": yolov8_pose,
    "pose, likelihood": lambda: yolov8_pose(modern=True, likelihood=True),
    "oriented": yolov8_oriented,
    "oriented, modern": lambda: yolov8_oriented(modern=True),
    "end to end": end_to_end_detect,
    "end to end, progressive": end_to_end_progressive,
}


def scene(
    name: str, counts: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float64, classes: int = CLASSES
) -> tuple[Outputs, Targets]:
    """Outputs whose tensors are leaves, and targets that are not prepared."""
    source = generator(seed)
    batch = len(counts)
    targets = random_targets(source, counts, dtype=dtype)
    targets = dataclasses.replace(targets, labels=targets.labels % classes)
    preds = _predictions(name, source, batch, dtype, classes)
    if name.startswith("oriented"):
        preds, targets = oriented(preds, targets, source)
    if name.startswith("segment"):
        slots = targets.labels.shape[1]
        targets = dataclasses.replace(
            targets,
            instance_map=torch.randint(slots + 1, (batch, 32, 48), generator=source).int(),
            class_map=torch.randint(classes, (batch, 32, 48), generator=source),
        )
    if name.startswith("pose"):
        places = torch.rand(*targets.labels.shape, KEYPOINTS, 3, generator=source) * torch.tensor([96.0, 64.0, 2.99])
        places[..., 2] = places[..., 2].floor()
        targets = dataclasses.replace(targets, keypoints=places.to(dtype))
    if name.startswith("end to end"):
        many = dataclasses.replace(_predictions(name, source, batch, dtype, classes), role="one2many")
        return Outputs(dataclasses.replace(preds, role="one2one"), (many,)), targets
    return Outputs(preds), targets


def _predictions(name: str, source: torch.Generator, batch: int, dtype: torch.dtype, classes: int) -> Predictions:
    preds = random_predictions(source, batch, bins=1 if "one bin" in name else BINS, dtype=dtype)
    anchors = preds.logits.shape[1]

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64).to(dtype).requires_grad_()

    parts: dict[str, object] = {"logits": leaf(batch, anchors, classes), "exclusive": name == "exclusive"}
    if name.startswith("segment"):
        parts |= {"mask_coefs": leaf(batch, anchors, COEFS), "prototypes": leaf(batch, COEFS, *MASKS)}
        parts["semantic_logits"] = leaf(batch, classes, *MASKS)
    if name.startswith("pose"):
        parts["keypoints_raw"] = leaf(batch, anchors, KEYPOINTS, 3)
    if "likelihood" in name:
        parts |= {"keypoint_scale": leaf(batch, anchors, KEYPOINTS, 2), "keypoint_form": "offset"}
        parts["keypoint_density"] = log_density
    return dataclasses.replace(preds, **parts)


def branches(outputs: Outputs) -> tuple[Predictions, ...]:
    return (*outputs.auxiliary, outputs.final)


def with_branches(outputs: Outputs, change: Callable[[Predictions], Predictions]) -> Outputs:
    return Outputs(change(outputs.final), tuple(change(preds) for preds in outputs.auxiliary))


def tensors(preds: Predictions) -> dict[str, Tensor]:
    """What a model would have computed."""
    return {name: tensor for name in LEAVES if (tensor := getattr(preds, name)) is not None}


def fresh(outputs: Outputs, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Outputs:
    """A copy with leaves of its own, each changed."""
    return with_branches(
        outputs,
        lambda preds: dataclasses.replace(
            preds,
            **{key: change(value.detach()).clone().requires_grad_() for key, value in tensors(preds).items()},
        ),
    )


def changed(targets: Targets, change: Callable[[Tensor], Tensor]) -> Targets:
    """Targets with every tensor changed, not prepared."""
    fields = {f.name: getattr(targets, f.name) for f in dataclasses.fields(targets)}
    held = {name: change(value) for name, value in fields.items() if isinstance(value, Tensor)}
    return dataclasses.replace(targets, **held, prepared={})


def run(
    criterion: Criterion, outputs: Outputs, targets: Targets, progress: float = 0.3
) -> tuple[LossBreakdown, Outputs]:
    """The loss after backward, and the leaves that hold its gradients."""
    outputs = fresh(outputs)
    loss = criterion(outputs, criterion.prepare(targets, outputs.final.grid), progress)
    loss.total.backward()
    return loss, outputs


def gradients(outputs: Outputs) -> dict[str, Tensor]:
    """By role and name; zeros where nothing arrived."""
    found = {}
    for preds in branches(outputs):
        for name, tensor in tensors(preds).items():
            found[f"{preds.role}/{name}"] = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    return found
