# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch
import yaml
from tests.models.tables import YOLO11, YOLOV5, YOLOV8, YOLOV10S

from boxwright.config import from_yaml, to_yaml
from boxwright.errors import ConfigError
from boxwright.models.classifier import ClassifierConfig
from boxwright.models.detector import DetectorConfig
from boxwright.models.heads.anchor_based import P5_ANCHORS
from boxwright.models.layer_table import read_layer_table
from boxwright.presets import preset


def read(text: str, scale: str | None = None, head: str | None = None, **keys):
    table = yaml.safe_load(text) | keys
    if head is not None:
        table["head"][-1] = yaml.safe_load(head)
    return read_layer_table(table, scale)


def layers_of(config) -> list[tuple[str, int, int]]:
    """Name, parameters and tensors of every layer."""
    with torch.device("meta"):
        model = config.build()
    return [(type(x).__name__, sum(p.numel() for p in x.parameters()), len(x.state_dict())) for x in model.layers]


@pytest.mark.parametrize(
    ("table", "scale", "head", "name"),
    [
        (YOLOV8, "n", None, "yolov8n"),
        (YOLOV8, "m", None, "yolov8m"),
        (YOLOV8, "s", "[[15, 18, 21], 1, Segment, [nc, 32, 256]]", "yolov8s-seg"),
        (YOLOV8, "n", "[[15, 18, 21], 1, Pose, [1, [17, 3]]]", "yolov8n-pose"),
        (YOLOV8, "n", "[[15, 18, 21], 1, OBB, [15, 1]]", "yolov8n-obb"),
        (YOLO11, "n", None, "yolo11n"),
        (YOLO11, "m", None, "yolo11m"),
        (YOLOV10S, None, None, "yolov10s"),
        (YOLOV5, None, None, "yolov5s"),
        (YOLOV5, None, "[[17, 20, 23], 1, Segment, [nc, anchors, 32, 256]]", "yolov5s-seg"),
    ],
)
def test_a_published_table_gives_the_network_of_the_preset(table, scale, head, name):
    config = read(table, scale, head)

    assert layers_of(config) == layers_of(preset(name).model)
    assert from_yaml(DetectorConfig, to_yaml(config)) == config


def test_the_outputs_are_those_of_the_preset_with_its_weights():
    torch.manual_seed(0)
    ours, table = preset("yolov8n", num_classes=2).model.build().eval(), read(YOLOV8, "n", nc=2).build().eval()
    for source, target in zip(ours.layers, table.layers, strict=True):
        target.load_state_dict(source.state_dict())
    images = torch.rand(1, 3, 64, 96)

    with torch.no_grad():
        expected, found = ours(images).final, table(images).final
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.box_raw, expected.box_raw)
    assert table.strides == (8, 16, 32)


def test_a_classifier():
    table = yaml.safe_load(YOLOV8)
    table["backbone"] = table["backbone"][:9]
    table["head"] = [[-1, 1, "Classify", ["nc"]]]
    config = read_layer_table(table | {"nc": 1000}, "n")

    assert isinstance(config, ClassifierConfig)
    assert layers_of(config) == layers_of(preset("yolov8n-cls").model)


def test_anchors_and_keys_of_newer_heads():
    assert read(YOLOV5).head.anchors == P5_ANCHORS
    head = read(YOLO11, "n", end2end=True, reg_max=1).head
    assert (head.end_to_end, head.num_bins, head.box_bias, head.class_branch) == (True, 1, 2.0, "light")
    keypoints = read(YOLOV8, "n", "[[15, 18, 21], 1, Pose, [nc, kpt_shape]]", kpt_shape=[5, 2]).head.keypoints
    assert (keypoints.count, keypoints.dims) == (5, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("C2f, [256, True]", "C2ff, [256]", r"^rows\.4: there is no block 'C2ff'; did you mean C2f"),
        ("SPPF, [1024, 5]", "Transformer, [1024]", r"^rows\.9: there is no block 'Transformer'; known blocks: Conv, "),
        ("nc: 80", "nc: many", r"^nc: expected a number of classes, got many"),
        ("nc: 80", "ncc: 80\nnc: 80", r"^ncc: unknown key of a layer table; did you mean 'nc'\?"),
        ("[15, 18, 21], 1, Detect", "[15, 18, 21], 1, Conv", r"^head: expected a last row with one of Detect, "),
        ("[-1, 1, Conv, [64, 3, 2]]", "[-1, 1, Conv]", r"^backbone\.0: expected \[from, repeats, block, args\]"),
        ("[-1, 1, Conv, [64, 3, 2]]", "[-1, one, Conv, [64]]", r"^backbone\.0: expected whole numbers"),
        ("[-1, 1, Conv, [64, 3, 2]]", "[-1, 1, Conv, []]", r"^rows\.0: expected a width as the first argument"),
        ("[[-1, 6], 1, Concat, [1]]", "[[-1, 60], 1, Concat, [1]]", r"^rows\.11 \(Concat\): expected inputs from rows"),
        ("[[-1, 6], 1, Concat, [1]]", "[-1, 1, OBB, [1]]", r"^rows\.11: expected the head OBB to be the last row"),
        ("backbone:", "spine:", r"^spine: unknown key"),
    ],
)
def test_mistakes_name_their_place(old, new, message):
    with pytest.raises(ConfigError, match=message):
        read(YOLOV8.replace(old, new, 1), "n")


def test_a_scale_must_be_chosen():
    with pytest.raises(ConfigError, match=r"^scale: expected one of n, s, m, got None; add the key"):
        read(YOLOV8)
    assert read(YOLOV8, scale="s").backbone.rows[0].args == (32, 3, 2)
    assert read(YOLOV8 + "\nscale: s\n").backbone.rows[0].args == (32, 3, 2)
