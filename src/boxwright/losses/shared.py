# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the faster terms of one rule share: rows of the matched candidates, gathered once, and what they computed.

The criterion builds it; definitions see plain predictions, whose every method means the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.kernels.rows import take_rows
from boxwright.kernels.table import take_matched
from boxwright.structures import Assignment, MatchedRows, Predictions

Value = TypeVar("Value")

GIVEN = tuple(part.name for part in fields(Predictions))  # read once: tracers do not follow `fields`


@dataclass(frozen=True, slots=True)
class SharedPredictions(Predictions):
    """Predictions that gathered the candidates of one assignment; for other assignments they are plain ones."""

    rows: MatchedRows | None = None  # of the assignment that the rule's terms share
    values: dict[str, Any] = field(default_factory=dict, compare=False)  # what a term computed that others read

    @classmethod
    def of(cls, preds: Predictions, pairs: Assignment) -> "SharedPredictions":
        """The predictions with the rows of these pairs.

        Raises:
            ShapeError: the table's columns are not those of the predictions' fields.
        """
        return cls(**{name: getattr(preds, name) for name in GIVEN}, rows=gather_matched(preds, pairs))

    def rows_of(self, pairs: Assignment) -> MatchedRows | None:
        """The gathered rows, if they are those of these very pairs."""
        return self.rows if self.rows is not None and self.rows.pairs is pairs else None

    def raw_at(self, pairs: Assignment) -> Float[Tensor, "P raw"]:
        """As `Predictions.raw_at`."""
        rows = self.rows_of(pairs)
        return Predictions.raw_at(self, pairs) if rows is None else rows.box_raw

    def logits_at(self, pairs: Assignment) -> Float[Tensor, "P C"]:
        """As `Predictions.logits_at`."""
        rows = self.rows_of(pairs)
        return Predictions.logits_at(self, pairs) if rows is None or rows.logits is None else rows.logits

    def coefs_at(self, pairs: Assignment) -> Float[Tensor, "P Q"]:
        """As `Predictions.coefs_at`."""
        rows = self.rows_of(pairs)
        return Predictions.coefs_at(self, pairs) if rows is None or rows.mask_coefs is None else rows.mask_coefs

    def keypoints_at(self, pairs: Assignment) -> Float[Tensor, "P K D"]:
        """As `Predictions.keypoints_at`."""
        rows = self.rows_of(pairs)
        return Predictions.keypoints_at(self, pairs) if rows is None or rows.keypoints is None else rows.keypoints

    @property
    def objectness_plane(self) -> Float[Tensor, "B A"]:
        """As `Predictions.objectness_plane`; of a table, with the gradient that goes to it."""
        if self.rows is None or self.rows.objectness is None:
            plane: Tensor = Predictions.objectness_plane.__get__(self)
            return plane
        return self.rows.objectness


def shared_value(
    preds: Predictions, pairs: Assignment, name: str, compute: Callable[[], Value], *, keep: bool = True
) -> Value:
    """What `compute` returns, computed once for all terms of a rule; `keep` False computes it for the caller alone."""
    if not isinstance(preds, SharedPredictions) or preds.rows_of(pairs) is None:
        return compute()
    if name in preds.values:
        found: Value = preds.values[name]
        return found
    value = compute()
    if keep:
        preds.values[name] = value
    return value


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
