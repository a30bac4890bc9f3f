# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Short trainings that end where they always end: a change of training is seen the day it lands.

A dense head, a head with anchors and a head of keypoints learn drawn figures for 250 steps. The bounds are the lowest
and the highest value of three or four seeds (beside each), widened by at least the spread between them: rounding
differs by machine, and chance decides more in a short training than in a long one.
"""

import csv
import os
import subprocess
import sys

import pytest

from boxwright.drawn.synthetic import draw_dataset

EPOCHS = 2
SETTINGS = (
    "train.optimizer=adamw", "train.lr0=0.002", "train.nominal_batch=8", "train.warmup_epochs=0.1",
    "train.warmup_floor=50", "train.ema_warmup=50", f"train.val_every={EPOCHS}",
    "evaluation.plots=false", "augment.mosaic=0.0", "augment.scale=0.0", "augment.translate=0.0",
    "augment.hsv_h=0.0", "augment.hsv_s=0.0", "augment.hsv_v=0.0",
)  # fmt: skip
BOUNDS = {
    "yolov8n": {"val/box/ap50": (0.60, 0.78), "train/total": (3.8, 4.6)},  # 0.68 to 0.70, 4.06 to 4.30
    "yolov5n": {"val/box/ap50": (0.02, 0.80), "train/total": (0.074, 0.089)},  # 0.12 to 0.49, 0.079 to 0.084
    "yolov8n-pose": {"val/pose/ap50": (0.64, 0.82), "train/total": (5.7, 6.8)},  # 0.71 to 0.76, 6.03 to 6.40
}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp("people") / "set", train=1000, val=60, imgsz=96, task="pose")


@pytest.mark.parametrize("name", BOUNDS)
def test_a_short_training_ends_where_it_always_ends(name, people, tmp_path):
    # As a command: the shape checks of the tests would cost more than the training.
    words = [
        sys.executable, "-m", "boxwright", "train", name, "--data", str(people), "--imgsz", "96", "--batch", "8",
        "--epochs", str(EPOCHS), "--workers", "0", "--out", str(tmp_path / "run"),
        *(word for setting in SETTINGS for word in ("--set", setting)),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    with (tmp_path / "run" / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]

    scores = {metric: float(last[metric]) for metric in BOUNDS[name]}
    outside = {
        metric: scores[metric] for metric, (low, high) in BOUNDS[name].items() if not low <= scores[metric] <= high
    }
    assert not outside, f"{name}: {outside} outside of {BOUNDS[name]}"
