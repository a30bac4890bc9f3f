# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Predictor: images in, Detections out, in the pixels of the original images."""

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8

from boxwright.engine.logs import Listener, stage
from boxwright.engine.precision import autocast, choose_device, choose_precision
from boxwright.engine.recipe import Precision
from boxwright.engine.sources import Frame, Sources
from boxwright.engine.step import to_network
from boxwright.errors import ConfigError
from boxwright.loading.augment.geometry import apply_letterbox
from boxwright.models.network import Network
from boxwright.ops.letterbox import Letterbox, centre_crop, letterbox, stretch
from boxwright.results import Classification, Detections
from boxwright.tasks import task_named
from boxwright.tasks.base import Forward, Found, SelectOptions
from boxwright.vocabulary import Vocabulary

Fit = Literal["letterbox", "stretch", "crop"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One frame and what was found in it."""

    image: UInt8[np.ndarray, "h w 3"]  # RGB
    found: Detections | Classification

    @property
    def detections(self) -> Detections:
        """What was found, where it is objects.

        Raises:
            ConfigError: the model says one thing about the whole image.
        """
        if not isinstance(self.found, Detections):
            raise ConfigError("Prediction.detections: expected objects, got a classification; read `found`")
        return self.found


class Predictor:
    """A model ready to look at images: folded, channels last, on its device, with the thresholds of one use.

    Every image is letterboxed by itself to the smallest rectangle inside `imgsz` (or stretched or cropped, see
    `fit`), so its result does not depend on the images it shares a batch with.
    """

    def __init__(
        self,
        model: Forward,
        vocabulary: Vocabulary,
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
        fit: Fit = "letterbox",
        minimal: bool = True,
    ) -> None:
        """A folded copy is made; `model` stays as it is.

        Args:
            model: a trained network, or the runtime of an exported file.
            vocabulary: how its outputs read; one name per class of the model.
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
            fit: how an image becomes the network input, as in `DataConfig.fit`: what the model was trained with.
            minimal: letterbox into the smallest rectangle; False fills the square, for exported files of one size.

        Raises:
            ConfigError: a value is out of range, or a class is not known.
        """
        names = vocabulary.names
        if len(names) != model.num_classes:
            raise ConfigError(
                f"names: expected {model.num_classes} names, one per class of the model, got {len(names)}"
            )
        self.vocabulary, self.task = vocabulary, task_named(vocabulary.task)
        self.stride = max(model.strides)
        self.imgsz, self.batch = _multiple(imgsz, self.stride), _positive("batch", batch)
        self.options = SelectOptions(
            conf=_fraction("conf", conf),
            iou=_fraction("iou", iou),
            max_det=_positive("max_det", max_det),
            classes=None if classes is None else [_class_index(one, names) for one in classes],
            agnostic=agnostic,
        )
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device).value
        self.listener = listener or Listener()
        self.fit, self.minimal = fit, minimal
        self.model = ready(model, self.device)

    def __call__(self, source: Any) -> list[Any]:
        """`Detections` (or `Classification`) of every image of a source (see `Sources`), in order."""
        return [prediction.found for prediction in self.stream(source)]

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

    def _look(self, frames: Sequence[Frame]) -> list[Detections | Classification]:
        """Detections of some frames; those with the same network size go through the model together."""
        boxes = [self._place((frame.image.shape[0], frame.image.shape[1])) for frame in frames]
        found: dict[int, Detections | Classification] = {}
        for size in dict.fromkeys(box.target for box in boxes):
            chosen = [i for i, box in enumerate(boxes) if box.target == size]
            results = self._forward([frames[i] for i in chosen], [boxes[i] for i in chosen])
            found.update(zip(chosen, results, strict=True))
        return [found[i] for i in range(len(frames))]

    def _place(self, source: tuple[int, int]) -> Letterbox:
        return place(source, self.imgsz, self.fit, self.stride if self.minimal else None)

    def _forward(self, frames: Sequence[Frame], boxes: Sequence[Letterbox]) -> Found:
        pixels = np.stack([apply_letterbox(frame.image, box) for frame, box in zip(frames, boxes, strict=True)])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # channels last already
        with torch.inference_mode(), autocast(self.device, self.precision):
            outputs = self.model(to_network(images, self.device, channels_last=True))
        paths = [frame.path for frame in frames]
        return self.task.results(outputs, boxes, options=self.options, vocabulary=self.vocabulary, paths=paths)


def ready(model: Forward, device: torch.device, *, auxiliary: bool = False) -> Forward:
    """A folded channels-last copy of a network on the device; an exported model as it is."""
    if not isinstance(model, Network):
        return model
    folded = model.fold(auxiliary=auxiliary).to(memory_format=torch.channels_last)
    return folded.to(device)  # type: ignore[no-any-return]


def place(source: tuple[int, int], side: int, fit: Fit, minimal_stride: int | None = None) -> Letterbox:
    """Where an image of (height, width) px lies in a network input of `side` px; a crop has negative offsets.

    Source: letterbox spec/architectures 6.1, stretch spec/architectures 6.2, crop of classifiers spec/recipe 6.
    """
    if fit == "letterbox":
        return letterbox(source, (side, side), minimal_stride=minimal_stride)
    if fit == "stretch":
        return stretch(source, (side, side))
    return centre_crop(source, side)


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
