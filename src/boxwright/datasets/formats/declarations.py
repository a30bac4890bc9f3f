# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What datasets declare beside their classes, the same in a data.yaml and in a COCO file: attributes and keypoints.

Attributes are a mapping of a name to its values, or to `{values: [...], multi_label: true}`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from boxwright.errors import ConfigError
from boxwright.vocabulary import AttributeSpec

_FORM = "expected a list of values, or {values: [...], multi_label: true}"


class DeclarationError(ValueError):
    """What is declared cannot be meant; `key` is its dotted path."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key = key


def attribute_specs(declared: Any, key: str = "attributes") -> tuple[AttributeSpec, ...]:
    """Attributes from plain values, in the order of the mapping.

    Raises:
        DeclarationError: not a mapping of names to values.
    """
    if not isinstance(declared, Mapping) or not all(isinstance(name, str) for name in declared):
        raise DeclarationError(key, f"expected a mapping of attribute names to their values, got {declared!r:.60}")
    return tuple(_spec(name, value, f"{key}.{name}") for name, value in declared.items())


def _spec(name: str, value: Any, key: str) -> AttributeSpec:
    known = {"values", "multi_label"}
    parts: Mapping[str, Any] = value if isinstance(value, Mapping) else {"values": value}
    values, many = parts.get("values"), _flag(parts.get("multi_label", False))
    if not set(parts) <= known or many is None or not isinstance(values, Sequence) or isinstance(values, str):
        raise DeclarationError(key, f"{_FORM}, got {value!r:.60}")
    if not all(isinstance(text, str | int | float) for text in values):
        raise DeclarationError(key, f"{_FORM}, got {value!r:.60}")
    try:
        return AttributeSpec(name=name, values=tuple(str(text) for text in values), multi_label=many)
    except ConfigError as error:
        raise DeclarationError(key, str(error).partition(": ")[2]) from None


def _flag(value: Any) -> bool | None:
    if isinstance(value, str):  # YAML scalars arrive as their text
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def columns(specs: Sequence[AttributeSpec]) -> int:
    """Columns that attributes take in a row: one index, or one 0/1 for each value of a multi-label one.

    >>> columns([AttributeSpec(name="colour", values=("red", "blue"))])
    1
    """
    return sum(len(spec.values) if spec.multi_label else 1 for spec in specs)


def mirror_order(names: Sequence[str]) -> tuple[int, ...] | None:
    """Index of each keypoint in a mirrored image, from names that say left and right; None where they do not.

    >>> mirror_order(["nose", "left_eye", "right_eye"])
    (0, 2, 1)
    """
    lower = [name.lower() for name in names]
    if not any("left" in name or "right" in name for name in lower) or len(set(lower)) < len(lower):
        return None
    order = []
    for name in lower:
        other = name.replace("left", "\0").replace("right", "left").replace("\0", "right")
        if other not in lower:
            return None
        order.append(lower.index(other))
    return tuple(order)
