# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How many training images per second does one core prepare, beside the peer?

Mosaic, affine, HSV and flip at 640 px on real photographs, no worker processes, nothing cached beforehand. The peer is
`ultralytics`, run through its public loader; without it only our rows are printed. Run it with torchvision available.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import torch

import harness
from boxwright.datasets.dataset import DataConfig, read_split
from boxwright.datasets.formats import open_dataset
from boxwright.loading.augment.pipeline import AugmentConfig
from boxwright.loading.loader import train_loader

BATCH = 16


def convert(source: Path, folder: Path) -> Path:
    """The train, val and test images of a dataset as one YOLO training folder, for both loaders alike."""
    header = open_dataset(source)
    config = DataConfig(source=str(source))
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for split in header.splits:
        for record in read_split(header, split, config).records:
            (folder / "images" / record.image.name).write_bytes(record.image.read_bytes())
            height, width = record.size
            rows = []
            for label, (x1, y1, x2, y2) in zip(record.instances.labels, record.instances.boxes.tolist(), strict=True):
                box = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
                rows.append(" ".join([str(label), *(f"{value:.7f}" for value in box)]))
            (folder / "labels" / record.image.with_suffix(".txt").name).write_text("\n".join(rows))
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(header.names))
    path = folder / "data.yaml"
    path.write_text(f"path: {folder}\ntrain: images\nval: images\nnames:\n{names}")
    return path


def endless(loader: Any, set_epoch: Callable[[int], None]) -> Iterator[Any]:
    """Batches of one epoch after another."""
    epoch = 0
    while True:
        set_epoch(epoch)
        yield from loader
        epoch += 1


def ours(data: Path, imgsz: int) -> Iterator[Any]:
    """Our loader with the default augmentations."""
    config = DataConfig(source=str(data), imgsz=imgsz)
    records = read_split(open_dataset(data), "train", config)
    loader = train_loader(records, config, AugmentConfig(), batch=BATCH, seed=0, workers=0, epochs=10**6)
    return endless(loader, loader.set_epoch)


def peer(data: Path, imgsz: int) -> Iterator[Any] | None:
    """The peer's loader with its default augmentations, or None where it is not installed."""
    os.environ.setdefault("YOLO_VERBOSE", "false")
    try:
        from ultralytics.cfg import get_cfg
        from ultralytics.data import build_dataloader, build_yolo_dataset
        from ultralytics.data.utils import check_det_dataset
    except ImportError:
        return None
    settings = get_cfg(overrides={"imgsz": imgsz, "mode": "train", "task": "detect", "data": str(data)})
    described = check_det_dataset(str(data))
    dataset = build_yolo_dataset(settings, described["train"], BATCH, described, mode="train", rect=False, stride=32)
    loader = build_dataloader(dataset, BATCH, 0, shuffle=True)
    return endless(loader, lambda epoch: None)


def main() -> None:
    """Runs both loaders in turn and prints images per second."""
    parser = harness.arguments(__doc__)
    parser.add_argument("--data", default=os.environ.get("BOXWRIGHT_DATA", "../shared/data") + "/bccd")
    parser.add_argument("--imgsz", type=int, default=640)
    options = parser.parse_args()
    harness.warm_heap()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = convert(Path(options.data), Path(folder) / "data")
        streams = {"ours": ours(data, options.imgsz), "peer": peer(data, options.imgsz)}
        running = {name: stream for name, stream in streams.items() if stream is not None}
        cv2.setNumThreads(options.threads)  # the peer sets its own number when imported
        seconds = harness.medians(
            {name: (lambda stream=stream: next(stream)) for name, stream in running.items()}, options.repeats, warmup=12
        )
    rates = {name: BATCH / value for name, value in seconds.items()}
    for name, rate in rates.items():
        print(f"{name:6} {rate:8.1f} images/s  {1000 / rate:6.2f} ms an image")
    row: dict[str, Any] = {"imgsz": options.imgsz, "batch": BATCH, "images_per_second": rates}
    if "peer" in rates:
        row["ratio"] = rates["ours"] / rates["peer"]
        print(f"ratio  {row['ratio']:8.2f}")
    if not options.no_record:
        harness.record("loader", row)


if __name__ == "__main__":
    main()
