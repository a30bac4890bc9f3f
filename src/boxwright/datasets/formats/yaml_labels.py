# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a data.yaml declares about its label rows: task, keypoints, attributes.

Source: spec/datasets 2 (kpt_shape, flip_idx); kpt_names, skeleton, task and attributes are ours.
"""

from collections.abc import Callable, Mapping
from typing import Any

from boxwright.datasets.formats.declarations import DeclarationError, attribute_specs, mirror_order
from boxwright.datasets.formats.strict_yaml import Scalar, Value
from boxwright.errors import ConfigError, DataError
from boxwright.vocabulary import TASK_NAMES, AttributeSpec, KeypointSpec, TaskName

Get = Callable[[str], Value | None]  # the value of a top-level key, None where it is missing
Fail = Callable[[str, str], DataError]  # the error about a key


def read_task(get: Get, fail: Fail) -> TaskName | None:
    """What the labels are made for, where the file says so.

    Raises:
        DataError: not the name of a task.
    """
    value = get("task")
    if value is None:
        return None
    text = value.text.strip() if isinstance(value, Scalar) else ""
    task = next((name for name in TASK_NAMES if name == text), None)
    if task is None:
        raise fail("task", f"expected one of {', '.join(TASK_NAMES)}, got {shown_value(value)}")
    return task


def read_keypoints(get: Get, fail: Fail) -> KeypointSpec | None:
    """The keypoints of a row; None without `kpt_shape`.

    Raises:
        DataError: a key is wrong, or does not fit the number of keypoints.
    """
    value = get("kpt_shape")
    if value is None:
        for key in ("flip_idx", "kpt_names", "skeleton"):
            if get(key):
                raise fail(key, "given without kpt_shape; write 'kpt_shape: [number of keypoints, 2 or 3]'")
        return None
    numbers = [integer(part) for part in value] if isinstance(value, list) else []
    count, dims = numbers if len(numbers) == 2 else (None, None)
    if count is None or count < 1 or dims not in (2, 3):
        raise fail("kpt_shape", f"expected [number of keypoints, 2 or 3], got {shown_value(value)}")
    names = _keypoint_names(get, fail, count)
    flip = _indices(get("flip_idx"), "flip_idx", fail)
    if flip is not None and len(flip) != count:
        raise fail("flip_idx", f"expected {count} indices, one for each keypoint, got {len(flip)}")
    if flip is not None and (
        sorted(flip) != list(range(count)) or any(flip[other] != index for index, other in enumerate(flip))
    ):
        raise fail("flip_idx", f"expected an order of 0 to {count - 1} that undoes itself, got {list(flip)}")
    try:
        return KeypointSpec(
            count=count,
            dims=3 if dims == 3 else 2,
            names=names,
            flip=mirror_order(names) if flip is None else flip,
            skeleton=_skeleton(get, fail),
        )
    except ConfigError as error:
        raise fail("skeleton", str(error).partition(": ")[2]) from None


def _keypoint_names(get: Get, fail: Fail, count: int) -> tuple[str, ...]:
    value = get("kpt_names")
    if value is None:
        return ()
    if isinstance(value, dict):  # a list for each class; they must agree
        lists = [[part.text for part in names] for names in value.values() if _is_texts(names)]
        if len(lists) != len(value) or not lists or any(names != lists[0] for names in lists):
            raise fail("kpt_names", "expected the same list of names for every class")
        value = next(iter(value.values()))
    if not isinstance(value, list) or not _is_texts(value) or len(value) != count:
        raise fail("kpt_names", f"expected {count} names, one for each keypoint, got {shown_value(value)}")
    return tuple(part.text for part in value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, Scalar) and part.text.strip() for part in value)


def _skeleton(get: Get, fail: Fail) -> tuple[tuple[int, int], ...]:
    value = get("skeleton")
    if value is None:
        return ()
    pairs = [_indices(pair, "skeleton", fail) for pair in value] if isinstance(value, list) else [None]
    if any(pair is None or len(pair) != 2 for pair in pairs):
        raise fail("skeleton", f"expected pairs of keypoint indices from 0, got {shown_value(value)}")
    return tuple((pair[0], pair[1]) for pair in pairs if pair is not None)


def _indices(value: Value | None, key: str, fail: Fail) -> tuple[int, ...] | None:
    if value is None:
        return None
    numbers = [integer(part) for part in value] if isinstance(value, list) else [None]
    if any(number is None or number < 0 for number in numbers):
        raise fail(key, f"expected a list of indices from 0, got {shown_value(value)}")
    return tuple(number for number in numbers if number is not None)


def read_attributes(get: Get, fail: Fail) -> tuple[AttributeSpec, ...]:
    """The attributes that rows carry behind their coordinates, in this order.

    Raises:
        DataError: not a mapping of names to values.
    """
    value = get("attributes")
    if value is None:
        return ()
    try:
        return attribute_specs(_plain(value))
    except DeclarationError as error:
        raise fail(error.key, str(error)) from None


def _plain(value: Value) -> Any:
    if isinstance(value, Scalar):
        return value.text
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value]


def integer(value: Value) -> int | None:
    """A scalar that is a whole number."""
    text = value.text.strip() if isinstance(value, Scalar) else ""
    return int(text) if text.isascii() and text.lstrip("+-").isdigit() and len(text) < 20 else None


def shown_value(value: Value) -> str:
    """A value as an error names it."""
    if isinstance(value, Scalar):
        return repr(value.text)
    return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)}"
