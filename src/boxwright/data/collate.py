# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Samples to a batch. Padding and `valid` are made here and only here."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from boxwright.data.sample import Instances, Record, Sample
from boxwright.errors import ShapeError
from boxwright.ops.letterbox import Letterbox
from boxwright.results import GroundTruth
from boxwright.structures import Targets


@dataclass(frozen=True, slots=True)
class Batch:
    """What a loader hands to the trainer or the validator."""

    images: UInt8[Tensor, "B 3 H W"]  # RGB, 0..255
    targets: Targets  # px of the network input
    indices: tuple[int, ...]  # positions in the dataset
    paths: tuple[str, ...]
    letterboxes: tuple[Letterbox, ...] | None = None  # validation only: the way back to each original image
    truths: tuple[GroundTruth, ...] | None = None  # validation only: the labels in original pixels

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
    instances: tuple[Instances, ...]
    indices: tuple[int, ...]
    paths: tuple[str, ...]
    letterboxes: tuple[Letterbox, ...] | None
    truths: tuple[Record, ...] | None

    def pin_memory(self) -> "PackedBatch":
        """The same with page-locked pixels, for copies to a GPU that overlap with work; torch's loader calls this."""
        return replace(self, images=self.images.pin_memory())

    def unpack(self) -> Batch:
        """The batch as the rest of the package knows it."""
        labels, boxes, valid = pad_instances(self.instances)
        truths = None if self.truths is None else tuple(_truth(record) for record in self.truths)
        targets = Targets(torch.from_numpy(labels), torch.from_numpy(boxes), torch.from_numpy(valid))
        return Batch(self.images, targets, self.indices, self.paths, self.letterboxes, truths)


def collate(
    samples: Sequence[Sample],
    paths: Sequence[str],
    letterboxes: Sequence[Letterbox] | None = None,
    truths: Sequence[Record] | None = None,
) -> Batch:
    """The batch of samples that share one image size.

    Raises:
        ShapeError: no samples, or images of different sizes.
    """
    if not samples:
        raise ShapeError("collate: expected at least one sample, got none")
    height, width = samples[0].image.shape[:2]
    packed = pack(samples, paths, (height, width), letterboxes=letterboxes, truths=truths)
    return packed.unpack()


def pack(
    samples: Iterable[Sample],
    paths: Sequence[str],
    size: tuple[int, int],
    *,
    letterboxes: Sequence[Letterbox] | None = None,
    truths: Sequence[Record] | None = None,
    shared: bool = False,
) -> PackedBatch:
    """Samples of `size` (h, w), taken one by one, written straight into the memory of the batch.

    `shared` puts the pixels where the parent of a worker process can read them without a copy.

    Raises:
        ShapeError: a sample of another size; the message names its path.
    """
    images = _empty((len(paths), 3, *size), shared)
    pixels = images.numpy()
    instances, indices = [], []
    for plane, path, sample in zip(pixels, paths, samples, strict=True):
        if sample.image.shape != (*size, 3):
            raise ShapeError(f"collate: {path}: expected an image of shape {(*size, 3)}, got {sample.image.shape}")
        np.copyto(plane, sample.image.transpose(2, 0, 1))
        instances.append(sample.instances)
        indices.append(sample.index)
    return PackedBatch(
        images,
        tuple(instances),
        tuple(indices),
        tuple(paths),
        None if letterboxes is None else tuple(letterboxes),
        None if truths is None else tuple(truths),
    )


def pad_instances(
    instances: Sequence[Instances],
) -> tuple[Int64[np.ndarray, "B M"], Float32[np.ndarray, "B M 4"], Bool[np.ndarray, "B M"]]:
    """Labels, boxes and which slots hold an object; M is the largest number of objects of an image, possibly 0."""
    slots = max((len(objects) for objects in instances), default=0)
    labels = np.zeros((len(instances), slots), np.int64)
    boxes = np.zeros((len(instances), slots, 4), np.float32)
    valid = np.zeros((len(instances), slots), np.bool_)
    for row, objects in enumerate(instances):
        count = len(objects)
        labels[row, :count], boxes[row, :count], valid[row, :count] = objects.labels, objects.boxes, True
    return labels, boxes, valid


def _truth(record: Record) -> GroundTruth:
    # Copies: the records are shared with everybody, a batch's tensors are its own.
    boxes = torch.from_numpy(record.instances.boxes.astype(np.float32))
    return GroundTruth(boxes, torch.from_numpy(record.instances.labels.astype(np.int64)), record.size)


def _empty(shape: tuple[int, ...], shared: bool) -> Tensor:
    if not shared:
        # numpy asks the system for huge pages, torch does not: a batch of 20 MB costs 10 page faults, not 4 800.
        return torch.from_numpy(np.empty(shape, np.uint8))
    # As torch's own collate does: share_memory_() on a finished tensor would copy it.
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
