# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""A drawn dataset and the smallest complete recipe, for tests that train for real."""

from collections.abc import Callable
from pathlib import Path

import pytest

from boxwright.config import override, replace
from boxwright.drawn.synthetic import NAMES, draw_dataset
from boxwright.engine.recipe import Recipe
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.detector import DetectorConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.presets import preset


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `data.yaml` of 20 training and 6 validation scenes of 64 px."""
    return draw_dataset(tmp_path_factory.mktemp("scenes") / "set", train=20, val=6, imgsz=64, seed=0)


@pytest.fixture(scope="session")
def tiny_recipe(scenes: Path) -> Callable[..., Recipe]:
    """`tiny_recipe("train.epochs=2", ...)`: a YOLOv8 of some 40 thousand parameters on the drawn scenes.

    Batches of 8 (3 an epoch) and a nominal batch of 16, so that an accumulation is in flight at the end of an epoch.
    """
    base = preset("yolov8n", num_classes=len(NAMES))
    model = DetectorConfig(
        backbone=CSPConfig(widths=(4, 8, 8, 16, 16), depths=(1, 1, 1, 1)),
        neck=PANConfig(widths=(8, 16, 16), depth=1),
        head=AnchorFreeConfig(num_classes=len(NAMES), num_bins=8),
    )
    usual = [
        f"data.source={scenes}", "data.imgsz=64", "train.epochs=2", "train.batch=8", "train.nominal_batch=16",
        "train.workers=0", "train.device=cpu", "train.precision=fp32", "evaluation.plots=false",
    ]  # fmt: skip
    return lambda *settings: override(replace(base, model=model), [*usual, *settings])
