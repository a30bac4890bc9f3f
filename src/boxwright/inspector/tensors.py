# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Outputs and labels of any code base in one file (npz or safetensors), ready to be inspected.

The file holds arrays by name, and one JSON text named `about` (npz: a text array; safetensors: metadata):

| array | shape | what |
|---|---|---|
| `maps.0`, `maps.1`, ... | (B, 4 R + C, h, w) | head "yolov8": raw maps, finest level first |
| | (B, anchors, h, w, 5 + C [+ Q]) | head "yolov5" |
| `boxes`, `logits` | (B, 4 R, A), (B, C, A) | head "yolov8" that has joined its levels, instead of `maps` |
| | (L, B, Q, 4), (L, B, Q, C) | head "detr": all layers, the output last |
| `one2many.maps.0`, ... | as without the prefix | head "yolov8" with two branches; without it: the one-to-one branch |
| `mask_coefs`, `prototypes`, `keypoints`, `angle` | as `losses.from_yolov8_maps` takes them | optional; by branch |
| `targets.image`, `targets.label`, `targets.boxes` | (N,), (N,), (N, 4 or 5) | label rows |
| `targets.keypoints`, `targets.masks`, `targets.instance_map` | as `losses.targets_from_rows` takes them | optional |

`about`: `format` ("boxwright-tensors/1"), `head` (yolov8, yolov5, detr), `criterion` (a builder of
`boxwright.losses`, for example "yolov8_detect"), `options` (its arguments), `image_size` [H, W], `num_classes`,
`box_unit` (see `losses.BoxUnit`), and by head `strides`, `num_bins`, `anchors`, `anchor_unit`, `encoder_first`;
optional `names`, `paths`, `progress`, `exclusive` and `loss`, what the other code base computed itself.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from boxwright.config import component, from_dict, suggest
from boxwright.errors import ConfigError, DataError, ShapeError
from boxwright.losses import dense_recipes, query_recipes, recipes
from boxwright.losses.adapters import (
    from_detr_stacks,
    from_yolov5_maps,
    from_yolov8_joined,
    from_yolov8_maps,
    targets_from_rows,
)
from boxwright.losses.criterion import Criterion
from boxwright.structures import Outputs, Targets

FORMAT = "boxwright-tensors/1"
CRITERIA: dict[str, Callable[..., Criterion]] = {
    builder.__name__: builder
    for builder in (
        dense_recipes.yolov8_detect,
        dense_recipes.yolov8_segment,
        dense_recipes.yolov8_pose,
        dense_recipes.yolov8_oriented,
        dense_recipes.end_to_end_detect,
        dense_recipes.end_to_end_progressive,
        recipes.yolov5_detect,
        recipes.yolov5_exclusive,
        recipes.yolov5_segment,
        query_recipes.rtdetr,
        query_recipes.rtdetr_modern,
    )
}


@component
class About:
    """What a file says of its arrays."""

    format: Literal["boxwright-tensors/1"]
    head: Literal["yolov8", "yolov5", "detr"]
    criterion: str
    image_size: tuple[int, int]  # (H, W) px that the network saw
    num_classes: Annotated[int, Field(ge=1)]
    options: dict[str, Any] | None = None  # arguments of the criterion's builder
    box_unit: str = "normalized_cxcywh"
    strides: tuple[int, ...] = ()
    num_bins: int = 16
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()
    anchor_unit: Literal["pixel", "cell"] = "pixel"
    num_coefs: int = 0
    keypoint_values: int = 3
    encoder_first: bool = True
    exclusive: bool = False
    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    progress: float = 0.0
    loss: float | None = None  # total that the other code base computed


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A batch of another code base."""

    outputs: Outputs
    targets: Targets
    criterion: Criterion
    about: About


def read_tensors(path: Path) -> TensorFile:
    """The batch of a file.

    Raises:
        DataError: the file is missing, damaged, holds objects that only a pickle can read, or lacks an array.
        ConfigError: its description is wrong.
        ShapeError: arrays do not fit the description.
    """
    arrays, text = _read(path)
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: about: expected JSON: {error}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise DataError(f"{path}: about.format: expected {FORMAT!r}, got {found!r}")
    about = from_dict(About, values, where=f"{path}: about")
    if about.criterion not in CRITERIA:
        raise ConfigError(f"{path}: about.criterion: unknown '{about.criterion}'{suggest(about.criterion, CRITERIA)}")
    try:
        criterion = CRITERIA[about.criterion](**(about.options or {}))
    except TypeError as error:
        raise ConfigError(f"{path}: about.options: {error}") from None
    reader = _Arrays(path, arrays)
    return TensorFile(_outputs(reader, about), _targets(reader, about), criterion, about)


@dataclass(frozen=True, slots=True)
class _Arrays:
    path: Path
    held: Mapping[str, Tensor]

    def need(self, name: str) -> Tensor:
        if name not in self.held:
            raise DataError(f"{self.path}: there is no array '{name}'; it holds {', '.join(sorted(self.held))}")
        return self.held[name]

    def maps(self, prefix: str, levels: int) -> list[Tensor]:
        return [self.need(f"{prefix}maps.{level}") for level in range(levels)]


def _outputs(reader: _Arrays, about: About) -> Outputs:
    get, size = reader.held.get, about.image_size
    if about.head == "detr":
        return from_detr_stacks(
            reader.need("boxes"),
            reader.need("logits"),
            image_size=size,
            encoder_first=about.encoder_first,
            exclusive=about.exclusive,
        )
    levels = len(about.strides)
    if not levels:
        raise ConfigError(f"{reader.path}: about.strides: expected one stride per map, got none")
    if about.head == "yolov5":
        return from_yolov5_maps(
            reader.maps("", levels),
            about.anchors,
            about.strides,
            anchor_unit=about.anchor_unit,
            num_classes=about.num_classes,
            image_size=size,
            num_coefs=about.num_coefs,
            prototypes=get("prototypes"),
            exclusive=about.exclusive,
        )

    if not any(name.startswith("one2many.") for name in reader.held):
        return _branch(reader, about, "", "main")
    one, many = _branch(reader, about, "", "one2one"), _branch(reader, about, "one2many.", "one2many")
    return Outputs(one.final, (many.final,))


def _branch(reader: _Arrays, about: About, prefix: str, role: str) -> Outputs:
    """One branch of a YOLOv8 head, from maps or from what has joined its levels."""
    extras = {name: reader.held.get(f"{prefix}{name}") for name in ("mask_coefs", "prototypes", "keypoints", "angle")}
    options: dict[str, Any] = {
        **extras,
        "num_bins": about.num_bins,
        "image_size": about.image_size,
        "keypoint_values": about.keypoint_values,
        "exclusive": about.exclusive,
        "role": role,
    }
    if f"{prefix}boxes" in reader.held and f"{prefix}maps.0" not in reader.held:
        logits = reader.need(f"{prefix}logits")
        if logits.shape[1] != about.num_classes:
            raise ShapeError(
                f"{reader.path}: {prefix}logits: expected (B, {about.num_classes}, A), got {tuple(logits.shape)}"
            )
        return from_yolov8_joined(reader.need(f"{prefix}boxes"), logits, about.strides, **options)
    maps = reader.maps(prefix, len(about.strides))
    return from_yolov8_maps(maps, about.strides, num_classes=about.num_classes, **options)


def _targets(reader: _Arrays, about: About) -> Targets:
    if about.head == "detr":
        first = reader.need("boxes")[0]
    else:
        first = reader.held["boxes"] if "boxes" in reader.held else reader.need("maps.0")
    optional: dict[str, Any] = {
        name: reader.held.get(f"targets.{name}") for name in ("weights", "keypoints", "masks", "instance_map", "ignore")
    }
    return targets_from_rows(
        reader.need("targets.image").long(),
        reader.need("targets.label").long(),
        reader.need("targets.boxes"),
        batch=len(first),
        image_size=about.image_size,
        unit=about.box_unit,  # type: ignore[arg-type]
        num_classes=about.num_classes,
        **{name: value for name, value in optional.items() if value is not None},
    )


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Arrays and the text `about`."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected tensors as .npz or .safetensors")
    arrays, text = (_read_safetensors if path.suffix == ".safetensors" else _read_npz)(path)
    if text is None:
        raise DataError(f"{path}: it says nothing of its arrays; expected JSON under the name 'about'")
    return arrays, text


def _read_npz(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy raises many kinds for a damaged file
        raise DataError(f"{path}: cannot be read as .npz without running code: {error}") from None
    about = held.pop("about", None)
    return {name: torch.from_numpy(array) for name, array in held.items()}, None if about is None else str(about)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, (file.metadata() or {}).get("about")
    except SafetensorError as error:
        raise DataError(f"{path}: not a whole safetensors file ({error})") from None
