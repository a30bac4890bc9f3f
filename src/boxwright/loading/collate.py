# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Samples to a batch. What its labels look like is made by `loading.targets`, in the loader's processes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from boxwright.datasets.sample import Instances, Record, Sample
from boxwright.errors import DataError, ShapeError
from boxwright.loading.targets import Arrays, TargetLayout, encode_targets, oriented_boxes, pad_instances
from boxwright.ops.letterbox import Letterbox
from boxwright.results import GroundTruth, ImageTruth
from boxwright.structures import ImageTargets, Targets

__all__ = ["Batch", "PackedBatch", "TargetLayout", "collate", "pack", "pad_instances"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a loader hands to the trainer or the validator."""

    images: UInt8[Tensor, "B 3 H W"]  # RGB, 0..255
    targets: Targets | ImageTargets  # px of the network input
    indices: tuple[int, ...]  # positions in the dataset
    paths: tuple[str, ...]
    letterboxes: tuple[Letterbox, ...] | None = None  # validation only: the way back to each original image
    truths: tuple[GroundTruth | ImageTruth, ...] | None = None  # validation only: the labels in original pixels

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with images and targets on another device; the truths stay on the host."""
        images = self.images.to(device, non_blocking=True)
        return replace(self, images=images, targets=self.targets.to(device))


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A batch as it crosses from a worker: pixels in shared memory, everything else as small plain arrays."""

    images: UInt8[Tensor, "B 3 H W"]
    targets: Arrays  # by field of `Targets` or `ImageTargets`
    indices: tuple[int, ...]
    paths: tuple[str, ...]
    letterboxes: tuple[Letterbox, ...] | None
    truths: tuple[Record, ...] | None
    layout: TargetLayout

    def pin_memory(self) -> "PackedBatch":
        """The same with page-locked pixels, for copies to a GPU that overlap with work; torch's loader calls this."""
        return replace(self, images=self.images.pin_memory())

    def unpack(self) -> Batch:
        """The batch as the rest of the package knows it."""
        fields = {name: _as_tensors(part) for name, part in self.targets.items()}
        targets: Targets | ImageTargets
        if self.layout.facts.whole_image:
            targets = ImageTargets(**fields)
        else:
            if "instance_map" in fields:
                fields["instance_map"] = fields["instance_map"].to(torch.int32)
            targets = Targets(**fields)
        truths = None if self.truths is None else tuple(truth_of(record, self.layout) for record in self.truths)
        return Batch(self.images, targets, self.indices, self.paths, self.letterboxes, truths)


def collate(
    samples: Sequence[Sample],
    paths: Sequence[str],
    letterboxes: Sequence[Letterbox] | None = None,
    truths: Sequence[Record] | None = None,
    layout: TargetLayout | None = None,
) -> Batch:
    """The batch of samples that share one image size; without a layout its targets are boxes and classes.

    Raises:
        ShapeError: no samples, or images of different sizes.
        DataError: an image without a class, to classify.
    """
    if not samples:
        raise ShapeError("collate: expected at least one sample, got none")
    height, width = samples[0].image.shape[:2]
    packed = pack(samples, paths, (height, width), letterboxes=letterboxes, truths=truths, layout=layout)
    return packed.unpack()


def pack(
    samples: Iterable[Sample],
    paths: Sequence[str],
    size: tuple[int, int],
    *,
    letterboxes: Sequence[Letterbox] | None = None,
    truths: Sequence[Record] | None = None,
    shared: bool = False,
    layout: TargetLayout | None = None,
) -> PackedBatch:
    """Samples of `size` (h, w), taken one by one, written straight into the memory of the batch.

    `shared` puts the pixels where the parent of a worker process can read them without a copy.

    Raises:
        ShapeError: a sample of another size; the message names its path.
        DataError: an image without a class, to classify.
    """
    layout = layout or TargetLayout()
    images = _empty((len(paths), 3, *size), shared)
    pixels = images.numpy()
    instances: list[Instances] = []
    indices: list[int] = []
    image_labels: list[int | None] = []
    for plane, path, sample in zip(pixels, paths, samples, strict=True):
        if sample.image.shape != (*size, 3):
            raise ShapeError(f"collate: {path}: expected an image of shape {(*size, 3)}, got {sample.image.shape}")
        np.copyto(plane, sample.image.transpose(2, 0, 1))
        instances.append(sample.instances)
        indices.append(sample.index)
        image_labels.append(sample.image_label)
    if layout.facts.whole_image:
        classes = [_image_class(label, path) for label, path in zip(image_labels, paths, strict=True)]
        targets: Arrays = {"labels": np.array(classes, np.int64)}
    else:
        targets = encode_targets(instances, size, layout)
    return PackedBatch(
        images,
        targets,
        tuple(indices),
        tuple(paths),
        None if letterboxes is None else tuple(letterboxes),
        None if truths is None else tuple(truths),
        layout,
    )


def truth_of(record: Record, layout: TargetLayout) -> GroundTruth | ImageTruth:
    """The labels of a record as evaluation reads them, in its own memory.

    Raises:
        DataError: an image without a class, to classify.
    """
    if layout.facts.whole_image:
        return ImageTruth(_image_class(record.image_label, str(record.image)))
    objects = record.instances
    boxes = oriented_boxes(objects) if layout.facts.oriented else objects.boxes
    attributes = objects.attributes if layout.attributes else None
    return GroundTruth(
        _copied(boxes, np.float32),
        _copied(objects.labels, np.int64),
        record.size,
        ignore=None if objects.ignore is None else _copied(objects.ignore, np.float32),
        ignore_labels=None if objects.ignore_labels is None else _copied(objects.ignore_labels, np.int64),
        ignore_outlines=objects.ignore_outlines if layout.facts.outlines else None,
        outlines=objects.polygons if layout.facts.outlines else None,
        keypoints=_keypoints(objects, layout.keypoints) if layout.facts.keypoints else None,
        areas=None if objects.areas is None else _copied(objects.areas, np.float32),
        attributes=None if attributes is None else {name: _copied(of, of.dtype) for name, of in attributes.items()},
    )


def _keypoints(objects: Instances, count: int) -> Tensor:
    if objects.keypoints is None:
        return torch.zeros(len(objects), count, 3)
    return _copied(objects.keypoints, np.float32)


def _copied(values: np.ndarray, kind: Any) -> Tensor:
    # Copies: the records are shared with everybody, a batch's tensors are its own.
    return torch.from_numpy(values.astype(kind))


def _image_class(label: int | None, path: str) -> int:
    if label is None:
        raise DataError(f"{path}: has no class; data.task=classify needs one folder of images for each class")
    return label


def _as_tensors(part: np.ndarray | Mapping[str, np.ndarray]) -> Any:
    if isinstance(part, Mapping):
        return {name: torch.from_numpy(values) for name, values in part.items()}
    return torch.from_numpy(part)


def _empty(shape: tuple[int, ...], shared: bool) -> Tensor:
    if not shared:
        # numpy asks the system for huge pages, torch does not: a batch of 20 MB costs 10 page faults, not 4 800.
        return torch.from_numpy(np.empty(shape, np.uint8))
    # As torch's own collate does: share_memory_() on a finished tensor would copy it.
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
