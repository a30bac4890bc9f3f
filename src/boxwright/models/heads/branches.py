# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The branches of anchor-free dense heads: what each cell of each level says about boxes, classes and a task's extras.

Source: spec/architectures 4.3 and 5.1; class prior: RetinaNet, Lin et al. 2017, arXiv:1708.02002.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.config import component
from boxwright.errors import ConfigError
from boxwright.models.blocks import Conv
from boxwright.vocabulary import AttributeSpec, KeypointSpec

ClassBranchName = Literal["full", "light"]  # two 3x3 convolutions, or two pairs of a depthwise 3x3 and a 1x1 one

PRIOR_OBJECTS = 5.0  # objects expected per image of PRIOR_SIDE px, spread over all cells and classes
PRIOR_SIDE = 640


@component
class MaskConfig:
    """Instance masks as weighted sums of prototypes, which are made from the finest map at twice its size.

    Source: YOLACT, Bolya et al. 2019, arXiv:1904.02689.
    """

    count: int = 32  # prototypes, and coefficients of each candidate
    hidden: int = 64  # channels of the layers before the prototypes; 256 times the family's width
    upsample: Literal["transposed", "nearest"] = "transposed"

    def __post_init__(self) -> None:
        if self.count < 1 or self.hidden < 1:
            raise ConfigError(f"model.head.masks: expected positive counts, got {self.count} and {self.hidden}")


@runtime_checkable  # the tests' run-time checks ask for it
class BranchConfig(Protocol):
    """What of a head's config the branches read."""

    @property
    def num_classes(self) -> int: ...  # noqa: D102
    @property
    def num_bins(self) -> int: ...  # noqa: D102
    @property
    def class_branch(self) -> ClassBranchName: ...  # noqa: D102
    @property
    def box_bias(self) -> float: ...  # noqa: D102
    @property
    def oriented(self) -> bool: ...  # noqa: D102
    @property
    def masks(self) -> MaskConfig | None: ...  # noqa: D102
    @property
    def keypoints(self) -> KeypointSpec | None: ...  # noqa: D102
    @property
    def attributes(self) -> tuple[AttributeSpec, ...]: ...  # noqa: D102


class DenseBranches(nn.Module):
    """One set of branches: boxes and classes, and those of mask coefficients, keypoints, angle and attributes.

    An attribute is one more 1x1 convolution of what the class branch saw.
    """

    def __init__(self, config: BranchConfig, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        sides, classes, finest = 4 * config.num_bins, config.num_classes, channels[0]
        class_width = max(finest, min(classes, 100))
        class_branch = _full if config.class_branch == "full" else _light
        self.box_branches = _levels(_full, channels, max(16, finest // 4, sides), sides)
        self.class_branches = _levels(class_branch, channels, class_width, classes)
        self.mask_branches = self.keypoint_branches = self.angle_branches = None
        if config.masks is not None:
            count = config.masks.count
            self.mask_branches = _levels(_full, channels, max(finest // 4, count), count)
        if config.keypoints is not None:
            numbers = config.keypoints.count * config.keypoints.dims
            self.keypoint_branches = _levels(_full, channels, max(finest // 4, numbers), numbers)
        if config.oriented:
            self.angle_branches = _levels(_full, channels, max(finest // 4, 1), 1)
        # A list and not a dict by name: modules refuse names such as "type".
        self.attribute_branches = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(class_width, len(spec.values), 1) for _ in channels) for spec in config.attributes
        )
        self.attribute_names = tuple(spec.name for spec in config.attributes)
        self.keypoint_shape = () if config.keypoints is None else (config.keypoints.count, config.keypoints.dims)
        self.strides = tuple(strides)
        self.box_bias = config.box_bias
        self.reset_bias()

    @torch.no_grad()
    def reset_bias(self) -> None:
        """Sets the last biases: alike sides and bins, and a class prior of a few objects per image."""
        for stride, box, score in zip(self.strides, self.box_branches, self.class_branches, strict=True):
            cells = (PRIOR_SIDE / stride) ** 2
            _bias(box).fill_(self.box_bias)
            _bias(score).fill_(math.log(PRIOR_OBJECTS / _bias(score).numel() / cells))

    def fields(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> dict[str, Any]:
        """The fields of `Predictions` that the branches fill, of all levels together."""
        hidden = [_body(branch, x) for branch, x in zip(self.class_branches, maps, strict=True)]
        found: dict[str, Any] = {
            "box_raw": _joined(self.box_branches, maps),
            "logits": join_levels([_last(branch, x) for branch, x in zip(self.class_branches, hidden, strict=True)]),
        }
        if self.mask_branches is not None:
            found["mask_coefs"] = _joined(self.mask_branches, maps)
        if self.keypoint_branches is not None:
            rows = _joined(self.keypoint_branches, maps)
            found["keypoints_raw"] = rows.reshape(*rows.shape[:2], *self.keypoint_shape)
        if self.angle_branches is not None:
            raw = _joined(self.angle_branches, maps).squeeze(-1)
            found["angle"] = (torch.sigmoid(raw) - 0.25) * math.pi  # a quarter turn back to three quarters on
        if self.attribute_names:
            found["attribute_logits"] = {
                name: join_levels([exact(conv, x) for conv, x in zip(convs, hidden, strict=True)])  # type: ignore[call-overload]
                for name, convs in zip(self.attribute_names, self.attribute_branches, strict=True)
            }
        return found


def join_levels(maps: Sequence[Float[Tensor, "B n _ _"]]) -> Float[Tensor, "B A n"]:
    """All cells of all levels, level by level and row by row, copied once in the layout the maps already have."""
    if all(x.is_contiguous(memory_format=torch.channels_last) for x in maps):
        return torch.cat([x.permute(0, 2, 3, 1).flatten(1, 2) for x in maps], 1)
    return torch.cat([x.flatten(2) for x in maps], 2).transpose(1, 2)


def _levels(
    build: Callable[[int, int, int], nn.Module], channels: Sequence[int], hidden: int, outputs: int
) -> nn.ModuleList:
    return nn.ModuleList(build(width, hidden, outputs) for width in channels)


def _full(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Conv(inputs, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, outputs, 1))


def _light(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_separable(inputs, hidden), _separable(hidden, hidden), nn.Conv2d(hidden, outputs, 1))


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Conv(inputs, inputs, 3, groups=inputs), Conv(inputs, outputs))


def _joined(branches: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
    return join_levels([_last(branch, _body(branch, x)) for branch, x in zip(branches, maps, strict=True)])


def _body(branch: nn.Module, x: Tensor) -> Tensor:
    """The branch without its last layer."""
    for layer in list(branch.children())[:-1]:
        x = layer(x)
    return x


def _last(branch: nn.Module, x: Tensor) -> Tensor:
    return exact(branch[-1], x)  # type: ignore[index]


def exact(last: nn.Module, x: Tensor) -> Tensor:
    """The last layer in its own precision (float32) under autocast.

    bfloat16 has 8 bits: rounded class logits tie in the ranking, and rounded bins move distances by 1/16 of a cell.
    """
    kind = x.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return last(x)  # type: ignore[no-any-return]
    with torch.autocast(kind, enabled=False):
        return last(x.to(next(last.parameters()).dtype))  # type: ignore[no-any-return]


def _bias(branch: nn.Module) -> Tensor:
    return branch[-1].bias  # type: ignore[index, no-any-return]
