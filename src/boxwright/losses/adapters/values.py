# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What labels cannot be, looked up on the host: out of range, not finite, in another unit than said."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boxwright.errors import DataError, ShapeError
from boxwright.losses.adapters.units import BoxUnit

Values = np.ndarray[Any, np.dtype[Any]]  # (N, n)
NORMALIZED_LIMIT = 2.0  # shares of a side; boxes cut by the border reach beyond 1, none reaches a whole image beyond
LARGEST_ANGLE = 2 * math.pi  # radians; more is a turn too many, or degrees


@dataclass(frozen=True, slots=True)
class LabelRows:
    """One row per object in every field; fields as `targets_from_rows` describes them."""

    image: Tensor
    labels: Tensor
    boxes: Tensor
    weights: Tensor | None = None
    keypoints: Tensor | None = None
    masks: Tensor | None = None
    attributes: Mapping[str, Tensor] | None = None
    ignore: Tensor | None = None

    @property
    def fields(self) -> dict[str, Tensor]:
        """Those that are given, attributes one by one."""
        named = {name: getattr(self, name) for name in self.__slots__ if name != "attributes"}
        named |= {f"attributes[{name!r}]": part for name, part in (self.attributes or {}).items()}
        return {name: part for name, part in named.items() if part is not None}


@dataclass(frozen=True, slots=True)
class Claim:
    """What the caller says about the values."""

    caller: str  # the function that was called, for messages
    batch: int
    unit: BoxUnit
    num_classes: int | None
    row_name: Callable[[int], str]  # how the caller knows a row


def check_values(rows: LabelRows, claim: Claim) -> int:
    """Raises when a value cannot be, else the number of rows of the fullest image. One sync if rows are on a device.

    Rows of zeros are padding: only their image is looked at. Of ignored rows, image and box are.

    Raises:
        ShapeError: numbers are of another unit.
        DataError: a value is out of range or not finite.
    """
    host = _on_host(rows)
    box = host["boxes"]
    used = (box != 0).any(axis=1)
    real = used & (host["ignore"][:, 0] == 0) if "ignore" in host else used
    _look(claim, "image", host["image"], np.ones_like(used), _whole, f"whole numbers from 0 to {claim.batch - 1}",
          lambda of: (of < 0) | (of >= claim.batch))  # fmt: skip
    _labels(claim, host["labels"], real)
    _boxes(claim, box, used)
    if "weights" in host:
        _look(claim, "weights", host["weights"], real, _finite, "finite factors of at least 0", lambda of: of < 0)
    if rows.keypoints is not None:
        _keypoints(claim, host["keypoints"], real, rows.keypoints.shape[-1])
    for name, part in (rows.attributes or {}).items():
        name = f"attributes[{name!r}]"
        if part.ndim == 1:
            _look(claim, name, host[name], real, _whole, "whole numbers, -1 for not labelled", lambda of: of < -1)
        else:
            _look(claim, name, host[name], real, _finite, "0 and 1 (or between), -1 for not labelled",
                  lambda of: ((of < 0) & (of != -1)) | (of > 1))  # fmt: skip
    return int(np.bincount(host["image"][:, 0].astype(np.int64), minlength=1).max(initial=0))


def _on_host(rows: LabelRows) -> dict[str, Values]:
    """Every field but masks as (N, n) float64, in one copy."""
    fields = {
        name: (part.detach().flatten(1) if part.ndim > 1 else part.detach()[:, None])
        for name, part in rows.fields.items()
        if name != "masks"
    }
    device = rows.boxes.device
    packed = torch.cat([part.to(device=device, dtype=torch.float64) for part in fields.values()], dim=1).cpu().numpy()
    ends = np.cumsum([part.shape[1] for part in fields.values()])
    return dict(zip(fields, np.split(packed, ends[:-1], axis=1), strict=True))


def _whole(values: Values) -> Values:
    return np.asarray(np.isfinite(values) & (values == np.trunc(values)))


def _finite(values: Values) -> Values:
    return np.asarray(np.isfinite(values))


def _never(values: Values) -> Values:
    return np.zeros(values.shape, dtype=np.bool_)


def _swapped(boxes: Values) -> Values:
    return np.asarray(boxes[:, :2] > boxes[:, 2:4])


def _negative(boxes: Values) -> Values:
    return np.asarray(boxes[:, 2:4] < 0)


def _look(
    claim: Claim,
    field: str,
    values: Values,
    rows: Values,
    possible: Callable[[Values], Values],
    expected: str,
    wrong: Callable[[Values], Values],
    advice: str = "",
) -> None:
    """Raises for the first of the rows with a value that is not possible, or wrong."""
    bad = (~possible(values).all(axis=1) | wrong(values).any(axis=1)) & rows
    if bad.any():
        row = int(np.argmax(bad))
        got = ", ".join(f"{value:g}" for value in values[row])
        raise DataError(f"{claim.caller}: {field}: expected {expected}, got {got} in {claim.row_name(row)}{advice}")


def _labels(claim: Claim, labels: Values, real: Values) -> None:
    limit, expected = math.inf, "whole class indices of at least 0"
    if claim.num_classes is not None:
        limit, expected = claim.num_classes, f"whole class indices from 0 to {claim.num_classes - 1}"
    advice = "; the first class is 0, not 1" if claim.num_classes is not None and labels.max(initial=0) == limit else ""
    _look(claim, "labels", labels, real, _whole, expected, lambda of: (of < 0) | (of >= limit), advice)


def _boxes(claim: Claim, boxes: Values, used: Values) -> None:
    _look(claim, "boxes", boxes, used, _finite, "finite numbers", _never)
    _unit(claim, "boxes", boxes[used, :4])
    if claim.unit.endswith("_xyxy"):
        advice = "; is the unit corner and size ('..._xywh') or centre and size ('..._cxcywh')?"
        _look(claim, "boxes", boxes, used, _finite, f"x1 <= x2 and y1 <= y2 in unit '{claim.unit}'", _swapped, advice)
    else:
        expected = f"width and height of at least 0 in unit '{claim.unit}'"
        _look(claim, "boxes", boxes, used, _finite, expected, _negative)
    if boxes.shape[1] == 5:
        largest = np.abs(boxes[used, 4]).max(initial=0)
        if largest > LARGEST_ANGLE:
            raise ShapeError(
                f"{claim.caller}: boxes: expected angles in radians, got {largest:g}; that looks like degrees: "
                "multiply by pi / 180"
            )


def _unit(claim: Claim, field: str, numbers: Values) -> None:
    """Raises when numbers look normalised where px are expected, or the reverse."""
    largest = np.abs(numbers).max(initial=0)
    if claim.unit.startswith("normalized") and largest > NORMALIZED_LIMIT:
        raise ShapeError(
            f"{claim.caller}: {field}: expected shares of the image, about 0 to 1, for unit '{claim.unit}', got "
            f"{largest:g}; that looks like pixels: say unit='{claim.unit.replace('normalized', 'pixel')}'"
        )
    if claim.unit.startswith("pixel") and 0 < largest <= NORMALIZED_LIMIT:
        raise ShapeError(
            f"{claim.caller}: {field}: expected pixels of the network input for unit '{claim.unit}', got numbers of "
            f"at most {largest:g}; that looks normalised: say unit='{claim.unit.replace('pixel', 'normalized')}'"
        )


def _keypoints(claim: Claim, flat: Values, real: Values, values: int) -> None:
    _look(claim, "keypoints", flat, real, _finite, "finite numbers", _never)
    points = flat[real].reshape(-1, values)
    _unit(claim, "keypoints", points[:, :2])
    if values == 3:
        seen = flat.reshape(len(flat), flat.shape[1] // 3, 3)[..., 2]
        _look(claim, "keypoints", seen, real, _finite, "visibility 0, 1 or 2", lambda of: ~np.isin(of, (0, 1, 2)))
