# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: checkpoints of other code bases, read without running them, and their tensors under our names.

Lives here: `machine` and `archive` (read files), `checkpoint` (finds the tensors), one file per naming (recognises a
network and maps its keys), `importing` (the fitting recipe, the weights file, a report of every key).
May import: presets, engine (recipes), models and below.
To add a naming: a file with `recognise` and `keys`, and its line in `NAMINGS`.
Must never happen here: running or importing what a file asks for, or guessing a tensor that does not fit.
"""

from collections.abc import Callable, Mapping

from torch import nn

from boxwright.errors import CheckpointError
from boxwright.foreign import rtdetr, torchvision, yolo
from boxwright.foreign.checkpoint import Checkpoint, read_checkpoint
from boxwright.foreign.origin import Origin

Keys = Callable[[nn.Module, Checkpoint, Origin], dict[str, str]]
NAMINGS: Mapping[str, tuple[Callable[[Checkpoint], Origin | None], Keys]] = {
    "model.<layer>": (yolo.recognise, yolo.keys),
    "RT-DETR": (rtdetr.recognise, rtdetr.keys),
    "torchvision": (torchvision.recognise, torchvision.keys),
}

__all__ = ["NAMINGS", "Checkpoint", "Keys", "Origin", "read_checkpoint", "recognise"]


def recognise(checkpoint: Checkpoint) -> tuple[Origin, Keys]:
    """What a checkpoint is, and how to find our tensors in it.

    Raises:
        CheckpointError: its names are none that we know.
    """
    for find, keys in NAMINGS.values():
        origin = find(checkpoint)
        if origin is not None:
            return origin, keys
    few = ", ".join(list(checkpoint.tensors)[:5])
    if any(key.startswith("backbone.layers.") for key in checkpoint.tensors):
        raise CheckpointError(
            f"{checkpoint.path}: has the names of our own weights and needs no import; give it as --weights"
        )
    raise CheckpointError(
        f"{checkpoint.path}: expected tensors named as by YOLOv5, v8, v10, 11, 26, RT-DETR or a torchvision backbone, "
        f"got {few or 'no tensors'}"
    )
