# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How long does `boxwright audit` take on a label set of COCO's size, and how much memory?

Draws one COCO JSON file of 118 000 images and 860 000 objects (80 classes of unequal frequency, sizes like COCO's) and
its image files: hard links to eight small pictures, so that every header is opened and read as in a real dataset. Then
audits it in a fresh process without a label cache, with `--no-images`: pixels cost a decode of each image on top, which
`--pixels N` measures on N drawn photographs. A lone COCO file says nothing of splits: all of it is looked at twice, as
train and as val. The goal is 3 minutes and 4 GiB on 2 cores.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from harness import arguments, start

IMAGES, OBJECTS, CLASSES = 118_000, 860_000, 80
SIZES = ((640, 480), (640, 427), (480, 640), (640, 426), (427, 640), (500, 375), (640, 360), (612, 612))  # px, (w, h)
SECONDS, GIB = 180.0, 4.0  # goals
SMOKE = {"images": 40, "objects": 200, "pixels": 2}
ROWS = ("no label cache", "again, with it", "with pixels")


def draw(folder: Path, images: int, objects: int, seed: int = 0) -> Path:
    """The COCO file of a drawn label set, beside its images."""
    rng = np.random.default_rng(seed)
    (folder / "train").mkdir(parents=True)
    for place, (width, height) in enumerate(SIZES):
        picture = np.full((height, width, 3), 90 + place, np.uint8)
        cv2.imwrite(str(folder / f"{place}.png"), picture)
    kinds = rng.integers(0, len(SIZES), images)
    names = [f"{number:012d}.png" for number in range(images)]
    for name, kind in zip(names, kinds.tolist(), strict=True):
        os.link(folder / f"{kind}.png", folder / "train" / name)
    size = np.array(SIZES, np.float64)
    owner = rng.choice(images, objects, p=_uneven(rng, images))
    shares = 1 / np.arange(1, CLASSES + 1)
    labels = rng.choice(CLASSES, objects, p=shares / shares.sum()) + 1
    side = np.exp(rng.normal(np.log(45), 1.1, objects))  # px; COCO: two fifths of the objects are below 32 px
    wh = np.clip(side[:, None] * np.exp(rng.normal(0, 0.35, (objects, 1))) ** [1, -1], 1, size[kinds[owner]] - 1)
    corner = rng.uniform(0, 1, (objects, 2)) * (size[kinds[owner]] - wh)
    boxes = np.round(np.concatenate((corner, wh), axis=1), 2).tolist()
    content = {
        "images": [
            {"id": number, "file_name": name, "width": SIZES[kind][0], "height": SIZES[kind][1]}
            for number, (name, kind) in enumerate(zip(names, kinds.tolist(), strict=True))
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for number, (image, label, box) in enumerate(zip(owner.tolist(), labels.tolist(), boxes, strict=True))
        ],
        "categories": [{"id": number + 1, "name": f"class {number}"} for number in range(CLASSES)],
    }
    (folder / "annotations").mkdir()
    file = folder / "annotations" / "instances_train.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def _uneven(rng: np.random.Generator, images: int) -> np.ndarray:
    weight = rng.gamma(1.2, 1.0, images)
    shares: np.ndarray = weight / weight.sum()
    return shares


def photographs(folder: Path, count: int) -> Path:
    """A YOLO folder of noisy JPEG files of 640 x 480 px, each with a label."""
    rng = np.random.default_rng(0)
    for part in ("images/train", "labels/train", "images/val", "labels/val"):
        (folder / part).mkdir(parents=True)
    for split, number in [("val", 0), *(("train", number) for number in range(count))]:
        coarse = rng.integers(0, 255, (30, 40, 3), np.uint8)
        picture = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        picture = cv2.add(picture, rng.integers(0, 25, picture.shape, np.uint8))
        cv2.imwrite(str(folder / f"images/{split}/{number:06d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        (folder / f"labels/{split}/{number:06d}.txt").write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    return folder


def one(source: str, pixels: bool) -> dict[str, Any]:
    """One audit in this process: seconds by stage, peak memory, findings."""
    from boxwright.api.audit import setting_of
    from boxwright.auditor.run import audit_dataset
    from boxwright.presets import preset

    setting = setting_of(preset("yolov8n"), "yolov8n")
    stages: dict[str, list[float]] = {}  # first and last time heard of
    start, begun = time.perf_counter(), time.process_time()

    def on_progress(stage: str, done: int, total: int) -> None:
        now = time.perf_counter() - start
        stages.setdefault(stage, [now, now])[1] = now

    on_progress("begin", 0, 0)
    found = audit_dataset(source, setting, pixels=pixels, on_progress=on_progress)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - begun,
        "load": os.getloadavg()[0],
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "stages": {name: round(end - begun, 2) for name, (begun, end) in stages.items()},
        "reading_ends_at": round(max(ended for name, (_, ended) in stages.items() if "label" in name), 2),
        "images": sum(len(labels.images) for labels in found.labels.values()),
        "objects": sum(len(labels) for labels in found.labels.values()),
        "findings": {finding.code: finding.count for finding in found.findings},
    }


def fresh(source: Path, pixels: bool, cache: Path) -> dict[str, Any]:
    """`one` in a process of its own, so that memory is that of the audit alone, and without a label cache."""
    command = [sys.executable, __file__, "--child", str(source), *(["--child-pixels"] if pixels else [])]
    done = subprocess.run(
        command, env={**os.environ, "BOXWRIGHT_CACHE": str(cache)}, check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def rows() -> list[str]:
    """Names of the table's rows."""
    return list(ROWS)


def show(title: str, result: dict[str, Any]) -> None:
    """One line."""
    print(
        f"{title:14s}  {result['seconds']:.1f} s (goal {SECONDS:g}), peak {result['peak_gib']:.2f} GiB (goal {GIB:g}); "
        f"{result['cpu_seconds']:.1f} s of processor time, load {result['load']:.1f}; labels read after "
        f"{result['reading_ends_at']} s",
        flush=True,
    )


def main() -> None:
    """Prints the table and appends the line."""
    parser = arguments(__doc__, timed=False)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--pixels", type=int, default=1000, help="photographs that decoding is measured on; 0: none")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--child-pixels", action="store_true", help=argparse.SUPPRESS)
    bench = start("audit", parser, rows())
    chosen = bench.options
    if bench.smoke:
        vars(chosen).update(SMOKE)
    if chosen.child:
        print(json.dumps(one(chosen.child, chosen.child_pixels)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("drawing ...", flush=True)
        source = draw(folder / "coco", chosen.images, chosen.objects)
        megabytes = source.stat().st_size / 2**20
        labels = fresh(source, False, folder / "cache")
        show(ROWS[0], labels)
        again = fresh(source, False, folder / "cache")
        show(ROWS[1], again)
        seen = None
        if chosen.pixels:
            seen = fresh(photographs(folder / "photographs", chosen.pixels), True, folder / "cache2")
    print(f"  {labels['images']} images, {labels['objects']} objects in both splits, {megabytes:.0f} MB of JSON")
    print(f"  findings: {labels['findings']}")
    result = {"labels": labels, "again": again, "json_mb": megabytes}
    if seen is not None:
        spent = seen["stages"]["looking at train images"]
        bench.show(ROWS[2], {"ms for each JPEG of 640 x 480 px": f"{1000 * spent / chosen.pixels:.2f}"})
        result["pixels_ms"] = 1000 * spent / chosen.pixels
    bench.keep(result)


if __name__ == "__main__":
    main()
