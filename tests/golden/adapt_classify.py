# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Image classification in golden cases."""

from typing import Any

import torch
from tests.golden.common import Run

from boxwright.losses.image_level import ImageCriterion
from boxwright.structures import ImageOutputs, ImageTargets


def classify(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    assert not case["config"], f"options without a counterpart: {case['config']}"
    logits = torch.from_numpy(inputs["logits"]).to(dtype).requires_grad_()
    loss = ImageCriterion()(ImageOutputs(logits), ImageTargets(torch.from_numpy(inputs["cls"])))
    return Run({"loss": loss.components["main/cls"]}, loss.total, {"logits": logits}, {})
