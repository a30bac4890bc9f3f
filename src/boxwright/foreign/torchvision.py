# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Backbones in torchvision's naming: MobileNetV3-small, ShuffleNetV2-1.0x and ResNets, trained on whole images.

Only the backbone is taken: their last layers say classes of images. The first two hold the same tensors in
the same order as ours, so they are matched in order, each by kind and size; a ResNet's stages are matched by name.

Source: the public names of torchvision's models (BSD-3-Clause), https://docs.pytorch.org/vision/stable/models.html
"""

from collections.abc import Mapping

from torch import Tensor, nn

from boxwright.foreign.checkpoint import Checkpoint
from boxwright.foreign.naming import Rules, in_order, published_keys
from boxwright.foreign.origin import Origin

# Family -> (a key that only it has, how its backbone's keys begin, what of those is left out, epsilon of batch norms).
_FAMILIES: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...], float]] = {
    "mobilenetv3": ("features.1.block.0.0.weight", ("features.",), ("features.12.",), 1e-3),
    "shufflenetv2": ("stage2.0.branch1.0.weight", ("conv1.", "stage2.", "stage3.", "stage4."), (), 1e-5),
}
_RESNETS: Mapping[tuple[int, ...], int] = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 34, (3, 4, 23, 3): 101}  # blocks
_RESNET_50 = (3, 4, 6, 3)  # with three convolutions in a block
_RESNET_EPS = 1e-5
_RESIDUAL: Rules = {
    "Residual": {
        **{f"body.{index}.conv": f"conv{index + 1}" for index in range(3)},
        **{f"body.{index}.bn": f"bn{index + 1}" for index in range(3)},
        "shortcut.1.conv": "downsample.0",
        "shortcut.1.bn": "downsample.1",
        "shortcut.conv": "downsample.0",
        "shortcut.bn": "downsample.1",
    }
}


def recognise(checkpoint: Checkpoint) -> Origin | None:
    """What a checkpoint of this naming is; None if it is another naming."""
    for family, (sign, _, _, eps) in _FAMILIES.items():
        if sign in checkpoint.tensors:
            return Origin(family=family, task="detect", num_classes=0, eps=eps, part="backbone")
    depth = _depth(checkpoint)
    if depth is None:
        return None
    return Origin(family=f"rtdetr-r{depth}", task="detect", num_classes=0, eps=_RESNET_EPS, part="backbone", gaps=True)


def keys(network: nn.Module, checkpoint: Checkpoint, origin: Origin) -> dict[str, str]:
    """Our key -> the checkpoint's, for the backbone. Of a ResNet the stages: stems differ."""
    if origin.family not in _FAMILIES:
        return published_keys(
            network, {f"backbone.layers.{stage}": f"layer{stage}" for stage in range(1, 5)}, _RESIDUAL
        )
    _, starts, without, _ = _FAMILIES[origin.family]
    theirs = {
        key: value
        for key, value in checkpoint.tensors.items()
        if key.startswith(starts) and not (without and key.startswith(without))
    }
    own: dict[str, Tensor] = {key: value for key, value in network.state_dict().items() if key.startswith("backbone.")}
    return in_order(own, theirs)


def _depth(checkpoint: Checkpoint) -> int | None:
    """Of a ResNet; None if it is none that we have."""
    if not {"conv1.weight", "layer4.0.conv1.weight"} <= checkpoint.tensors.keys():
        return None
    stages = [{key.split(".")[1] for key in checkpoint.tensors if key.startswith(f"layer{i}.")} for i in range(1, 5)]
    blocks = tuple(map(len, stages))
    if blocks == _RESNET_50 and "layer1.0.conv3.weight" in checkpoint.tensors:
        return 50
    return _RESNETS.get(blocks)
