# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Backbones: image -> feature maps from fine to coarse.

Contract: a config is a component with `kind` and `build() -> Backbone`; the module has `channels` and `strides` of the
maps it returns and `layers`, its parts in the order of the published layer table (for `freeze`).
May import what `models` may. Add one: a file here and a member of the union `BackboneConfig` below.
Must never happen here: knowledge of the neck, the head or the classes.
"""

from typing import Annotated

from pydantic import Field

from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.backbones.hgnet import HGNetConfig
from boxwright.models.backbones.mobilenet import MobileNetV3Config
from boxwright.models.backbones.resnet import ResNetConfig
from boxwright.models.backbones.shufflenet import ShuffleNetV2Config
from boxwright.models.backbones.table_backbone import TableConfig

BackboneConfig = Annotated[
    CSPConfig | MobileNetV3Config | ShuffleNetV2Config | ResNetConfig | HGNetConfig | TableConfig,
    Field(discriminator="kind"),
]
