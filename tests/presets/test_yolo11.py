# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest

from boxwright.presets import preset
from boxwright.presets.yolo11 import yolo11


@pytest.mark.parametrize(
    ("size", "widths", "depth"),
    [
        ("n", (16, 64, 128, 128, 256), 1),
        ("s", (32, 128, 256, 256, 512), 1),
        ("m", (64, 256, 512, 512, 512), 1),
        ("l", (64, 256, 512, 512, 512), 2),
        ("x", (96, 384, 768, 768, 768), 2),
    ],
)
def test_sizes(size, widths, depth):
    model = yolo11(size).model

    assert (model.backbone.widths, model.backbone.depths) == (widths, (depth,) * 4)
    assert (model.backbone.attention_depth, model.neck.depth) == (depth, depth)
    inner = "c3k2" if size in "ns" else "c3k2_c3k"
    assert model.backbone.block == (inner, inner, "c3k2_c3k", "c3k2_c3k")
    assert model.neck.block == (inner, inner, inner, "c3k2_c3k")
    assert (model.head.class_branch, model.head.end_to_end) == ("light", False)


def test_a_classifier_has_attention_but_no_pools():
    backbone = preset("yolo11n-cls").model.backbone

    assert (backbone.context, backbone.attention) == ("none", "c2psa")
