# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""YOLOv10 detect, end to end: numbers only.

Source: Wang et al. 2024, arXiv:2405.14458; spec/architectures 5.1 (layers, scales), spec/losses E.8 (criterion).
"""

from boxwright.engine.recipe import Recipe
from boxwright.losses.dense_recipes import end_to_end_detect
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.models.stages import BlockName
from boxwright.presets.dense import Asked, dense_head, dense_recipe, family
from boxwright.presets.scaling import Scale

SCALES: dict[str, Scale] = {
    "n": Scale(depth=0.33, width=0.25, widest=1024),
    "s": Scale(depth=0.33, width=0.50, widest=1024),
    "m": Scale(depth=0.67, width=0.75, widest=768),
    "b": Scale(depth=0.67, width=1.00, widest=512),
    "l": Scale(depth=1.00, width=1.00, widest=512),
    "x": Scale(depth=1.00, width=1.25, widest=512),
}
# Blocks of layers 6, 8 (backbone), 13, 19 and 22 (neck); 2, 4 and 16 are C2f in every size.
BLOCKS: dict[str, tuple[BlockName, BlockName, BlockName, BlockName, BlockName]] = {
    "n": ("c2f", "c2f", "c2f", "c2f", "c2fcib_large"),
    "s": ("c2f", "c2fcib_large", "c2f", "c2f", "c2fcib_large"),
    "m": ("c2f", "c2fcib", "c2f", "c2fcib", "c2fcib"),
    "b": ("c2f", "c2fcib", "c2fcib", "c2fcib", "c2fcib"),
    "l": ("c2f", "c2fcib", "c2fcib", "c2fcib", "c2fcib"),
    "x": ("c2fcib", "c2fcib", "c2fcib", "c2fcib", "c2fcib"),
}


@family("yolov10", SCALES, ("detect",))
def yolov10(size: str, asked: Asked) -> Recipe:
    """The complete recipe of one size."""
    scale = SCALES[size]
    sixth, eighth, thirteenth, nineteenth, last = BLOCKS[size]
    return dense_recipe(
        "yolov10",
        size,
        asked,
        backbone=CSPConfig(
            block=("c2f", "c2f", sixth, eighth),
            widths=scale.widths(64, 128, 256, 512, 1024),
            depths=scale.depths(3, 6, 6, 3),
            down=("conv", "conv", "scdown", "scdown"),
            attention="psa",
        ),
        neck=PANConfig(
            block=(thirteenth, "c2f", nineteenth, last),
            widths=scale.widths(256, 512, 1024),
            depth=scale.repeats(3),
            down=("conv", "scdown"),
        ),
        head=dense_head(asked, scale, class_branch="light", end_to_end=True),
        criterion=end_to_end_detect(),
    )
