# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Heads: feature maps -> `Outputs` with raw logits and raw boxes.

Contract: a config is a component with `kind`, `num_classes` and `build(channels, strides) -> Head`; the module maps
(features, image size, targets or None) to `Outputs`, names in `class_rows` the tensors whose first axis counts
classes, and has `strides`, `grid(image_size, device)` and `without_auxiliary()` as `models.network.Network` says.
May import what `models` may. Add one: a file here and a member of the union `HeadConfig` below.
Must never happen here: `self.training`, `self.export`, a sigmoid, a decode, a copy that `.contiguous()` would make.
"""

from boxwright.models.heads.anchor_free import AnchorFreeConfig

# With a second member this becomes `Annotated[AnchorFreeConfig | AnchorBasedConfig, Field(discriminator="kind")]`.
HeadConfig = AnchorFreeConfig
