# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The instances of many images as a few flat arrays, for the label cache: plain numbers, nothing to run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boxwright.datasets.sample import Instances, Polygons

# Rows of every image one after the other; where the width is not fixed, the first image that has the field sets it.
_PER_OBJECT = ("boxes", "labels", "corners", "keypoints", "weights", "areas")
_PER_REGION = ("ignore", "ignore_labels")
_ATTRIBUTE = "attribute:"


def pack_instances(instances: Sequence[Instances]) -> dict[str, np.ndarray]:
    """Flat arrays that hold everything; the inverse of `unpack_instances`."""
    arrays: dict[str, np.ndarray] = {
        "objects": np.array([len(part) for part in instances], np.int64),
        "regions": np.array([0 if part.ignore is None else len(part.ignore) for part in instances], np.int64),
    }
    for name in (*_PER_OBJECT, *_PER_REGION):
        _put(arrays, name, [getattr(part, name) for part in instances])
    names = dict.fromkeys(name for part in instances for name in part.attributes or ())
    for name in names:
        _put(arrays, _ATTRIBUTE + name, [(part.attributes or {}).get(name) for part in instances])
    arrays["has:attributes"] = np.array([part.attributes is not None for part in instances], np.bool_)
    _put_outlines(arrays, "polygons", [part.polygons for part in instances])
    _put_outlines(arrays, "ignore_outlines", [part.ignore_outlines for part in instances])
    return arrays


def _put_outlines(arrays: dict[str, np.ndarray], name: str, outlines: Sequence[tuple[Polygons, ...] | None]) -> None:
    arrays["has:" + name] = np.array([part is not None for part in outlines], np.bool_)
    objects = [outline for part in outlines if part is not None for outline in part]
    parts = [points for outline in objects for points in outline]
    arrays[name + "_parts"] = np.array([len(outline) for outline in objects], np.int64)
    arrays[name + "_points"] = np.array([len(points) for points in parts], np.int64)
    arrays[name] = np.concatenate([np.zeros((0, 2), np.float32), *parts])


def _put(arrays: dict[str, np.ndarray], name: str, parts: Sequence[np.ndarray | None]) -> None:
    given = [part for part in parts if part is not None]
    arrays["has:" + name] = np.array([part is not None for part in parts], np.bool_)
    if given:
        arrays[name] = np.concatenate(given)


def unpack_instances(arrays: Mapping[str, np.ndarray]) -> list[Instances]:
    """The instances of each image.

    Raises:
        KeyError, ValueError: the arrays do not agree with each other.
    """
    objects, regions = arrays["objects"], arrays["regions"]
    columns = {name: _take(arrays, name, objects) for name in _PER_OBJECT}
    columns |= {name: _take(arrays, name, regions) for name in _PER_REGION}
    names = [name.removeprefix("has:") for name in arrays if name.startswith("has:" + _ATTRIBUTE)]
    attributes = {name.removeprefix(_ATTRIBUTE): _take(arrays, name, objects) for name in names}
    outlines = _take_outlines(arrays, "polygons", objects)
    shapes = _take_outlines(arrays, "ignore_outlines", regions)
    result = []
    for row, has_attributes in enumerate(arrays["has:attributes"].tolist()):
        fields: dict[str, Any] = {name: column[row] for name, column in columns.items()}
        values = {name: part for name, column in attributes.items() if (part := column[row]) is not None}
        fields |= {"polygons": outlines[row], "ignore_outlines": shapes[row]}
        result.append(Instances(**fields, attributes=values if has_attributes else None))
    if len(result) != len(objects):
        raise ValueError("the arrays of the cache do not agree")
    return result


def _take(arrays: Mapping[str, np.ndarray], name: str, counts: np.ndarray) -> list[np.ndarray | None]:
    has = arrays["has:" + name]
    if not has.any():
        return [None] * len(counts)
    values = arrays[name]
    pieces = iter(_pieces(values, counts[has]))
    return [next(pieces) if given else None for given in has.tolist()]


def _pieces(values: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    ends = np.cumsum(counts)
    if len(values) != (int(ends[-1]) if len(ends) else 0):
        raise ValueError("the arrays of the cache do not agree")
    return [values[end - count : end] for end, count in zip(ends.tolist(), counts.tolist(), strict=True)]


def _take_outlines(
    arrays: Mapping[str, np.ndarray], name: str, counts: np.ndarray
) -> list[tuple[Polygons, ...] | None]:
    has = arrays["has:" + name]
    parts = iter(_pieces(arrays[name], arrays[name + "_points"]))
    per_object = _pieces(arrays[name + "_parts"], counts[has])
    remaining = iter(per_object)
    result: list[tuple[Polygons, ...] | None] = []
    for given in has.tolist():
        if not given:
            result.append(None)
            continue
        result.append(tuple(tuple(next(parts) for _ in range(count)) for count in next(remaining).tolist()))
    return result
