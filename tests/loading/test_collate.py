# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from boxwright.datasets.sample import Instances, Record, Sample
from boxwright.errors import ShapeError
from boxwright.loading.collate import collate, pack, pad_instances
from boxwright.ops.letterbox import letterbox


def sample(index, count, size=(6, 8)):
    image = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    boxes = np.arange(4 * count, dtype=np.float32).reshape(count, 4) + index
    return Sample(image, Instances(boxes, np.full(count, index, np.int64)), index)


def test_targets_are_padded_and_valid_marks_the_objects():
    batch = collate([sample(1, 2), sample(2, 0), sample(3, 1)], ["a", "b", "c"])

    assert batch.targets.labels.tolist() == [[1, 1], [0, 0], [3, 0]]
    assert batch.targets.valid.tolist() == [[True, True], [False, False], [True, False]]
    assert batch.targets.boxes[0].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert batch.targets.boxes[2].tolist() == [[3, 4, 5, 6], [0, 0, 0, 0]]
    assert batch.indices == (1, 2, 3)
    assert batch.paths == ("a", "b", "c")
    assert len(batch) == 3
    assert batch.letterboxes is None
    assert batch.truths is None


def test_pixels_are_channels_first_and_unchanged():
    samples = [sample(1, 0), sample(2, 0)]

    batch = collate(samples, ["a", "b"])

    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous()
    for image, source in zip(batch.images, samples, strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), source.image)


def test_a_batch_without_objects_has_no_slots():
    labels, boxes, valid = pad_instances([Instances.empty(), Instances.empty()])

    assert (labels.shape, boxes.shape, valid.shape) == ((2, 0), (2, 0, 4), (2, 0))
    assert collate([sample(1, 0)], ["a"]).targets.boxes.shape == (1, 0, 4)


def test_images_of_different_sizes_are_refused_by_name():
    with pytest.raises(ShapeError, match=r"b\.jpg: expected an image of shape \(6, 8, 3\), got \(6, 9, 3\)"):
        collate([sample(1, 0), sample(2, 0, (6, 9))], ["a.jpg", "b.jpg"])
    with pytest.raises(ShapeError, match="at least one sample"):
        collate([], [])


def test_truths_keep_original_pixels_and_own_their_memory():
    objects = Instances(np.array([[1, 2, 30, 40]], np.float32), np.array([4]))
    record = Record(Path("a.jpg"), (60, 80), objects)

    batch = collate([sample(1, 1)], ["a.jpg"], [letterbox((60, 80), (6, 8))], [record])
    batch.truths[0].boxes.zero_()

    assert batch.truths[0].labels.tolist() == [4]
    assert batch.truths[0].image_size == (60, 80)
    assert batch.letterboxes[0].resized == (6, 8)
    assert objects.boxes.tolist() == [[1, 2, 30, 40]]


def test_moving_a_batch_moves_images_and_targets():
    moved = collate([sample(1, 2)], ["a"]).to("meta")

    assert moved.images.device.type == moved.targets.boxes.device.type == "meta"
    assert moved.indices == (1,)


def test_shared_batches_hold_the_same_pixels_in_shared_memory():
    samples = [sample(1, 1), sample(2, 2)]

    shared = pack(samples, ["a", "b"], (6, 8), shared=True)

    assert shared.images.is_shared()
    assert torch.equal(shared.images, collate(samples, ["a", "b"]).images)


def test_batches_can_be_sent_to_another_process():
    batch = collate([sample(1, 2), sample(2, 0)], ["a", "b"])

    copy = pickle.loads(pickle.dumps(batch))

    assert torch.equal(copy.images, batch.images)
    assert torch.equal(copy.targets.boxes, batch.targets.boxes)
