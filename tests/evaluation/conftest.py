# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Random scenes with every awkward case: empty images, classes without labels or detections, crowds, ties."""

import pytest
import torch

from boxwright.results import Detections, GroundTruth


def _random_scenes(*, images, classes, seed, crowd=20, tied=False):
    """Detections and truths of some images; the last class is never labelled, the one before never detected."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator)

    found, truths = [], []
    for image in range(images):
        size = (300 + 37 * (image % 5), 500 - 41 * (image % 3))
        labels = torch.randint(0, classes - 1, (0 if image % 7 == 3 else int(uniform(1) * 12),), generator=generator)
        centre = uniform(len(labels), 2) * torch.tensor([size[1], size[0]])
        half = uniform(len(labels), 2) ** 2 * 120 + 3
        boxes = torch.cat((centre - half, centre + half), dim=1)
        repeats = 0 if image % 11 == 5 else crowd
        which = torch.randint(0, max(len(labels), 1), (repeats if len(labels) else 0,), generator=generator)
        noisy = boxes[which] + torch.randn(len(which), 4, generator=generator) * half[which].repeat(1, 2) * 0.15
        wild = uniform(0 if image % 11 == 5 else 6, 4) * 200
        wild[:, 2:] += wild[:, :2]
        random_labels = torch.randint(0, classes, (len(which) + len(wild),), generator=generator)
        own = torch.cat((labels[which], random_labels[len(which) :]))
        guess = torch.where(uniform(len(own)) < 0.8, own, random_labels)
        scores = uniform(len(own))
        rows = guess != classes - 2
        if tied:
            scores = (scores * 8).round() / 8
        names = tuple(f"class {label}" for label in range(classes))
        order = scores[rows].argsort(descending=True, stable=True)
        all_boxes = torch.cat((noisy, wild))[rows][order]
        found.append(Detections(all_boxes, scores[rows][order], guess[rows][order], names, size))
        truths.append(GroundTruth(boxes, labels, size))
    return found, truths


@pytest.fixture
def random_scenes():
    """A function that makes detections and truths of random scenes."""
    return _random_scenes
