# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Classification: one class for the whole image, top-1 and top-5."""

from collections.abc import Sequence

import torch

from boxwright.errors import ShapeError
from boxwright.ops.letterbox import Letterbox
from boxwright.results import Classification
from boxwright.structures import ImageOutputs, Outputs, at_least_float32
from boxwright.tasks.base import SelectOptions
from boxwright.vocabulary import Vocabulary


def classifications(
    outputs: Outputs | ImageOutputs,
    letterboxes: Sequence[Letterbox],
    *,
    options: SelectOptions,
    vocabulary: Vocabulary,
    paths: Sequence[str | None] | None = None,
) -> list[Classification]:
    """Probabilities of every image: a softmax over the classes, or a sigmoid each where they may occur together.

    Of the options none applies.

    Raises:
        ShapeError: these are the outputs of a detector, or there is not one letterbox (and path) per image.
    """
    if not isinstance(outputs, ImageOutputs):
        raise ShapeError("classify: expected the outputs of a classifier, got those of a detector")
    paths = [None] * len(outputs.logits) if paths is None else paths
    if not len(outputs.logits) == len(letterboxes) == len(paths):
        raise ShapeError(
            f"classify: expected {len(outputs.logits)} letterboxes and paths, got {len(letterboxes)} and {len(paths)}"
        )
    with torch.no_grad():
        logits = at_least_float32(outputs.logits)
        scores = (logits.softmax(dim=-1) if vocabulary.exclusive else logits.sigmoid()).cpu()
    return [
        Classification(of, vocabulary.names, box.source, vocabulary.class_ids, path)
        for of, box, path in zip(scores, letterboxes, paths, strict=True)
    ]
