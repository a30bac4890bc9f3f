# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every choice about reading a user's data, in one place: what is fixed in memory, dropped or refused."""

from typing import Literal

from boxwright.config import component
from boxwright.vocabulary import TaskName

Fit = Literal["letterbox", "stretch", "crop"]


@component
class ImagePolicy:
    """How image files become RGB pixels.

    Source: spec/datasets 6.
    """

    alpha: Literal["drop", "composite"] = "drop"  # composite: over white
    depth16: Literal["high_byte", "percentile"] = "high_byte"  # percentile: 1 % .. 99 % become 0 .. 255
    truncated: Literal["drop", "allow"] = "drop"  # allow: decode what is there, the rest is grey
    verify: Literal["header", "decode"] = "header"  # when checking: decode only where the header leaves a doubt, or all
    min_side: int = 10  # px; smaller images are dropped
    max_pixels: int = 178_956_970  # checked on the header, before anything is decoded
    max_decoded_mib: int = 512


@component
class DataConfig:
    """Where the data is and how it is read, checked and kept."""

    source: str = ""  # data.yaml, a folder in YOLO layout, a Pascal VOC folder, a COCO JSON file, ...
    task: TaskName = "detect"  # what the labels are read for; a preset sets it
    names: tuple[str, ...] | None = None  # class names in the wanted order, for formats whose labels carry names (VOC)
    exclusive: bool | None = None  # every object has exactly one of the classes; None: as the dataset says
    imgsz: int = 640  # px, side of the network input
    # How an image becomes the network input: scaled and padded, scaled without regard to its aspect, or (to classify)
    # its short side scaled and the middle taken.
    fit: Fit = "letterbox"
    mask_ratio: int = 4  # network px per pixel of the mask grid that the loss sees
    mask_encoding: Literal["map", "instances"] = "map"  # one map of instances (hidden parts are lost), or one mask each
    cache: Literal["none", "ram", "disk"] = "none"  # keep images, resized to imgsz
    cache_limit_gb: float = 8.0  # what does not fit stays uncached
    strict: bool = False  # warnings become errors
    allow_empty: bool = False  # accept a split without a single object
    allow_missing: bool = False  # accept a split where more than half of the label files are missing
    keep: Literal["task", "all"] = "task"  # all: also outlines and keypoints that the task does not use; to convert
    box: Literal["full", "visible", "head"] = "full"  # which of CrowdHuman's boxes is the person's
    fix: Literal["none", "clip", "skip", "all"] = "none"  # clip: -0.01..0 to 0; skip: drop rows of unknown classes
    drop_confidence: bool = False  # rows of predictions (6 fields): use the first 5
    max_objects: int = 10_000  # per image; the rest is dropped with a warning
    voc_offset: Literal["exact", "legacy", "none"] = "exact"  # how 1-based inclusive VOC pixels become edges
    skip_difficult: bool = True  # VOC and DOTA objects marked difficult
    follow_links: bool = False  # follow links inside the dataset, also to places outside it
    fingerprint: Literal["stat", "content"] = "stat"  # what the label cache trusts: size and mtime, or the bytes
    image: ImagePolicy = ImagePolicy()
