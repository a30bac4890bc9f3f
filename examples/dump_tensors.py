# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Writes a batch of a stranger's training loop into a file that boxwright takes apart.

    python examples/dump_tensors.py --out batch.npz
    boxwright inspect --tensors batch.npz

`dump` is all a training loop needs; it uses nothing of boxwright: copy it. Model, data and loss are a stranger's,
here those of the other example. The layout of the file: docs/inspect.md.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from strangers_model import BINS, CLASSES, SIZE, STRIDES, Plain, scenes
from torch import Tensor

from boxwright.losses import from_yolov8_maps, targets_from_rows, yolov8_detect


def dump(path: Path, outputs: Mapping[str, Tensor], rows: Tensor, about: Mapping[str, Any]) -> None:
    """Writes raw outputs and labels of one batch.

    Args:
        path: of the file, ending in `.npz`.
        outputs: raw head outputs by name: "maps.0", "maps.1", ... finest first.
        rows: image index, class, and box of every label.
        about: what the arrays mean, plain values.
    """
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in outputs.items()}
    labels = rows.detach().float().cpu().numpy()
    arrays["targets.image"] = labels[:, 0].astype(np.int64)
    arrays["targets.label"] = labels[:, 1].astype(np.int64)
    arrays["targets.boxes"] = labels[:, 2:]
    text = json.dumps({"format": "boxwright-tensors/1", **about})
    np.savez(path, about=np.array(text), **arrays)


def train(steps: int, out: Path, batch: int = 8) -> float:
    """A stranger's loop; the last step is dumped. Returns its loss."""
    torch.manual_seed(0)
    model = Plain()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step, (images, rows) in zip(range(steps), scenes(batch, 0), strict=False):
        maps = model(images)
        loss = strangers_loss(maps, rows, batch)
        if step == steps - 1:
            about = {
                "head": "yolov8",
                "criterion": "yolov8_detect",
                "image_size": SIZE,
                "num_classes": CLASSES,
                "strides": STRIDES,
                "num_bins": BINS,
                "box_unit": "normalized_cxcywh",
                "names": ["lying", "standing"],
                "loss": loss.item(),  # optional: the inspector says how far its own sum is from it
            }
            dump(out, {f"maps.{level}": level_map for level, level_map in enumerate(maps)}, rows, about)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return loss.item()


def strangers_loss(maps: list[Tensor], rows: Tensor, batch: int) -> Tensor:
    """Any loss; here, so that there is something to compare with, one that boxwright knows."""
    outputs = from_yolov8_maps(maps, STRIDES, num_classes=CLASSES, num_bins=BINS, image_size=SIZE)
    targets = targets_from_rows(rows[:, 0], rows[:, 1], rows[:, 2:], batch=batch, image_size=SIZE, num_classes=CLASSES)
    return yolov8_detect()(outputs, targets).total


def main() -> None:
    """Trains a little and dumps the last batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("batch.npz"))
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    loss = train(options.steps, options.out)
    print(f"{options.out}: loss {loss:.4f}")  # noqa: T201


if __name__ == "__main__":
    main()
