# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Files that are no weights, or not the right ones: every command names the file, what it expected, what it got."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from boxwright.cli import app as cli
from boxwright.config import to_yaml
from boxwright.drawn.synthetic import draw_dataset
from boxwright.errors import BoxwrightError
from boxwright.models.weights import save_weights
from boxwright.presets import preset

NAMES = ["circle", "square", "triangle", "cross"]  # of the drawn scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, datasets, and every kind of bad file."""
    root = tmp_path_factory.mktemp("files")
    for task in ("detect", "classify"):
        draw_dataset(root / task, task=task, train=2 if task == "detect" else 8, val=2, imgsz=64)
    save_file({"a": torch.zeros(1)}, root / "plain.safetensors")
    torch.save({"model": {"model.0.conv.weight": torch.zeros(4, 3, 3, 3)}}, root / "whole.pt")
    torch.save({"model": {"encoder.weight": torch.zeros(1)}}, root / "unknown.pt")
    ours(root / "detect.safetensors", "yolov8n", NAMES)
    ours(root / "two.safetensors", "yolov8n", ["circle", "dog"])
    ours(root / "sorted.safetensors", "yolov8n", sorted(NAMES))  # the order of folders of images
    ours(root / "classify.safetensors", "yolov8n-cls", NAMES)
    ours(root / "badnames.safetensors", "yolov8n", NAMES, names='["circle", "squ')
    ours(root / "fewnames.safetensors", "yolov8n", NAMES, names='["circle"]')
    ours(root / "badids.safetensors", "yolov8n", NAMES, class_ids='["a", "b", "c", "d"]')
    ours(root / "badrecipe.safetensors", "yolov8n", NAMES, recipe="model: {kind: nothing}")
    ours(root / "other.safetensors", "yolov8n", ["a", "b"], **told("yolov8n", NAMES))
    damage(root)
    return root


@cache
def tensors(name, classes):
    torch.manual_seed(0)
    return preset(name, num_classes=classes).model.build().state_dict()


def told(name, known):
    """What a weights file says about itself."""
    recipe = to_yaml(preset(name, num_classes=len(known)))
    return {"recipe": recipe, "names": json.dumps(known), "class_ids": json.dumps([*range(len(known))])}


def ours(file, name, known, **metadata):
    save_weights(file, tensors(name, len(known)), told(name, known) | metadata)


def damage(root: Path) -> None:
    whole, pickled = (root / "detect.safetensors").read_bytes(), (root / "whole.pt").read_bytes()
    (root / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (root / "head.safetensors").write_bytes(whole[:300])
    (root / "empty.safetensors").write_bytes(b"")
    (root / "damaged.safetensors").write_bytes(whole[:40] + b"\xff" * 20 + whole[60:])
    flipped = bytes(value ^ 0x40 for value in whole[-2000:-1000])
    (root / "flipped.safetensors").write_bytes(whole[:-2000] + flipped + whole[-1000:])
    (root / "cut.pt").write_bytes(pickled[: len(pickled) // 2])
    (root / "damaged.pt").write_bytes(pickled[:200] + b"\xff" * 60 + pickled[260:])
    (root / "empty.pt").write_bytes(b"")
    (root / "cut.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")


def said(folder, monkeypatch, *words):
    """What a command says, run in the folder; (True, output) where it succeeds."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "400")
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if isinstance(result.exception, BoxwrightError):
        return False, f"{type(result.exception).__name__}: {result.exception}"
    if result.exception is not None:
        raise result.exception
    return True, result.output


CUT = ("not a whole safetensors file", "damaged or cut short, use another checkpoint")
PICKLE = ("this is a pickle (.pt, .pth), which can run code", "`boxwright import` makes of it")
# Bad at every use: file -> words of the message.
UNREADABLE = {
    "cut.safetensors": CUT,
    "head.safetensors": CUT,
    "empty.safetensors": CUT,
    "damaged.safetensors": CUT,
    "flipped.safetensors": ("the tensors were changed after they were written (checksum", "use another checkpoint"),
    "whole.pt": PICKLE,
    "none.safetensors": ("no such file or folder", "expected a .safetensors file or a run folder"),
}
# Readable, but nothing to predict with.
USELESS = {
    "plain.safetensors": ("expected a checkpoint of format boxwright/1, got none", "`boxwright import` reads"),
    "badnames.safetensors": ('names: expected a list of 4, one for each class of its model, got ["circle", "squ',),
    "fewnames.safetensors": ("names: expected a list of 4", "got 1 of them", "use another checkpoint"),
    "badids.safetensors": ("class_ids: expected a list of 4",),
    "badrecipe.safetensors": ("model: expected kind 'detector' or 'classifier', got",),
    "other.safetensors": ("head.class_branches.0.2.bias (file 2, model 4)", "nothing was loaded"),
    "cut.onnx": ("damaged or no ONNX file",),
}


@pytest.mark.parametrize("file", [*UNREADABLE, *USELESS])
def test_predict_refuses_what_are_no_weights(folder, monkeypatch, file):
    if file.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    done, text = said(folder, monkeypatch, "predict", "detect/images/val", "--weights", file)
    assert not done
    assert all(words in text for words in (file, *(UNREADABLE | USELESS)[file])), text


@pytest.mark.parametrize("file", ["cut.safetensors", "whole.pt", "plain.safetensors", "fewnames.safetensors"])
def test_val_refuses_what_are_no_weights(folder, monkeypatch, file):
    done, text = said(folder, monkeypatch, "val", "--weights", file, "--data", "detect/data.yaml")
    assert not done
    assert all(words in text for words in (file, *(UNREADABLE | USELESS)[file])), text


@pytest.mark.parametrize(
    ("file", "data", "words"),
    [
        (
            "two.safetensors",
            "detect/data.yaml",
            (
                "expected the 2 classes",
                "(circle, dog), got 4 (circle, square",
                "train on this one from these weights (--weights)",
            ),
        ),
        ("sorted.safetensors", "classify", ("data.task: expected 'classify'", "got 'detect'", "choose a preset")),
    ],
)
def test_val_refuses_weights_for_other_classes_or_another_task(folder, monkeypatch, file, data, words):
    done, text = said(folder, monkeypatch, "val", "--weights", file, "--data", data)
    assert not done
    assert all(part in text for part in (data, *words)), text


def train(folder, monkeypatch, file, out):
    small = (
        "--imgsz",
        64,
        "--epochs",
        1,
        "--batch",
        2,
        "--workers",
        0,
        "--out",
        out,
        "--set",
        "evaluation.plots=false",
    )
    return said(folder, monkeypatch, "train", "yolov8n", "--data", "detect/data.yaml", "--weights", file, *small)


@pytest.mark.parametrize("file", [*UNREADABLE, "plain.safetensors", "cut.onnx"])
def test_train_refuses_what_it_can_take_nothing_from(folder, monkeypatch, tmp_path, file):
    words = UNREADABLE | {
        "plain.safetensors": ("no tensor fits the model", "1 not in the model: a", "nothing was loaded"),
        "cut.onnx": ("an exported file cannot be trained on", "expected the weights (.safetensors)"),
    }
    done, text = train(folder, monkeypatch, file, tmp_path / "run")
    assert not done
    assert all(part in text for part in (file, *words[file])), text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("classify.safetensors", "made for classify, this run is for detect: what fits is taken; "),
        ("two.safetensors", "6 class rows copied by name"),
        ("badnames.safetensors", "tensors loaded"),
    ],
)
def test_train_says_what_it_took_of_weights_for_something_else(folder, monkeypatch, tmp_path, file, words):
    done, text = train(folder, monkeypatch, file, tmp_path / "run")
    assert done
    assert file in text
    assert words in text


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("cut.pt", ("damaged or cut short", "fetch or copy it again")),
        ("damaged.pt", ("damaged or cut short", "fetch or copy it again")),
        ("empty.pt", ("not a checkpoint of torch; expected a zip archive or a pickle, got b''",)),
        ("unknown.pt", ("expected tensors named as by YOLOv5", "got encoder.weight")),
        ("cut.safetensors", CUT),
        ("plain.safetensors", ("expected tensors named as by YOLOv5", "got a")),
        ("detect.safetensors", ("the names of our own weights", "give it as --weights")),
        ("none.pt", ("no such file; expected a checkpoint",)),
        ("cut.onnx", ("not a checkpoint of torch",)),
    ],
)
def test_import_refuses_what_it_cannot_read(folder, monkeypatch, tmp_path, file, words):
    done, text = said(folder, monkeypatch, "import", file, "--out", tmp_path / "out.safetensors")
    assert not done
    assert all(part in text for part in (file, *words)), text
    assert not any(tmp_path.iterdir())
