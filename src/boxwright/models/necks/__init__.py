# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Necks: feature maps -> feature maps of the same strides that have seen each other.

Contract: a config is a component with `kind` and `build(channels, strides) -> Neck`; the module has `channels`,
`strides` and `layers`.
May import what `models` may. Add one: a file here and a member of the union `NeckConfig` below.
Must never happen here: knowledge of a particular backbone, the head or the classes.
"""

from typing import Annotated

from pydantic import Field

from boxwright.models.necks.hybrid import HybridConfig
from boxwright.models.necks.none import NoNeckConfig
from boxwright.models.necks.pan import PANConfig

NeckConfig = Annotated[PANConfig | HybridConfig | NoNeckConfig, Field(discriminator="kind")]
