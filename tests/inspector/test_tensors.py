# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Files of other code bases: what is read is what a direct call computes; what is wrong is named."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from boxwright.errors import ConfigError, DataError, ShapeError
from boxwright.inspector.probe import inspect
from boxwright.inspector.tensors import read_tensors
from boxwright.losses import from_yolov8_maps, targets_from_rows, yolov8_detect

SIZE, STRIDES = (64, 96), (8, 16, 32)
ROWS = {
    "targets.image": np.array([0, 0, 1]),
    "targets.label": np.array([1, 0, 2]),
    "targets.boxes": np.array([[0.5, 0.5, 0.4, 0.6], [0.2, 0.3, 0.2, 0.2], [0.6, 0.4, 0.5, 0.5]], np.float32),
}
ABOUT = {
    "format": "boxwright-tensors/1",
    "head": "yolov8",
    "criterion": "yolov8_detect",
    "image_size": SIZE,
    "num_classes": 3,
    "strides": STRIDES,
    "num_bins": 16,
    "names": ["a", "b", "c"],
}


def maps(channels=67, seed=0):
    make = np.random.default_rng(seed)
    return [make.standard_normal((2, channels, SIZE[0] // s, SIZE[1] // s)).astype(np.float32) for s in STRIDES]


def arrays(**more):
    return {f"maps.{level}": part for level, part in enumerate(maps())} | ROWS | more


def write(path, about, held):
    text = json.dumps(about)
    if path.suffix == ".npz":
        np.savez(path, about=np.array(text), **held)
    else:
        save_file(
            {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in held.items()}, path, {"about": text}
        )
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_gives_the_loss_of_a_direct_call(tmp_path, suffix):
    found = read_tensors(write(tmp_path / f"batch{suffix}", ABOUT, arrays()))

    outputs = from_yolov8_maps([torch.from_numpy(m) for m in maps()], STRIDES, num_classes=3, num_bins=16)
    rows = [torch.from_numpy(ROWS[f"targets.{name}"]) for name in ("image", "label", "boxes")]
    targets = targets_from_rows(*rows, batch=2, image_size=SIZE)
    expected = yolov8_detect()(outputs, targets).total.item()
    inspection = inspect(found.outputs, found.targets, found.criterion, names=found.about.names)
    assert inspection.total == expected
    assert inspection.objects["class"].tolist() == ["b", "a", "c"]


def test_two_branches_and_options(tmp_path):
    held = arrays(**{f"one2many.maps.{level}": part for level, part in enumerate(maps(seed=1))})
    about = ABOUT | {"criterion": "end_to_end_detect", "options": {"topk": 5}}

    found = read_tensors(write(tmp_path / "batch.npz", about, held))

    inspection = inspect(found.outputs, found.targets, found.criterion)
    assert inspection.terms["term"][0] == "one2many/box"
    assert {part.role for part in (found.outputs.final, *found.outputs.auxiliary)} == {"one2one", "one2many"}


def test_anchors(tmp_path):
    make = np.random.default_rng(3)
    held = ROWS | {
        f"maps.{level}": make.standard_normal((2, 1, SIZE[0] // s, SIZE[1] // s, 8)).astype(np.float32)
        for level, s in enumerate(STRIDES)
    }
    about = ABOUT | {"head": "yolov5", "criterion": "yolov5_detect", "anchors": [[[10, 13]], [[30, 61]], [[116, 90]]]}

    found = read_tensors(write(tmp_path / "batch.npz", about, held))

    assert inspect(found.outputs, found.targets, found.criterion).total > 0


def test_layers(tmp_path):
    make = np.random.default_rng(4)
    held = ROWS | {
        "boxes": make.uniform(0.2, 0.8, (3, 2, 20, 4)).astype(np.float32),
        "logits": make.standard_normal((3, 2, 20, 3)).astype(np.float32),
    }

    found = read_tensors(write(tmp_path / "batch.npz", ABOUT | {"head": "detr", "criterion": "rtdetr"}, held))

    terms = inspect(found.outputs, found.targets, found.criterion).terms["term"].tolist()
    assert any(name.startswith("encoder/") for name in terms)


@pytest.mark.parametrize(
    ("about", "held", "error", "message"),
    [
        (ABOUT | {"format": "other"}, {}, DataError, "about.format: expected 'boxwright-tensors/1', got 'other'"),
        (ABOUT | {"criterion": "yolov8_detct"}, {}, ConfigError, "did you mean 'yolov8_detect'"),
        (ABOUT | {"options": {"topkk": 3}}, {}, ConfigError, "about.options: .*topkk"),
        (ABOUT | {"num_classes": "many"}, {}, ConfigError, "about.*num_classes"),
        (ABOUT | {"strides": ()}, {}, ConfigError, "about.strides"),
        (ABOUT | {"num_classes": 5}, {}, ShapeError, "num_classes"),
        (ABOUT, {"targets.boxes": None}, DataError, "there is no array 'targets.boxes'; it holds maps.0"),
    ],
)
def test_mistakes_are_named(tmp_path, about, held, error, message):
    full = {name: part for name, part in (arrays() | held).items() if part is not None}

    with pytest.raises(error, match=message):
        read_tensors(write(tmp_path / "batch.npz", about, full))


def test_objects_in_an_npz_are_never_unpickled(tmp_path):
    path = tmp_path / "batch.npz"
    np.savez(path, about=np.array(json.dumps(ABOUT)), trap=np.array([{"a": 1}], dtype=object))

    with pytest.raises(DataError, match="without running code"):
        read_tensors(path)


def test_damage_and_absence(tmp_path):
    (tmp_path / "half.safetensors").write_bytes(b"\x00\x01")
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04")
    for name in ("half.safetensors", "half.npz", "none.npz"):
        with pytest.raises(DataError, match=name):
            read_tensors(tmp_path / name)
