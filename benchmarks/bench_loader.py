# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How many training images per second does one core prepare, beside the peer?

Mosaic, affine, HSV and flip at 640 px on real photographs, no worker processes, nothing cached beforehand. The peer is
`ultralytics`, run through its public loader; without it only our rows are printed. Run it with torchvision available.
The photographs are those in the folder `bccd` of `BOXWRIGHT_DATA`; a smoke run takes drawn scenes where there are none.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from boxwright.datasets.dataset import DataConfig, read_split
from boxwright.datasets.formats import open_dataset
from boxwright.drawn.synthetic import draw_dataset
from boxwright.loading.augment.pipeline import AugmentConfig
from boxwright.loading.loader import train_loader
from harness import absent, arguments, start

DATA = Path(os.environ.get("BOXWRIGHT_DATA") or Path(__file__).parents[2] / "shared" / "data") / "bccd"
BATCH = 16
SMOKE = {"imgsz": 64, "batch": 2}
SMOKE_IMAGES = 4  # of each split


def convert(source: Path, folder: Path, most: int | None = None) -> Path:
    """The train, val and test images of a dataset as one YOLO training folder, for both loaders alike.

    With `most`, only so many images of each split.
    """
    header = open_dataset(source)
    config = DataConfig(source=str(source))
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for split in header.splits:
        for record in read_split(header, split, config).records[:most]:
            image = folder / "images" / f"{split}-{record.image.name}"
            image.write_bytes(record.image.read_bytes())
            height, width = record.size
            rows = []
            for label, (x1, y1, x2, y2) in zip(record.instances.labels, record.instances.boxes.tolist(), strict=True):
                box = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
                rows.append(" ".join([str(label), *(f"{value:.7f}" for value in box)]))
            (folder / "labels" / image.with_suffix(".txt").name).write_text("\n".join(rows))
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


def ours(data: Path, imgsz: int, batch: int) -> Iterator[Any]:
    """Our loader with the default augmentations."""
    config = DataConfig(source=str(data), imgsz=imgsz)
    records = read_split(open_dataset(data), "train", config)
    loader = train_loader(records, config, AugmentConfig(), batch=batch, seed=0, workers=0, epochs=10**6)
    return endless(loader, loader.set_epoch)


def peer(data: Path, imgsz: int, batch: int) -> Iterator[Any] | None:
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
    dataset = build_yolo_dataset(settings, described["train"], batch, described, mode="train", rect=False, stride=32)
    loader = build_dataloader(dataset, batch, 0, shuffle=True)
    return endless(loader, lambda epoch: None)


def rows() -> list[str]:
    """Names of the table's rows."""
    return ["ours", "peer"]


def photographs(source: Path, folder: Path, *, smoke: bool) -> Path:
    """The dataset to load, in `folder`."""
    if source.exists():
        return convert(source, folder / "data", SMOKE_IMAGES if smoke else None)
    if not smoke:
        raise SystemExit(
            f"no photographs at {source}; set BOXWRIGHT_DATA to a folder that holds 'bccd', or give --data"
        )
    print(f"drawn scenes stand in for the photographs: there is no {source}")
    drawn = draw_dataset(folder / "drawn", train=SMOKE_IMAGES, val=1, imgsz=SMOKE["imgsz"])
    return convert(drawn, folder / "data")


def main() -> None:
    """Runs both loaders in turn and prints images per second."""
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.set_defaults(batch=BATCH)
    bench = start("loader", parser, rows())
    options = bench.options
    if bench.smoke:
        vars(options).update(SMOKE)
    cv2.setNumThreads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        data = photographs(options.data, Path(folder), smoke=bench.smoke)
        streams = {name: build(data, options.imgsz, options.batch) for name, build in (("ours", ours), ("peer", peer))}
        running = {name: stream for name, stream in streams.items() if stream is not None}
        cv2.setNumThreads(options.threads)  # the peer sets its own number when imported
        seconds = bench.medians({name: partial(next, stream) for name, stream in running.items()}, warmup=12)
    rates = {name: options.batch / value for name, value in seconds.items()}
    for name, rate in rates.items():
        bench.show(name, {"images/s": f"{rate:.1f}", "ms an image": f"{1000 / rate:.2f}"})
    row: dict[str, Any] = {"imgsz": options.imgsz, "batch": options.batch, "images_per_second": rates}
    if "peer" in rates:
        row["ratio"] = rates["ours"] / rates["peer"]
        print(f"ratio  {row['ratio']:.2f}")
    elif why := absent("ultralytics"):
        bench.leave_out("peer", why)
    bench.keep(row)


if __name__ == "__main__":
    main()
