# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Exported files give what the network gives, and say everything about themselves."""

import importlib.util
import json

import pytest
import torch
from torch import nn

from boxwright.errors import CheckpointError, ConfigError, ExportError, ShapeError
from boxwright.export.export import EXPORT_FORMAT, SUFFIXES, ExportSettings, export
from boxwright.export.runtime import load_exported
from boxwright.export.verify import PIXELS, _wrong, compare, drawn_images, expect_equal
from boxwright.presets import preset
from boxwright.vocabulary import AttributeSpec

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

DENSE = ("yolov8n", "yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolov8n-cls")
OTHERS = ("yolov5n", "yolov5n-seg", "yolov5nu", "yolov10n", "yolo11n", "yolo26n")
LIGHT = ("yolov5-mobilenetv3", "yolov5-shufflenetv2")
SIDE = 64


@torch.no_grad()
def made(name, side=SIDE, **options):
    """A recipe, its vocabulary, and its network with batch norms at work: outputs then differ from cell to cell."""
    torch.manual_seed(0)
    recipe = preset(name, **({"num_classes": 3} | options))
    network = recipe.model.build().eval()
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for part in norms:
        part.train()
        part.momentum = 1.0
    network(drawn_images(max(side, 128), seed=1))
    for part in norms:  # a channel that hardly varies would make rounding large
        part.running_var.clamp_(min=float(part.running_var.mean()))
    return recipe, recipe.vocabulary(["cat", "dog", "bird"], [1, 5, 7]), network.eval()


def written(tmp_path, recipe, vocabulary, network, **settings):
    chosen = ExportSettings(**({"imgsz": SIDE} | settings))
    suffix = chosen.format
    return load_exported(export(network, recipe, vocabulary, tmp_path / f"m.{suffix}", chosen))


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *(("yolov8n", "onnx"), ("yolov8n", "torchscript"), ("yolov8n-pose", "onnx"), ("yolov8n-cls", "onnx")),
        *(pytest.param(name, form, marks=pytest.mark.slow) for name in (*DENSE, *OTHERS, *LIGHT) for form in SUFFIXES),
    ],
)
def test_an_exported_file_equals_the_network_at_every_size(tmp_path, name, form):
    recipe, vocabulary, network = made(name)
    exported = written(tmp_path, recipe, vocabulary, network, format=form, dynamic=True)
    for images in (drawn_images(SIDE, 2), drawn_images(96, 3), torch.rand(1, 3, 64, 128)):
        differences = compare(exported, network, images)
        expect_equal(exported, differences)
        assert {found.output for found in differences} >= {"scores"}


@pytest.mark.slow
def test_a_query_network_is_written_for_one_size(tmp_path):
    recipe, vocabulary, network = made("rtdetr-r18", side=160)
    exported = written(tmp_path, recipe, vocabulary, network, imgsz=160)
    expect_equal(exported, compare(exported, network, drawn_images(160, 2)))
    assert exported(drawn_images(160, 1)).detection.end_to_end
    with pytest.raises(ExportError, match="made for one size"):
        written(tmp_path, recipe, vocabulary, network, imgsz=160, dynamic=True)


def test_metadata_travel_in_both_kinds_of_file(tmp_path):
    import onnx

    attributes = (AttributeSpec(name="color", values=("red", "blue")),)
    recipe, vocabulary, network = made("yolov8n", exclusive=True, attributes=attributes)
    for form in ("onnx", "torchscript"):
        exported = written(tmp_path, recipe, vocabulary, network, format=form)
        assert exported.vocabulary == vocabulary
        assert exported.vocabulary.exclusive
        assert exported.vocabulary.attributes == attributes
        assert exported.recipe == recipe
        assert (exported.strides, exported.num_classes, exported.imgsz, exported.batch) == ((8, 16, 32), 3, SIDE, 1)
        expect_equal(exported, compare(exported, network, drawn_images(SIDE, 3)))  # three images, one at a time
    properties = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "m.onnx")).metadata_props}
    assert properties["format"] == EXPORT_FORMAT
    assert (json.loads(properties["names"]), json.loads(properties["class_ids"])) == (["cat", "dog", "bird"], [1, 5, 7])
    assert json.loads(properties["export"])["fit"] == "letterbox"
    assert json.loads(properties["export"])["outputs"]["attribute_color"] == [84, 2]


def test_suppression_inside_keeps_what_ours_keeps(tmp_path):
    recipe, vocabulary, network = made("yolov8n-seg")
    for branch in network.head.class_branches:  # scores far above the threshold, and spread
        branch[-1].bias.data += 6
    settings = {"nms": True, "conf": 0.05, "iou": 0.5, "max_det": 20, "dynamic": True}
    exported = written(tmp_path, recipe, vocabulary, network, **settings)
    images = drawn_images(SIDE, 3)
    differences = {found.output: found for found in compare(exported, network, images)}
    expect_equal(exported, list(differences.values()))
    assert differences.keys() == {"boxes", "scores", "coefs", "kept", "prototypes"}
    found = exported.raw(images)["detections"]
    counts = torch.bincount(found[:, 0].long(), minlength=3)
    assert 0 < counts.min() <= counts.max() <= 20
    outputs = exported(images).detection
    assert outputs.end_to_end
    assert outputs.boxes.shape[:2] == (3, counts.max())
    scores = outputs.logits.sigmoid()
    assert torch.allclose(scores.max(-1).values[0, : counts[0]], found[found[:, 0] == 0, 5], atol=1e-6)


def test_suppression_of_nothing_gives_empty_rows(tmp_path):
    recipe, vocabulary, network = made("yolov8n")
    exported = written(tmp_path, recipe, vocabulary, network, nms=True, conf=0.999)
    assert exported.raw(drawn_images(SIDE, 2))["detections"].shape == (0, 7)
    assert exported(drawn_images(SIDE, 2)).detection.logits.sigmoid().max() == 0


def test_a_file_of_another_network_is_caught(tmp_path):
    recipe, vocabulary, network = made("yolov8n")
    exported = written(tmp_path, recipe, vocabulary, network)
    with torch.no_grad():
        network.head.box_branches[0][-1].bias[0] += 0.5
    with pytest.raises(
        ExportError, match=r"onnx output 'boxes' differs from torch by .* px \(limit 0.01\) at image \d"
    ):
        expect_equal(exported, compare(exported, network, drawn_images(SIDE, 2)))
    assert PIXELS == 0.01


def test_what_cannot_be_exported_says_why(tmp_path, monkeypatch):
    recipe, vocabulary, network = made("yolov8n-obb")
    with pytest.raises(ExportError, match="oriented"):
        written(tmp_path, recipe, vocabulary, network, nms=True)
    with pytest.raises(ConfigError, match="multiple of 32"):
        written(tmp_path, recipe, vocabulary, network, imgsz=100)
    with pytest.raises(ConfigError, match="opset: expected 16 to 20"):
        ExportSettings(opset=9)
    with pytest.raises(ConfigError, match="onnx only"):
        ExportSettings(format="torchscript", nms=True)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"boxwright\[export\]"):
        written(tmp_path, recipe, vocabulary, network)


@pytest.mark.parametrize("opset", [18, *(pytest.param(opset, marks=pytest.mark.slow) for opset in (16, 20))])
def test_every_opset_is_written(tmp_path, opset):
    recipe, vocabulary, network = made("yolov8n")
    exported = written(tmp_path, recipe, vocabulary, network, opset=opset, nms=True, conf=0.001)
    expect_equal(exported, compare(exported, network, drawn_images(SIDE, 1)))


def test_a_file_that_is_no_export_is_refused(tmp_path):
    for suffix in ("onnx", "torchscript"):
        with pytest.raises(CheckpointError, match="no such file"):
            load_exported(tmp_path / f"m.{suffix}")
        (tmp_path / f"m.{suffix}").write_bytes(b"nothing")
        with pytest.raises(CheckpointError, match="damaged"):
            load_exported(tmp_path / f"m.{suffix}")


def test_a_file_of_one_size_says_so(tmp_path):
    recipe, vocabulary, network = made("yolov8n")
    exported = written(tmp_path, recipe, vocabulary, network)
    with pytest.raises(ShapeError, match=r"64x64 px, got 96x96.*--dynamic"):
        exported(torch.rand(1, 3, 96, 96))


def test_a_threshold_above_every_score_is_lowered_for_the_comparison_and_named(tmp_path):
    recipe, vocabulary, network = made("yolov8n")
    exported = written(tmp_path, recipe, vocabulary, network, nms=True, conf=0.999)
    before = exported.path.read_bytes()

    differences = compare(exported, network, drawn_images(SIDE, 2))

    expect_equal(exported, differences)
    (conf,) = {found.conf for found in differences}
    scores = network(drawn_images(SIDE, 2)).detection.logits.sigmoid().amax(-1)
    assert 50 < int((scores > conf).sum()) < 400  # there was something to compare
    assert exported.path.read_bytes() == before
    with torch.no_grad():
        network.head.box_branches[0][-1].bias[0] += 0.5
    with pytest.raises(ExportError, match=r"onnx output '(boxes|kept)' differs from torch"):
        expect_equal(exported, compare(exported, network, drawn_images(SIDE, 2)))


def suppression(boxes, scores, rows, conf=0.1, iou=0.5, max_det=10):
    """What verification says of rows (box, score, label) that a file kept of candidates of two classes."""
    boxes, scores = torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores, dtype=torch.float32)
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    closest = torch.cdist(rows[:, :4], boxes).argmin(-1)
    return float(_wrong(boxes, scores, rows, closest, {"conf": conf, "iou": iou, "max_det": max_det}))


A, NEAR_A, FAR = (0, 0, 10, 10), (0, 0, 10, 8), (50, 50, 60, 60)


@pytest.mark.parametrize(
    ("rows", "share"),
    [
        ([(*A, 0.9, 0), (*FAR, 0.5, 0)], 0),
        ([(*NEAR_A, 0.9, 0), (*FAR, 0.5, 0)], 0),  # the tie the other way round
        ([(*A, 0.9, 0), (*NEAR_A, 0.9, 0), (*FAR, 0.5, 0)], 2 / 3),  # both: nothing was suppressed
        ([(*A, 0.9, 0)], 1 / 3),  # the other object is lost
        ([(*FAR, 0.5, 0)], 2 / 3),  # the two others are
        ([], 1),
    ],
)
def test_ties_may_go_either_way_and_nothing_else(rows, share):
    assert suppression([A, NEAR_A, FAR], [(0.9, 0), (0.9, 0), (0.5, 0)], rows) == pytest.approx(share)


def test_classes_thresholds_and_limits_of_suppression():
    boxes, scores = [A, NEAR_A, FAR], [(0.9, 0), (0, 0.8), (0.05, 0)]
    both = [(*A, 0.9, 0), (*NEAR_A, 0.8, 1)]
    assert suppression(boxes, scores, both) == 0
    assert suppression(boxes, scores, both[:1]) == pytest.approx(1 / 2)  # another class suppresses nothing
    assert suppression(boxes, scores, [*both, (*FAR, 0.05, 0)]) == pytest.approx(1 / 3)  # below the threshold
    assert suppression(boxes, scores, both[:1], max_det=1) == 0
    assert suppression(boxes, scores, both[1:], max_det=1) == pytest.approx(1 / 2)  # not the best one
    assert suppression(boxes, scores, both, max_det=1) == pytest.approx(1 / 2)  # too many
    same_of_two = [(0.9, 0.9), (0.9, 0.9), (0.05, 0)]
    assert suppression(boxes, same_of_two, [(*A, 0.9, 1)]) == 0
