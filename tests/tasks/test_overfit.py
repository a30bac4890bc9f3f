# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every task learns eight drawn images by heart: what labels say comes back out through the whole machine."""

import time

import pytest

import boxwright as bw
from boxwright.drawn.synthetic import draw_dataset

# Nothing moves, and every half of the set is a step: the running batch statistics forget their start by 3 % a step, so
# a run needs some 400 steps before a folded network computes what the trained one did; batches of 1 or 2 are too small
# for the statistics themselves.
STILL = (
    "augment.mosaic=0",
    "augment.scale=0",
    "augment.translate=0",
    "augment.fliplr=0",
    "augment.hsv_h=0",
    "augment.hsv_s=0",
    "augment.hsv_v=0",
    "train.warmup_epochs=2",
    "train.warmup_floor=0",
    "train.nominal_batch=4",
    "train.lrf=0.05",
    "augment.auto_augment=none",
    "augment.erasing=0",
    "train.val_every=1000",
    "evaluation.plots=false",
)
CASES = {
    "detect": ("yolov8n", "box/ap50", 210),
    "segment": ("yolov8n-seg", "mask/ap50", 200),
    "pose": ("yolov8n-pose", "pose/ap50", 200),
    "obb": ("yolov8n-obb", "obb/ap50", 200),
    "classify": ("yolov8n-cls", "top1", 120),
}


def fitted(preset, task, tmp_path, *, epochs, imgsz=128, settings=(), **keywords):
    data = draw_dataset(tmp_path / "scenes", task=task, train=8, val=8, imgsz=imgsz, seed=8)
    run = bw.train(
        preset,
        data=data,
        out=tmp_path / "run",
        epochs=epochs,
        imgsz=imgsz,
        batch=4,
        settings=[*STILL, *settings],
        **keywords,
    )
    return bw.load(run.folder / "weights" / "last.safetensors").validate(split="train").result.metrics


@pytest.mark.slow
@pytest.mark.parametrize("task", CASES)
def test_eight_images_are_learned_by_heart(task, tmp_path):
    preset, metric, epochs = CASES[task]
    began = time.monotonic()

    metrics = fitted(preset, task, tmp_path, epochs=epochs, settings=["train.lr0=0.002"])

    assert metrics[metric] >= 0.95, metrics
    assert time.monotonic() - began < 120


@pytest.mark.slow
@pytest.mark.timeout(1800)  # some seven minutes on one free core
def test_the_smallest_query_model_learns_eight_images_by_heart(tmp_path):
    metrics = fitted("rtdetr-r18", "detect", tmp_path, epochs=150, settings=["train.lr0=0.0004"])

    assert metrics["box/ap50"] >= 0.95, metrics
