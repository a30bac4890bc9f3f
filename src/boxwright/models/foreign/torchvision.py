# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Backbones in torchvision's naming: MobileNetV3-small, ShuffleNetV2-1.0x and ResNets, trained on whole images.

Only the backbone is taken: their last layers say classes of images. Their networks hold the same tensors in the same
order as ours, so they are matched in order, each by kind and size.

Source: the public names of torchvision's models (BSD-3-Clause), https://docs.pytorch.org/vision/stable/models.html
"""

from collections.abc import Mapping

from torch import Tensor, nn

from boxwright.models.foreign.checkpoint import Checkpoint
from boxwright.models.foreign.naming import in_order
from boxwright.models.foreign.origin import Origin

# Family -> (a key that only it has, how its backbone's keys begin, what of those is left out).
_FAMILIES: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "mobilenetv3": ("features.1.block.0.0.weight", ("features.",), ("features.12.",)),
    "shufflenetv2": ("stage2.0.branch1.0.weight", ("conv1.", "stage2.", "stage3.", "stage4."), ()),
}


def recognise(checkpoint: Checkpoint) -> Origin | None:
    """What a checkpoint of this naming is; None if it is another naming."""
    for family, (sign, _, _) in _FAMILIES.items():
        if sign in checkpoint.tensors:
            return Origin(family=family, task="detect", num_classes=0, part="backbone")
    return None


def keys(network: nn.Module, checkpoint: Checkpoint, origin: Origin) -> dict[str, str]:
    """Our key -> the checkpoint's, for the backbone."""
    _, starts, without = _FAMILIES[origin.family]
    theirs = {
        key: value
        for key, value in checkpoint.tensors.items()
        if key.startswith(starts) and not key.startswith(without or ("\0",))
    }
    own: dict[str, Tensor] = {key: value for key, value in network.state_dict().items() if key.startswith("backbone.")}
    return in_order(own, theirs)
