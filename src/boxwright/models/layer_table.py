# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Reads the YAML tables that people describe networks with: rows `[from, repeats, block, args]`, scaled, a head last.

Keys: `nc`, `backbone`, `head`; `scales` (letter: [depth, width, widest]) or `depth_multiple` and `width_multiple`;
`anchors` (px, one flat list per level) for an anchor-based head; `kpt_shape`, `reg_max`, `end2end` for the others.

Source: spec/architectures 1 and 3 to 5.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from boxwright.config import suggest
from boxwright.errors import ConfigError
from boxwright.models.backbones.table_backbone import LAYERS, SCALED, TableConfig, TableRow, check_block
from boxwright.models.classifier import ClassifierConfig
from boxwright.models.detector import DetectorConfig
from boxwright.models.heads import HeadConfig
from boxwright.models.heads.anchor_based import AnchorBasedConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.heads.branches import MaskConfig
from boxwright.models.necks.none import NoNeckConfig
from boxwright.vocabulary import KeypointSpec

HEADS = ("Detect", "v10Detect", "Segment", "Pose", "OBB", "Classify")
KEYS = (
    *("nc", "backbone", "head", "scales", "scale", "depth_multiple", "width_multiple", "max_channels"),
    *("anchors", "kpt_shape", "reg_max", "end2end", "activation", "ch"),
)
WHOLE_C3K = ("m", "l", "x")  # scales in which every C3k2 has a C3k in each unit, whatever its row says
LIGHT = ("C3k2", "C2PSA")  # a table with one of them has the light class branch


def read_layer_table(table: Mapping[str, Any], scale: str | None = None) -> DetectorConfig | ClassifierConfig:
    """The config of the network that a table describes, in one of its scales.

    Raises:
        ConfigError: a key, row, block or argument that is not known, a scale that is not there, or no head.
    """
    for key in table:
        if key not in KEYS:
            raise ConfigError(f"{key}: unknown key of a layer table{suggest(str(key), KEYS)}")
    if str(table.get("activation", "nn.SiLU()")) != "nn.SiLU()" or table.get("ch", 3) != 3:
        raise ConfigError("activation, ch: only nn.SiLU() and 3 are supported in a layer table; leave them out")
    scale, (depth, width, widest) = _scaling(table, scale)
    lines = [*_lines(table, "backbone"), *_lines(table, "head")]
    if not lines or lines[-1][2] not in HEADS:
        raise ConfigError(f"head: expected a last row with one of {', '.join(HEADS)}, got {lines[-1] if lines else []}")
    rows = []
    for index, (source, repeats, block, args) in enumerate(lines[:-1]):
        check_block(block, f"rows.{index}", (*LAYERS, *HEADS))
        if block in HEADS:
            raise ConfigError(f"rows.{index}: expected the head {block} to be the last row")
        if block in SCALED:
            args = (_width(args, index, width, widest), *args[1:])
        if block == "C3k2" and scale in WHOLE_C3K:
            args = (args[0], True, *args[2:])
        rows.append(TableRow(source=source, repeats=_depth(repeats, depth), block=block, args=args))
    source, _, name, args = lines[-1]
    args = tuple(value for value in args if value != "anchors")  # they are a key of their own
    outputs = tuple(len(rows) + place if place < 0 else place for place in source)
    backbone = TableConfig(rows=tuple(rows), outputs=outputs)
    classes = _classes(table, args)
    if name == "Classify":
        return ClassifierConfig(backbone=backbone, num_classes=classes)
    hidden = _scaled(args[2] if name == "Segment" and len(args) > 2 else 256, width, widest)
    head = _head(name, table, args, classes, hidden, light=any(row.block in LIGHT for row in rows))
    return DetectorConfig(backbone=backbone, neck=NoNeckConfig(), head=head)


def _head(
    name: str, table: Mapping[str, Any], args: Sequence[Any], classes: int, hidden: int, light: bool
) -> HeadConfig:
    anchors = table.get("anchors")
    masks = MaskConfig(count=args[1] if len(args) > 1 else 32, hidden=hidden) if name == "Segment" else None
    if anchors:
        if name not in ("Detect", "Segment"):
            raise ConfigError(f"anchors: expected a head Detect or Segment with anchors, got {name}")
        if masks is not None:
            masks = MaskConfig(count=masks.count, hidden=hidden, upsample="nearest")
        return AnchorBasedConfig(num_classes=classes, anchors=_anchors(anchors), masks=masks)
    keypoints = None
    if name == "Pose":
        shape = table.get("kpt_shape", args[1] if len(args) > 1 and isinstance(args[1], tuple) else None)
        if not isinstance(shape, list | tuple) or len(shape) != 2:
            raise ConfigError(f"kpt_shape: expected [keypoints, 2 or 3] for a head Pose, got {shape}")
        keypoints = KeypointSpec(count=shape[0], dims=shape[1])
    bins = table.get("reg_max", 16)
    return AnchorFreeConfig(
        num_classes=classes,
        num_bins=bins,
        box_bias=2.0 if bins == 1 else 1.0,
        class_branch="light" if light or name == "v10Detect" else "full",
        end_to_end=name == "v10Detect" or bool(table.get("end2end", False)),
        masks=masks,
        keypoints=keypoints,
        oriented=name == "OBB",
    )


def _lines(table: Mapping[str, Any], part: str) -> list[tuple[tuple[int, ...], int, str, tuple[Any, ...]]]:
    """The rows of one part, as (from, repeats, block, args)."""
    found = []
    rows = table.get(part)
    if not isinstance(rows, list):
        raise ConfigError(f"{part}: expected a list of rows [from, repeats, block, args], got {rows!r}")
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 4 or not isinstance(row[2], str) or not isinstance(row[3], list):
            raise ConfigError(f"{part}.{index}: expected [from, repeats, block, args], got {row!r}")
        source = tuple(row[0]) if isinstance(row[0], list) else (row[0],)
        if not all(type(place) is int for place in (*source, row[1])):
            raise ConfigError(f"{part}.{index}: expected whole numbers for from and repeats, got {row[0]} and {row[1]}")
        found.append((source, row[1], row[2], tuple(_argument(value) for value in row[3])))
    return found


def _argument(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return {"None": None, "True": True, "False": False}.get(value, value) if isinstance(value, str) else value


def _scaling(table: Mapping[str, Any], scale: str | None) -> tuple[str, tuple[float, float, float]]:
    """The chosen scale ('' without any), and its depth, width and widest."""
    scales = table.get("scales")
    chosen: Any = scale or table.get("scale")
    if not scales:
        widest = table.get("max_channels", math.inf)
        return "", (float(table.get("depth_multiple", 1.0)), float(table.get("width_multiple", 1.0)), float(widest))
    if chosen is None and len(scales) == 1:
        chosen = next(iter(scales))
    if chosen not in scales:
        raise ConfigError(
            f"scale: expected one of {', '.join(scales)}, got {chosen}; add the key, for example 'scale: n'"
        )
    depth, width, *widest = scales[chosen]
    return chosen, (float(depth), float(width), float(widest[0]) if widest else math.inf)


def _width(args: tuple[Any, ...], index: int, factor: float, widest: float) -> int:
    if not args or type(args[0]) is not int or args[0] < 1:
        raise ConfigError(f"rows.{index}: expected a width as the first argument, got {list(args)}")
    return _scaled(args[0], factor, widest)


def _scaled(base: int, factor: float, widest: float) -> int:
    return 8 * math.ceil(min(base, widest) * factor / 8)


def _depth(base: int, factor: float) -> int:
    return max(round(base * factor), 1) if base > 1 else base


def _classes(table: Mapping[str, Any], args: Sequence[Any]) -> int:
    count = table.get("nc") if not args or args[0] == "nc" else args[0]
    if type(count) is not int or count < 1:
        raise ConfigError(f"nc: expected a number of classes, got {count}")
    return count


def _anchors(anchors: Any) -> tuple[tuple[tuple[float, float], ...], ...]:
    if not isinstance(anchors, list) or not all(isinstance(level, list) and len(level) % 2 == 0 for level in anchors):
        raise ConfigError(f"anchors: expected a list of widths and heights (px) for every level, got {anchors}")
    return tuple(tuple(zip(map(float, level[::2]), map(float, level[1::2]), strict=True)) for level in anchors)
