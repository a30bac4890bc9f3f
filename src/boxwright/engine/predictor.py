# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Predictor: images in, Detections out, in the pixels of the original images."""

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from boxwright.engine.logs import Listener, stage
from boxwright.engine.precision import autocast, choose_device, choose_precision
from boxwright.engine.recipe import Precision
from boxwright.engine.sources import Frame, Sources
from boxwright.engine.step import to_network
from boxwright.errors import ConfigError
from boxwright.models.detector import Detector
from boxwright.ops.letterbox import FILL, Letterbox, letterbox
from boxwright.results import Detections
from boxwright.tasks.base import Task
from boxwright.tasks.detect import DETECT


@dataclass(frozen=True, slots=True)
class Prediction:
    """One frame and what was found in it."""

    image: UInt8[np.ndarray, "h w 3"]  # RGB
    detections: Detections


class Predictor:
    """A detector ready to look at images: folded, channels last, on its device, with the thresholds of one use.

    Every image is letterboxed by itself to the smallest rectangle inside `imgsz`, so its result does not depend on the
    images it shares a batch with.
    """

    def __init__(
        self,
        model: Detector,
        names: Sequence[str],
        class_ids: Sequence[int] | None = None,
        imgsz: int = 640,
        *,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        classes: Sequence[int | str] | None = None,
        agnostic: bool = False,
        device: str = "auto",
        precision: Precision = "auto",
        batch: int = 8,
        listener: Listener | None = None,
        task: Task = DETECT,
    ) -> None:
        """A folded copy is made; `model` stays as it is.

        Args:
            model: the trained detector.
            names: class names, one per class of the model.
            class_ids: the dataset's own ids, where they differ from the indices.
            imgsz: longest side of the network input, px; a multiple of the coarsest stride.
            conf: detections are scored above it.
            iou: suppression removes what overlaps a better box by more.
            max_det: detections kept per image.
            classes: names or indices to keep; None keeps all.
            agnostic: suppress across classes.
            device: "auto", "cpu", "cuda", "cuda:N".
            precision: "auto" computes in bf16 where the hardware does; "fp32" is exact.
            batch: images looked at together.
            listener: hears progress and warnings.
            task: what is asked of the model.

        Raises:
            ConfigError: a value is out of range, or a class is not known.
        """
        if len(names) != model.num_classes:
            raise ConfigError(
                f"names: expected {model.num_classes} names, one per class of the model, got {len(names)}"
            )
        self.names, self.class_ids = tuple(names), None if class_ids is None else tuple(class_ids)
        self.stride = max(model.strides)
        self.imgsz, self.batch = _multiple(imgsz, self.stride), _positive("batch", batch)
        self.conf, self.iou = _fraction("conf", conf), _fraction("iou", iou)
        self.max_det, self.agnostic = _positive("max_det", max_det), agnostic
        self.classes = None if classes is None else [_class_index(one, self.names) for one in classes]
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device).value
        self.listener, self.task = listener or Listener(), task
        self.model = model.fold().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = self.model.to(self.device)

    def __call__(self, source: Any) -> list[Detections]:
        """Detections of every image of a source (see `Sources`), in order."""
        return [prediction.detections for prediction in self.stream(source)]

    def stream(self, source: Any) -> Iterator[Prediction]:
        """Images and their detections one by one, in order; holds one batch in memory.

        A file of a folder or pattern that cannot be read is a warning to the listener and left out.
        """
        sources = Sources(source, on_problem=lambda text: self.listener.message(text, "warning"))
        frames, done = iter(sources), 0
        with stage(self.listener, "predict", sources.total or 0):
            while group := list(itertools.islice(frames, self.batch)):
                for frame, found in zip(group, self._look(group), strict=True):
                    yield Prediction(frame.image, found)
                done += len(group)
                self.listener.advance(done, {})
        if sources.skipped:
            were = "was" if sources.skipped == 1 else "were"
            self.listener.message(f"{sources.skipped} of the files could not be read and {were} left out", "warning")

    def _look(self, frames: Sequence[Frame]) -> list[Detections]:
        """Detections of some frames; those with the same network size go through the model together."""
        boxes = [
            letterbox((f.image.shape[0], f.image.shape[1]), (self.imgsz, self.imgsz), minimal_stride=self.stride)
            for f in frames
        ]
        found: dict[int, Detections] = {}
        for size in dict.fromkeys(box.target for box in boxes):
            chosen = [i for i, box in enumerate(boxes) if box.target == size]
            results = self._forward([frames[i] for i in chosen], [boxes[i] for i in chosen])
            found.update(zip(chosen, results, strict=True))
        return [found[i] for i in range(len(frames))]

    def _forward(self, frames: Sequence[Frame], boxes: Sequence[Letterbox]) -> list[Detections]:
        pixels = np.stack([_lay_in(frame.image, box) for frame, box in zip(frames, boxes, strict=True)])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # channels last already
        with torch.inference_mode(), autocast(self.device, self.precision):
            preds = self.model(to_network(images, self.device, channels_last=True)).final
        kept = self.task.select(
            preds, conf=self.conf, iou=self.iou, max_det=self.max_det, classes=self.classes, agnostic=self.agnostic
        )
        paths = [frame.path for frame in frames]
        return self.task.finish(preds, kept, boxes, names=self.names, class_ids=self.class_ids, paths=paths)


def _lay_in(image: np.ndarray, box: Letterbox) -> np.ndarray:
    """The image resized and padded as the letterbox says."""
    height, width = box.resized
    if image.shape[:2] != box.resized:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas = np.full((*box.target, 3), FILL, np.uint8)
    canvas[box.top : box.top + height, box.left : box.left + width] = image
    return canvas


def _multiple(imgsz: int, stride: int) -> int:
    if imgsz < stride:
        raise ConfigError(f"imgsz: expected a multiple of {stride}, got {imgsz}; the closest is {stride}")
    if imgsz % stride:
        low = imgsz // stride * stride
        near = f"the closest are {low} and {low + stride}"
        raise ConfigError(f"imgsz: expected a multiple of {stride}, got {imgsz}; {near}")
    return imgsz


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{name}: expected at least 1, got {value}")
    return value


def _fraction(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}: expected a number from 0 to 1, got {value}")
    return value


def _class_index(wanted: int | str, names: tuple[str, ...]) -> int:
    if isinstance(wanted, str):
        if wanted not in names:
            close = difflib.get_close_matches(wanted, names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
            raise ConfigError(f"classes: no class is named '{wanted}'; {hint}")
        return names.index(wanted)
    if not 0 <= wanted < len(names):
        raise ConfigError(f"classes: expected an index from 0 to {len(names) - 1}, got {wanted}")
    return wanted
