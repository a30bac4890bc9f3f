# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the readers of datasets report while they read, by code: the part of the list of checks that they find.

A code that is missing here is reported all the same (`described`), and a test of this room fails. Imports no torch.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from boxwright.auditor.scene import SHOWN, Check, Example, Finding, Group
from boxwright.datasets.sample import Problem, Severity, Split


def _read(group: Group, severity: Severity, rows: tuple[tuple[str, str, str, str], ...]) -> tuple[Check, ...]:
    return tuple(
        Check(code=code, group=group, severity=severity, what=what, example=example, fix=fix)
        for code, what, example, fix in rows
    )


# Each row: code, what, example, fix. The severity is the usual one; a finding has that of the reader's report.
READERS: tuple[Check, ...] = (
    *_read("config", "error", (
        ("path_not_found", "There is nothing at this path",
         "`boxwright audit datasets/helmet` where the folder is `datasets/helmets`",
         "Correct the path; relative ones start where the command runs."),
        ("cannot_open", "The description of the dataset is incomplete or wrong",
         "`names: [cat, dog]` with `nc: 3`; a key given twice; neither `names` nor `nc`",
         "Correct the named key; docs/data.md shows a description of every format."),
        ("split_unreadable", "A split is named but cannot be listed",
         "`val: images/valid` where the folder is `images/val`",
         "Correct the path of the split; relative ones start at `path`, or at the file that holds them."),
        ("no_images", "A split has no images", "`train: labels/train` instead of `images/train`",
         "Name the folder that holds the images, not the labels."),
        ("no_usable_image", "None of the images of a split can be used", "All files of `images/val` are web pages",
         "Look at the findings about image files; they say why each was refused."),
        ("no_objects", "A split has no object at all", "The labels folder is called `annotations`, not `labels`",
         "Put `labels` beside `images`; if it is meant so, set data.allow_empty=true."),
    )),
    *_read("config", "warning", (
        ("no_train_split", "There is no file for training", "Only `instances_val2017.json` lies in the folder",
         "Add the file of the train split, or name a folder that has one."),
        ("no_val_split", "Nothing tells train from val: the same images are used as both",
         "A single COCO file with all images", "Make two files, and no image in both."),
        ("test_as_val", "There is no val split; the test split stands in for it", "`train.json` and `test.json` only",
         "Keep a part of the training images for validation, and test images for the end."),
        ("trainval_used", "There is no list of training images; trainval is used", "Only `ImageSets/Main/trainval.txt`",
         "Write `train.txt` and `val.txt`."),
        ("path_missing", "The folder that `path` names does not exist; the file's own folder is used",
         "`path: /content/drive/cats`", "Correct or remove `path`."),
        ("duplicate_name", "Two classes have the same name", "`names: [car, truck, car]`",
         "Rename one, or join both and change the labels of the other."),
        ("name_not_text", "A class name is no text in YAML", "`names: [yes, no]`, which YAML reads as true and false",
         'Put it in quotes: `names: ["yes", "no"]`.'),
        ("channels_ignored", "`channels` is not used", "`channels: 1`", "Remove it; images are read as three colours."),
        ("download_ignored", "`download` is never run", "`download: https://...`",
         "Fetch and unpack the data yourself."),
        ("split_ignored", "A split is not used", "`minival: ...`", "Name it train, val or test."),
        ("keypoints_differ", "Categories have different keypoints; none are read",
         "person has 17 keypoints, dog has 12", "Make a dataset for each, or remove the others' keypoints."),
        ("class_folder_missing", "A split lacks the folder of a class", "`val/` has no folder `rust`",
         "Add the folder and some images of that class."),
    )),
    *_read("config", "note", (
        ("names_missing", "Classes have no names; some were made up", "No data.yaml beside the images",
         "Write a data.yaml with `names`."),
        ("class_ids_with_gaps", "Class ids are not 0, 1, 2, ...; indices follow their order",
         "COCO's 80 classes have ids 1 to 90", "Nothing to do; outputs keep the dataset's own ids."),
        ("link_as_text", "A link was checked out as a text file; it is followed all the same",
         "`images` is a file that holds `../images`", "Check the repository out with links, or make the link anew."),
    )),
    *_read("files", "warning", (
        ("image_missing", "An image is listed, but there is no such file", "`train.txt` names `12.jpg`, now removed",
         "Restore the file or remove its line."),
        ("labels_missing", "Images without a label file count as background", "`images/a.jpg` without `labels/a.txt`",
         "Label them, move them away, or put an empty label file beside those that hold no object."),
        ("orphan_label", "A label file has no image", "`labels/b.txt` without `images/b.jpg`",
         "Restore the image, or remove the label."),
        ("image_unsupported", "A file type that is not read for training", "`a.gif`, `b.svg`, HEIC",
         "Convert it to PNG or JPEG."),
        ("case_clash", "Two file names differ only by case", "`Cat.jpg` and `cat.jpg`",
         "Rename one: such files overwrite each other on Windows and macOS."),
        ("same_stem", "Two images share one label file", "`a.jpg` and `a.png` beside `labels/a.txt`",
         "Rename one image and its label."),
        ("duplicate_image", "An image is listed twice", "A line of `train.txt` is there twice", "Remove one line."),
        ("duplicate_image_id", "Two images of a COCO file have the same id", "`id: 7` is given to two files",
         "Give each image its own id."),
        ("duplicate_annotation_id", "Two annotations have the same id", "Two exports pasted together",
         "Number them anew."),
        ("bad_image_entry", "An entry of `images` lacks an id or a file name", '`{"id": 3}`', "Complete the entry."),
        ("image_unknown", "Annotations name images that are not listed", "`image_id: 99` and no such image",
         "List the image, or remove its annotations."),
        ("bad_path", "A path that cannot be used", "`../../etc/a.jpg`, or a zero byte in the path",
         "Name images inside the dataset."),
        ("link_outside", "A link leads out of the dataset", "`images/a.jpg` -> `/elsewhere/a.jpg`",
         "Copy the file, or set data.follow_links=true."),
        ("link_not_followed", "A link to a folder is not followed", "`images/more` -> `/data/more`",
         "Copy the folder, or set data.follow_links=true."),
        ("label_unreadable", "A label file cannot be read", "No permission; a damaged disk", "Restore the file."),
        ("utf16", "A label file is UTF-16", "Saved by a Windows editor as \"Unicode\"", "Save it as UTF-8."),
        ("undecodable", "Bytes that are not text", "A binary file named `.txt`", "Export the labels again."),
        ("bad_xml", "An XML file is damaged", "The file ends in the middle of an object", "Export it again."),
        ("xml_entities", "An XML file declares entities, which are refused", "`<!ENTITY ...>`",
         "Remove the document type declaration."),
        ("xml_too_large", "An XML file is too large to be a label", "A file of 200 MB", "Export the labels again."),
        ("bad_json", "A line is not JSON", "A cut-off line of an .odgt file", "Restore the line."),
        ("bad_entry", "An entry cannot be understood", "`gtboxes` is not a list", "Correct the entry."),
        ("bad_annotation", "Annotations that are no objects or lack an image", "`null` among the annotations",
         "Remove or complete them."),
        ("bad_count", "The number of rows is not the number announced", "WIDER FACE: `3`, then two rows",
         "Correct the number."),
    )),
    *_read("images", "warning", (
        ("image_empty", "An image file is empty", "A file of 0 bytes after a failed download", "Fetch it again."),
        ("image_corrupt", "An image cannot be decoded", "A PNG with damaged pixels", "Restore the file."),
        ("image_truncated", "A JPEG ends before its last pixels", "An interrupted copy",
         "Restore the file, or set data.image.truncated=allow to use what is there."),
        ("not_an_image", "A file is not an image", "A web page saved as `a.jpg`", "Fetch the real image."),
        ("image_unreadable", "An image file cannot be opened", "No permission", "Change its permissions."),
        ("image_too_small", "An image is too small to use", "A thumbnail of 8 x 8 px",
         "Remove it, or lower data.image.min_side."),
        ("image_too_large", "An image is too large to decode", "A scan of 40 000 x 40 000 px",
         "Cut it into tiles, or raise data.image.max_pixels."),
        ("image_16bit", "Images of 16 bits: only the upper 8 are used", "Thermal or X-ray images",
         "Set data.image.depth16=percentile, or convert them."),
        ("image_several_frames", "A file holds several frames; the first is used", "An animated PNG, a TIFF stack",
         "Store each frame in a file of its own."),
        ("size_mismatch", "The label states another image size", "XML says 500 x 375, the file has 1000 x 750",
         "Check whether boxes were made for the other size; if so, scale them."),
        ("labels_unrotated", "Boxes fit the image only before its EXIF rotation",
         "A phone's picture, labelled by a tool that ignores its orientation",
         "Turn the pixels and remove the EXIF orientation, or label it again."),
    )),
    *_read("images", "note", (
        ("image_no_end_marker", "A JPEG lacks its end marker; its pixels are there", "A camera lost power",
         "Nothing to do."),
        ("image_trailing_bytes", "Bytes follow the end of an image", "A phone's video behind a JPEG", "Nothing to do."),
        ("suffix_mismatch", "The file's suffix is not its type", "A PNG named `a.jpg`", "Rename it when convenient."),
    )),
    *_read("labels", "warning", (
        ("zero_area", "A box has no area", "`0 0.5 0.5 0 0.1`; VOC xmin = xmax", "Draw the box again or remove it."),
        ("duplicate_row", "The same object is written twice", "Two equal rows in a label file", "Remove one row."),
        ("box_clipped", "A box leaves its image; the part inside is used", "`0 0.95 0.5 0.2 0.2`",
         "Check how the box was made: corners read as a centre, another image size, swapped sides?"),
        ("coord_clipped", "A coordinate lies a little outside 0 to 1", "`1.004`", "Clip it when exporting."),
        ("coord_out_of_range", "A coordinate lies outside the image", "`0 320 240 50 50`, which are pixels",
         "Numbers in pixels: divide by the image's width and height. Otherwise draw the object again, inside."),
        ("corners_swapped", "A box has its corners the wrong way round", "VOC xmin 200, xmax 100",
         "Swap them; they are read so."),
        ("class_out_of_range", "A class index that the dataset does not name", "`7 ...` with 5 names",
         "Add the name or correct the row."),
        ("class_equals_count", "A class index just beyond the last", "`5 ...` with 5 names: counted from 1",
         "Subtract 1 from every class index, or add the name."),
        ("class_negative", "A class index below 0", "`-1 ...`", "Correct the row."),
        ("class_not_integer", "A class index that is not whole", "`1.5 ...`", "Correct the row."),
        ("class_not_a_number", "A class that is neither an index nor a known name", "`cat ...`",
         "Write the index of the class."),
        ("class_unknown", "A class name or id that the dataset does not have", "`Catt`; category_id 91",
         "Correct the name, or add the class."),
        ("class_missing", "An object without a class", "`<object>` without `<name>`", "Add the class."),
        ("box_missing", "An object without a box", "`<object>` without `<bndbox>`", "Draw the box."),
        ("box_incomplete", "A box lacks a side", "`<bndbox>` without `<ymax>`", "Complete the box."),
        ("bad_box", "A box that is not four numbers", '`"bbox": [1, 2, 3]`', "Correct the box."),
        ("bad_column_count", "A row has the wrong number of fields", "`0 0.5 0.5 0.2`",
         "Write class, centre x, centre y, width, height."),
        ("looks_like_predictions", "Rows with a confidence: predictions, not labels", "`0 0.5 0.5 0.2 0.2 0.87`",
         "Set data.drop_confidence=true if a person has checked them."),
        ("not_a_number", "A field is not a number", "`0 0.5 abc 0.2 0.2`", "Correct the field."),
        ("not_finite", "A coordinate is not a finite number", "`nan`, `inf`", "Correct the field."),
        ("comma_separated", "Fields are separated by commas", "`0,0.5,0.5,0.2,0.2`", "Separate them by spaces."),
        ("decimal_comma", "Decimal commas", "`0 0,5 0,5 0,2 0,2`", "Write decimal points."),
        ("odd_polygon", "An outline has an odd number of coordinates", "`0 0.1 0.1 0.2 0.1 0.2`", "Export it again."),
        ("polygon_too_short", "An outline has fewer than three points", "`0 0.1 0.1 0.2 0.2` as an outline",
         "Draw the outline again."),
        ("bad_polygon", "An outline cannot be used; the box is", "Two points", "Draw the outline again."),
        ("bad_mask", "A mask cannot be decoded", "Run lengths that exceed the image", "Export it again."),
        ("bad_keypoints", "Keypoints cannot be used; the box is", "50 numbers instead of 51", "Export them again."),
        ("keypoint_out_of_range", "A keypoint lies outside the image; it counts as not labelled", "x of 1.2",
         "Move it into the image, or mark it as not labelled."),
        ("bad_visibility", "The visibility of a keypoint is not 0, 1 or 2", "0.5", "Write 0, 1 or 2."),
        ("bad_attribute", "An attribute has an unknown value", "`colour: gren`", "Correct the value."),
        ("too_many_objects", "An image has more objects than are kept", "12 000 rows",
         "Raise data.max_objects, or cut the image into tiles."),
        ("outline_missing", "Boxes without an outline in a set for segmentation", "Rows of 5 numbers among outlines",
         "Draw their outlines; as boxes they teach filled rectangles."),
        ("angle_missing", "Upright boxes in a set for oriented boxes", "Rows of 5 numbers among corners",
         "Draw their corners."),
        ("corners_not_rectangle", "Four corners that are no rectangle", "A trapezoid",
         "Nothing to do if the smallest rectangle around it is meant."),
    )),
    *_read("labels", "note", (
        ("polygon_crosses_itself", "An outline crosses itself", "A figure of eight", "Draw it again if it is wrong."),
        ("corners_crossed", "Corners are not in order around the object; they are put in order", "Corners 1, 3, 2, 4",
         "Nothing to do."),
        ("difficult", "Objects marked difficult are left out", "VOC `<difficult>1</difficult>`",
         "Set data.skip_difficult=false to train on them."),
    )),
    *_read("splits", "warning", (
        ("splits_share_files", "Two splits hold the same image", "`a.jpg` in train.txt and in val.txt",
         "Take it out of one of them; measured quality is too good otherwise."),
        ("splits_share_content", "Two splits hold equal files", "`train/a.jpg` is a copy of `val/b.jpg`",
         "Remove one of them."),
    )),
)  # fmt: skip

BY_CODE: Mapping[str, Check] = {check.code: check for check in READERS}


def described(code: str) -> Check:
    """What is known about a code; a plain entry for one that is not listed."""
    return BY_CODE.get(code) or Check(
        code=code, group="labels", severity="warning", what=code.replace("_", " "), example="", fix="See the examples."
    )


def findings_of(problems: Iterable[tuple[Split | None, Problem]]) -> list[Finding]:
    """Problems joined by code and severity; one that several splits report alike is counted once."""
    places: dict[Problem, list[Split]] = {}
    for split, problem in problems:
        places.setdefault(problem, []).extend([] if split is None else [split])
    groups: dict[tuple[str, Severity, tuple[Split, ...]], list[Problem]] = defaultdict(list)
    for problem, splits in places.items():
        groups[problem.code, problem.severity, tuple(dict.fromkeys(splits))].append(problem)
    return [_finding(code, severity, splits, held) for (code, severity, splits), held in groups.items()]


def _finding(code: str, severity: Severity, splits: tuple[Split, ...], held: list[Problem]) -> Finding:
    check = described(code)
    shown = [Example(problem.file, problem.line, f"{problem.message}{_done(problem)}") for problem in held[:SHOWN]]
    return Finding(code, check.group, severity, splits, len(held), check.what, check.fix, tuple(shown))


def _done(problem: Problem) -> str:
    return "" if problem.action == "none" else f" ({problem.action})"
