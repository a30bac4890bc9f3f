# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pictures of a run: what the network was shown, and what it found beside the labels."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from boxwright import viz
from boxwright.data.collate import Batch
from boxwright.data.sample import Record, Records
from boxwright.engine.checkpoint import write_atomic
from boxwright.engine.predictor import Predictor
from boxwright.models.detector import Detector
from boxwright.results import Detections, GroundTruth

_SHOWN = 12  # validation images
_CELL = 480  # px, side of a shown image


def save_training_batch(path: Path, batch: Batch, names: Sequence[str]) -> None:
    """A training batch with its labels, as the network gets them."""
    save_png(path, viz.draw_batch(batch.images, batch.targets, names))


def save_predictions(path: Path, predictor: Predictor, records: Records) -> None:
    """Validation images spread over the split: labels on the left, predictions on the right."""
    step = max(len(records.records) // _SHOWN, 1)
    chosen = records.records[::step][:_SHOWN]
    names = records.header.names
    pairs = [
        viz.side_by_side(*_enlarged(seen.image, _truth(record), seen.detections), names)
        for record, seen in zip(chosen, predictor.stream([str(record.image) for record in chosen]), strict=True)
    ]
    save_png(path, viz.grid(pairs, columns=2, cell=2 * _CELL))


def predictor_of(model: Detector, records: Records, imgsz: int, device: torch.device) -> Predictor:
    """A predictor at the usual thresholds, in float32."""
    header = records.header
    return Predictor(model, header.names, header.class_ids, imgsz, device=str(device), precision="fp32")


def save_png(path: Path, image: np.ndarray) -> None:
    """Writes an RGB picture, atomically."""
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    write_atomic(path, lambda file: file.write(encoded.tobytes()))


def _enlarged(image: np.ndarray, truth: GroundTruth, found: Detections) -> tuple[np.ndarray, GroundTruth, Detections]:
    """A small image and its boxes at the size they are shown in, so that lines and letters stay small."""
    factor = _CELL / max(image.shape[:2])
    if factor <= 1:
        return image, truth, found
    height, width = (round(side * factor) for side in image.shape[:2])
    larger = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return larger, replace(truth, boxes=truth.boxes * factor), replace(found, boxes=found.boxes * factor)


def _truth(record: Record) -> GroundTruth:
    boxes = torch.from_numpy(record.instances.boxes.astype(np.float32))
    return GroundTruth(boxes, torch.from_numpy(record.instances.labels.astype(np.int64)), record.size)
