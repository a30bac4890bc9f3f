# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Pictures of a run: what the network was shown, and what it found beside the labels."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from boxwright import viz
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import Records
from boxwright.engine.checkpoint import write_atomic
from boxwright.engine.predictor import Predictor
from boxwright.loading.collate import Batch, TargetLayout, truth_of
from boxwright.tasks.base import Forward
from boxwright.vocabulary import KeypointSpec, Vocabulary

_SHOWN = 12  # validation images
_CELL = 480  # px, side of a shown image


def save_training_batch(path: Path, batch: Batch, names: Sequence[str], keypoints: KeypointSpec | None = None) -> None:
    """A training batch with its labels, as the network gets them."""
    save_png(path, viz.draw_batch(batch.images, batch.targets, names, keypoints=keypoints))


def save_predictions(path: Path, predictor: Predictor, records: Records) -> None:
    """Validation images spread over the split: labels on the left, predictions on the right."""
    step = max(len(records.records) // _SHOWN, 1)
    chosen = records.records[::step][:_SHOWN]
    names, vocabulary = records.header.names, predictor.vocabulary
    layout = TargetLayout(
        task=vocabulary.task,
        keypoints=0 if vocabulary.keypoints is None else vocabulary.keypoints.count,
        attributes=vocabulary.attributes,
    )
    pairs = []
    for record, seen in zip(chosen, predictor.stream([str(record.image) for record in chosen]), strict=True):
        truth = truth_of(record, layout)
        enlarge = max(_CELL / max(seen.image.shape[:2]), 1.0)  # lines and letters stay small beside small images
        pairs.append(viz.side_by_side(seen.image, truth, seen.found, names, enlarge=enlarge))
    save_png(path, viz.grid(pairs, columns=2, cell=2 * _CELL))


def predictor_of(model: Forward, vocabulary: Vocabulary, data: DataConfig, device: torch.device) -> Predictor:
    """A predictor at the usual thresholds, in float32."""
    return Predictor(model, vocabulary, data.imgsz, fit=data.fit, device=str(device), precision="fp32")


def save_png(path: Path, image: np.ndarray) -> None:
    """Writes an RGB picture, atomically."""
    _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    write_atomic(path, lambda file: file.write(encoded.tobytes()))
