# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The raw outputs that a rule's terms share, gathered once."""

import torch
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.kernels.rows import take_rows
from boxwright.kernels.table import take_matched
from boxwright.structures import Assignment, MatchedRows, Predictions


def gather_matched(preds: Predictions, pairs: Assignment) -> MatchedRows:
    """The matched candidates' raw boxes, mask coefficients and keypoints; with a table, its columns and the objectness.

    Raises:
        ShapeError: the table's columns are not those of the predictions' fields.
    """
    if preds.table is None:
        return MatchedRows(
            pairs,
            box_raw=take_rows(preds.box_raw, pairs.image, pairs.anchor, pairs.valid),
            mask_coefs=_rows(preds.mask_coefs, pairs),
            keypoints=_keypoints(preds, pairs),
        )
    boxes, classes = preds.box_raw.shape[-1], preds.logits.shape[-1]
    coefs = 0 if preds.mask_coefs is None else preds.mask_coefs.shape[-1]
    objectness = 0 if preds.objectness is None else 1
    if preds.table.shape[-1] != boxes + objectness + classes + coefs:
        raise ShapeError(
            f"Predictions.table: expected {boxes + objectness + classes + coefs} columns (box_raw {boxes}, objectness "
            f"{objectness}, logits {classes}, mask_coefs {coefs}), got {preds.table.shape[-1]}"
        )
    parts = take_matched(
        preds.table,
        pairs.image,
        pairs.anchor,
        None if pairs.all_valid else pairs.valid,
        (boxes, objectness, classes, coefs),
        boxes if objectness else None,
    )
    return MatchedRows(
        pairs,
        box_raw=parts[0],
        logits=parts[2],
        mask_coefs=parts[3] if coefs else None,
        objectness=parts[4] if objectness else None,
        keypoints=_keypoints(preds, pairs),
    )


def _rows(dense: Tensor | None, pairs: Assignment) -> Tensor | None:
    return None if dense is None else take_rows(dense, pairs.image, pairs.anchor, pairs.valid)


def _keypoints(preds: Predictions, pairs: Assignment) -> Tensor | None:
    if preds.keypoints_raw is None:
        return None
    rows = _rows(preds.keypoints_raw.flatten(2), pairs)
    return None if rows is None else torch.unflatten(rows, 1, preds.keypoints_raw.shape[2:])
