# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The one list of checks: what an audit looks for, how it looks in a dataset, and what to do about it.

docs/audit.md is made of this list. Imports no torch.
"""

from collections.abc import Iterator
from typing import Any

from boxwright.auditor import image_checks, label_checks, split_checks
from boxwright.auditor.readers import READERS, check_of
from boxwright.auditor.scene import SHOWN, Audited, Check, Example, Finding, Hit
from boxwright.datasets import codes
from boxwright.datasets.sample import Split

OWN: tuple[Check, ...] = (
    Check(code="split_missing", group="config", severity="warning", find=split_checks.split_missing,
          what="There is no split to validate on",
          example="`train: images/train` and no `val`",
          fix="Keep a tenth of the images for validation; keep frames of one video together."),
    Check(code="names_alike", group="config", severity="warning", find=split_checks.names_alike,
          what="Class names differ only in case, spaces or a plural s",
          example="`Car` and `car`; `traffic light` and `traffic_lights`",
          fix="If they mean one class, join them and change the labels; otherwise rename one."),
    Check(code="image_undecodable", group="images", severity="error", find=image_checks.undecodable,
          what="An image has a good header and damaged pixels",
          example="A download that was cut off in the middle of a PNG",
          fix="Restore the file, or remove it and its label; `data.image.verify=decode` drops such files in training."),
    Check(code="image_copies", group="images", severity="warning", find=image_checks.copies,
          what="The same file is in a split more than once",
          example="`a.jpg` and `a (1).jpg` with equal bytes",
          fix="Keep one. If their labels differ, decide which are right."),
    Check(code="image_near_copies", group="images", severity="note", find=image_checks.near_copies,
          what="Nearly the same picture is in a split more than once",
          example="Frames of one video; a resized copy",
          fix="Nothing to do if it is meant so; they count like one image and must never be in different splits."),
    Check(code="image_rotated", group="images", severity="note", find=image_checks.rotated,
          what="Images are stored sideways and turned by their EXIF orientation",
          example="Pictures of a phone held upright",
          fix="Look at one with `boxwright train` pictures or a viewer: labels must fit the upright picture."),
    Check(code="image_mode", group="images", severity="note", find=image_checks.odd_modes,
          what="Images do not store three colours of 8 bits",
          example="Grey scans, CMYK for print, PNG with a palette or transparency",
          fix="Nothing to do if predictions will see such images too; transparency is dropped (data.image.alpha)."),
    Check(code="image_uniform", group="images", severity="warning", find=image_checks.uniform,
          what="An image shows a single colour", example="A black frame; a failed export",
          fix="Remove it, above all where it has labels."),
    Check(code="image_small", group="images", severity="note", find=image_checks.small,
          what="Images are enlarged more than four times", example="80 x 60 px at an image size of 640",
          fix="Train with a smaller `imgsz`: it is faster and shows as much."),
    Check(code="image_extreme_shape", group="images", severity="note", find=image_checks.extreme_shape,
          what="Images are several times as long as wide", example="A panorama of 6000 x 800 px",
          fix="Cut them into tiles: in a square input most of it would be padding, and objects small."),
    Check(code="boxes_unscaled", group="labels", severity="error", find=label_checks.boxes_unscaled,
          what="Boxes are in another unit than the format says",
          example="YOLO rows in pixels (`0 320 240 50 50`); COCO boxes as parts of the image (`[0.5, 0.5, 0.1, 0.1]`)",
          fix="Divide by (or multiply with) the width and height of each image."),
    Check(code="boxes_misread", group="labels", severity="warning", find=label_checks.boxes_misread,
          what="Many boxes leave their image: their numbers may mean something else",
          example="Corners where centre and size are expected (YOLO) or corner and size (COCO); x and y swapped",
          fix="Draw some of them; write the boxes as docs/data.md shows for the format."),
    Check(code="sides_swapped", group="labels", severity="warning", find=label_checks.sides_swapped,
          what="Objects of a class are tall in one split and wide in another",
          example="val was exported with width and height swapped",
          fix="Draw some images of both splits, and export the wrong one again."),
    Check(code="labelled_twice", group="labels", severity="warning", find=label_checks.labelled_twice,
          what="Two boxes of one class lie on the same object",
          example="Two people labelled the same image, and both files were joined",
          fix="Remove one: both would be learned, and one counts as missed when quality is measured."),
    Check(code="labelled_as_two_classes", group="labels", severity="warning", find=label_checks.two_classes,
          what="Two boxes of different classes lie on the same object",
          example="A box `car` and a box `truck` at the same place",
          fix="Keep the right one; if both are meant, say so: `exclusive: false` is the default, and leave this."),
    Check(code="box_huge", group="labels", severity="note", find=label_checks.huge,
          what="A box covers nearly the whole image", example="`0 0.5 0.5 1 1`",
          fix="Right for close-ups; otherwise a label of the whole image that was turned into a box."),
    Check(code="box_tiny", group="labels", severity="warning", find=label_checks.tiny,
          what="A box is a few pixels small", example="1.5 x 2 px: a slip of the mouse",
          fix="Remove it, or draw it again; real objects of this size need larger images."),
    Check(code="box_extreme_aspect", group="labels", severity="note", find=label_checks.long,
          what="A box is many times as long as wide", example="400 x 6 px",
          fix="Right for poles and cracks (then consider oriented boxes); otherwise draw it again."),
    Check(code="box_size_outlier", group="labels", severity="note", find=label_checks.size_outliers,
          what="An object is far larger or smaller than others of its class", example="One ant as large as the image",
          fix="Look at the examples: often another class, several objects in one box, or a slip."),
    Check(code="box_shape_outlier", group="labels", severity="note", find=label_checks.shape_outliers,
          what="An object has another shape than others of its class", example="A flat pedestrian",
          fix="Look at the examples: often cut off at the border, or swapped sides."),
    Check(code="identical_labels", group="labels", severity="warning", find=label_checks.identical_labels,
          what="Different images have the same labels to the last digit",
          example="`b.txt` is a copy of `a.txt`, the images differ",
          fix="Label one of them again; copies that belong to frames of a still scene may stay."),
    Check(code="image_crowded", group="labels", severity="note", find=label_checks.crowded,
          what="An image has more objects than a detector returns by default (300)", example="A shelf of 800 cans",
          fix="Raise evaluation.max_det and `predict --max-det`, or cut the image into tiles."),
    Check(code="outline_rows", group="labels", severity="note", find=label_checks.outline_rows,
          what="Rows are outlines in a dataset that is read for boxes", example="`0 0.1 0.1 0.4 0.1 0.4 0.3 0.1 0.3`",
          fix="Say `task: segment` (or obb) in data.yaml if that is wanted; boxes around outlines are fine to detect."),
    Check(code="near_leak", group="splits", severity="warning", find=image_checks.near_leaks,
          what="Nearly the same picture is in two splits",
          example="Frame 100 of a video in train, frame 101 in val",
          fix="Move both into one split; split by video, place or day, not by image."),
    Check(code="class_missing_in_split", group="splits", severity="warning", find=split_checks.class_missing_in_split,
          what="A class is trained and never measured", example="All 12 zebras are in train",
          fix="Move some of its images into the split."),
    Check(code="split_skew", group="splits", severity="note", find=split_checks.skew,
          what="Classes occur in other shares in another split", example="train: 90 % car; val: 40 % car",
          fix="Split at random within groups; keep it if the split is like what predictions will see."),
    Check(code="size_shift", group="splits", severity="note", find=split_checks.size_shift,
          what="Objects of a class are much larger in one split", example="train: drone images; val: from the ground",
          fix="As above; or train at a larger range of sizes (augment.scale)."),
    check_of(codes.CLASS_WITHOUT_OBJECTS, split_checks.class_without_objects),
    Check(code="class_rare", group="balance", severity="warning", find=split_checks.class_rare,
          what="A class has fewer than 20 objects to learn from", example="7 objects of `glove`",
          fix="Add images of it; class weights help little with so few."),
    Check(code="class_imbalance", group="balance", severity="warning", find=split_checks.class_imbalance,
          what="One class has ten times the objects of another", example="4000 red and 350 white blood cells",
          fix="Try `--set criterion.class_weights.kind=inverse` (log and power are milder); the table of weights shows "
          "what each gives."),
    Check(code="images_empty", group="balance", severity="note", find=split_checks.background,
          what="Images without an object", example="An empty label file",
          fix="Some are good against false alarms; a warning from half of the images on: are labels missing?"),
    Check(code="no_candidate", group="learning", severity="warning", find=split_checks.no_candidate,
          what="Objects that no candidate of the model can learn from",
          example="A box of 4 x 4 px between the cells of a grid of stride 8",
          fix="Take what the finding lists: a larger image size, a finer level, boxes widened, other anchors."),
    Check(code="few_candidates", group="learning", severity="note", find=split_checks.few_candidates,
          what="Objects with fewer candidates than the assigner asks for",
          example="A box of 16 x 16 px holds 4 cells of stride 8 and one of stride 16; topk is 10",
          fix="They learn from what they have; a larger image size gives more."),
    Check(code="anchors_misfit", group="learning", severity="warning", find=split_checks.anchors_misfit,
          what="The model's anchors do not fit the labels", example="Anchors for COCO, labels 20 times as long as wide",
          fix="Leave train.autoanchor on, or set model.head.anchors to those of the finding."),
)  # fmt: skip

CHECKS: tuple[Check, ...] = (*READERS, *OWN)


def run_checks(audited: Audited) -> list[Finding]:
    """What the checks of this list find."""
    return [_finding(check, hit, audited) for check in OWN for hit in _hits(check, audited)]


def _hits(check: Check, audited: Audited) -> Iterator[Hit]:
    if check.find is not None:
        yield from check.find(audited)


def _finding(check: Check, hit: Hit, audited: Audited) -> Finding:
    examples = tuple(
        Example(_file(audited, spot.split, spot.image, spot.text), None, spot.text if spot.image >= 0 else "")
        for spot in hit.spots[:SHOWN]
    )
    severity: Any = hit.severity or check.severity
    return Finding(check.code, check.group, severity, hit.splits, hit.count, hit.message, check.fix, examples)


def _file(audited: Audited, split: Split, image: int, text: str) -> str:
    if image < 0:
        return text
    path = audited.splits[split].images[image]
    try:
        return path.relative_to(audited.root).as_posix()
    except ValueError:
        return path.as_posix()
