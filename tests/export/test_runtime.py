# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Predictor and validator take an exported file for a network."""

import json

import pytest
import torch
from tests.export.test_export import made
from typer.testing import CliRunner

from boxwright import api
from boxwright.api.export import export
from boxwright.config import to_yaml
from boxwright.drawn.synthetic import draw_dataset
from boxwright.errors import CheckpointError
from boxwright.export.export import ExportSettings
from boxwright.models.weights import save_weights

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp("data") / "scenes", train=2, val=3, imgsz=64, seed=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    recipe, _, network = made("yolov8n")
    for branch in network.head.class_branches:
        branch[-1].bias.data += 6
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    names = ["circle", "square", "triangle"]
    save_weights(
        path,
        network.state_dict(),
        {"recipe": to_yaml(recipe), "names": json.dumps(names), "class_ids": "[0, 1, 2]", "epoch": "1"},
    )
    return path


@pytest.mark.parametrize(
    "settings",
    [
        {"dynamic": True},
        {"format": "torchscript", "batch": 2},
        {"dynamic": True, "nms": True, "conf": 0.25, "iou": 0.7},
    ],
)
def test_an_exported_file_predicts_as_the_weights(tmp_path, weights, scenes, settings):
    model = api.load(weights)
    exported = export(model, tmp_path / f"m.{settings.get('format', 'onnx')}", ExportSettings(imgsz=64, **settings))
    assert api.load(exported.path).names == model.names
    images = sorted((scenes.parent if scenes.is_file() else scenes).rglob("*.jpg")) or sorted(
        (scenes.parent if scenes.is_file() else scenes).rglob("*.png")
    )
    wanted = model.predictor(imgsz=64, precision="fp32", minimal=False)(images)
    found = exported(images, precision="fp32")
    assert sum(map(len, wanted)) > 0
    for one, other in zip(wanted, found, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        assert torch.allclose(one.boxes, other.boxes, atol=0.01)
        assert torch.allclose(one.scores, other.scores, atol=1e-4)


def test_weights_that_are_exported_already_are_no_source(tmp_path, weights):
    exported = export(api.load(weights), tmp_path / "m.torchscript", ExportSettings(format="torchscript", imgsz=64))
    with pytest.raises(CheckpointError, match="exported already"):
        export(exported)


def test_the_command_writes_and_verifies(tmp_path, weights):
    from boxwright.cli.app import app

    out = tmp_path / "m.onnx"
    words = ["export", str(weights), "--imgsz", "64", "--dynamic", "--verify", "--out", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert out.is_file()
    assert "boxes: largest difference" in result.output
