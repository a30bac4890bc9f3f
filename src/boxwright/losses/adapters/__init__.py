# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Raw outputs and labels of other code bases as `Outputs` and `Targets`; wrong shapes and units are refused by name."""

from boxwright.losses.adapters.labels import targets_from_padded, targets_from_rows
from boxwright.losses.adapters.maps import from_yolov8_joined, from_yolov8_maps
from boxwright.losses.adapters.priors import PriorUnit, from_yolov5_maps, yolov5_grid
from boxwright.losses.adapters.stacks import denoising_pairs, from_detr_stacks
from boxwright.losses.adapters.units import BoxUnit

__all__ = [
    "BoxUnit",
    "PriorUnit",
    "denoising_pairs",
    "from_detr_stacks",
    "from_yolov5_maps",
    "from_yolov8_joined",
    "from_yolov8_maps",
    "targets_from_padded",
    "targets_from_rows",
    "yolov5_grid",
]
