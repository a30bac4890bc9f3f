# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a run refuses or says about its data before it starts."""

import cv2
import numpy as np
import pytest
import torch

from boxwright.config import override
from boxwright.engine.assemble import assemble
from boxwright.engine.distributed import Ranks
from boxwright.engine.logs import Listener
from boxwright.errors import ConfigError
from boxwright.presets import preset

BOX, OUTLINE = "0 .5 .5 .4 .4\n", "0 .1 .1 .6 .1 .6 .75\n"


class Hearing(Listener):
    def __init__(self):
        self.warnings = []

    def message(self, text, severity="info"):
        if severity == "warning":
            self.warnings.append(text)


@pytest.fixture
def parts_of(tmp_path):
    def make(name, *labels, settings=()):
        for index, text in enumerate(labels):
            for split in ("train", "val"):
                for folder in ("images", "labels"):
                    (tmp_path / folder / split).mkdir(parents=True, exist_ok=True)
                picture = np.random.default_rng(index).integers(0, 255, (64, 64, 3), dtype=np.uint8)
                cv2.imwrite(str(tmp_path / f"images/{split}/{index}.png"), picture)
                (tmp_path / f"labels/{split}/{index}.txt").write_text(text)
        (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
        usual = [f"data.source={tmp_path / 'data.yaml'}", "data.imgsz=64", "train.batch=1", "train.workers=0"]
        recipe = override(preset(name, num_classes=1), [*usual, *settings])
        hearing = Hearing()
        parts = assemble(recipe, ranks=Ranks(), device=torch.device("cpu"), folder=tmp_path, listener=hearing)
        return parts, hearing.warnings

    return make


def test_a_segment_model_refuses_boxes_alone(parts_of, tmp_path):
    with pytest.raises(ConfigError) as caught:
        parts_of("yolov8n-seg", BOX * 1, BOX + "0 .3 .3 .2 .2\n")
    assert str(caught.value) == (
        f"{tmp_path / 'data.yaml'}: a segment model needs labels with outlines, and none of the 3 objects of the split "
        "'train' has one; choose a preset for boxes (without -seg), or labels with polygons or masks"
    )


def test_a_segment_model_says_how_many_objects_have_no_outline(parts_of, tmp_path):
    _, warnings = parts_of("yolov8n-seg", OUTLINE + BOX, OUTLINE)
    expected = "1 of 3 objects of the split 'train' have no outline; their masks are learned as their whole boxes"
    assert f"{tmp_path / 'data.yaml'}: {expected}" in warnings


def test_outlines_of_all_objects_need_no_word(parts_of):
    _, warnings = parts_of("yolov8n-seg", OUTLINE)
    assert not any("outline" in text for text in warnings)


def test_no_dataset_is_answered_with_every_format(tmp_path):
    with pytest.raises(ConfigError, match=r"data.source: no dataset; expected a YOLO data.yaml.* COCO JSON .*DOTA"):
        assemble(
            preset("yolov8n", num_classes=1), ranks=Ranks(), device=torch.device("cpu"), folder=tmp_path,
            listener=Listener(),
        )  # fmt: skip
