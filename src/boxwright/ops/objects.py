# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Which slots of a batch hold an object, read on the host before the step."""

import numpy as np
import torch

from boxwright.errors import ShapeError
from boxwright.structures import ObjectRows, Targets


def with_objects(targets: Targets) -> Targets:
    """The targets with `objects` filled in; unchanged where that was done. Targets on a device cost one sync.

    Raises:
        ShapeError: a valid slot has a negative label or a box that is not finite, or `objects` are of other targets.
    """
    if targets.objects is None:
        return targets.with_prepared(objects=object_rows(targets))
    expected, got = tuple(targets.labels.shape), (len(targets.objects.counts), targets.objects.slots)
    if got != expected:
        raise ShapeError(
            f"Targets.objects: expected rows for (B, M) = {expected}, got {got}; "
            "call `Criterion.prepare` again after changing the targets"
        )
    return targets


def object_rows(targets: Targets) -> ObjectRows:
    """Image and slot of every object in that order, on the targets' device. Targets on a device cost one sync.

    Raises:
        ShapeError: a valid slot has a negative label or a box that is not finite.
    """
    fine = targets.boxes.isfinite().all(dim=-1)
    labels, fine, valid = torch.stack((targets.labels, fine.long(), targets.valid.long())).cpu().numpy()
    held = valid > 0
    for field, bad, expected in (
        ("labels", labels < 0, "class indices of at least 0"),
        ("boxes", fine == 0, "finite pixels"),
    ):
        if (bad & held).any():
            image, slot = np.argwhere(bad & held)[0].tolist()
            got = getattr(targets, field)[image, slot].tolist()
            raise ShapeError(f"Targets.{field}: expected {expected}, got {got} at image {image}, slot {slot}")
    image_of, slot_of = torch.from_numpy(np.stack(np.nonzero(held))).to(targets.labels.device, non_blocking=True)
    return ObjectRows(
        image=image_of,
        slot=slot_of,
        counts=tuple(held.sum(axis=1).tolist()),
        slots=labels.shape[1],
        labels_below=int(labels[held].max(initial=-1)) + 1,
    )


def check_labels(objects: ObjectRows, classes: int) -> None:
    """Raises when a label is one that the predictions do not have.

    Raises:
        ShapeError: naming it.
    """
    if objects.labels_below > classes:
        raise ShapeError(
            f"Targets.labels: expected class indices below {classes}, the number of classes the predictions have, "
            f"got {objects.labels_below - 1}"
        )
