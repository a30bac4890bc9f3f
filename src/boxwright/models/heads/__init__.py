# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Heads: feature maps -> `Outputs` with raw logits and raw boxes.

Contract: a config is a component with `kind`, `num_classes` and `build(channels, strides) -> Head`; the module maps
(features, image size, targets or None) to `Outputs`, tells in `class_rows` the tensors whose first axis counts
classes, and has `strides`, `grid(image_size, device)` and `without_auxiliary()` as `models.network.Network` says.
May import what `models` may. Add one: a file here and a member of the union `HeadConfig` below.
Must never happen here: `self.training`, `self.export`, a sigmoid, a decode, a copy that `.contiguous()` would make.
"""

from typing import Annotated

from pydantic import Field

from boxwright.models.heads.anchor_based import AnchorBasedConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.heads.query import QueryConfig

HeadConfig = Annotated[AnchorFreeConfig | AnchorBasedConfig | QueryConfig, Field(discriminator="kind")]
