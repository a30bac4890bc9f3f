# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every code of a finding about a user's files: how serious it usually is, what it means, an example, what to do.

A finding carries one of these constants. `Code` is a type of its own that only this file makes, so that the type
checker refuses a code that is not listed here. `boxwright check` prints codes, `boxwright audit` and docs/audit.md
explain them with these words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NewType

Severity = Literal["error", "warning", "note"]
Group = Literal["config", "files", "images", "labels", "splits", "balance", "learning"]
Code = NewType("Code", str)


@dataclass(frozen=True, slots=True)
class CodeFacts:
    """What is known about a code."""

    code: Code
    group: Group
    severity: Severity  # the usual one; a finding states its own
    what: str  # one line
    example: str
    fix: str


_FACTS: dict[Code, CodeFacts] = {}


def _code(text: str, group: Group, severity: Severity, what: str, example: str, fix: str) -> Code:
    code = Code(text)
    assert code not in _FACTS, code
    _FACTS[code] = CodeFacts(code, group, severity, what, example, fix)
    return code


# fmt: off

# -- the dataset as a whole ---------------------------------------------------------------------------------------

PATH_NOT_FOUND = _code("path_not_found", "config", "error",
    "There is nothing at this path", "`boxwright audit datasets/helmet` where the folder is `datasets/helmets`",
    "Correct the path; relative ones start where the command runs.")
CANNOT_OPEN = _code("cannot_open", "config", "error",
    "The description of the dataset is incomplete or wrong",
    "`names: [cat, dog]` with `nc: 3`; a key given twice; neither `names` nor `nc`",
    "Correct the named key; docs/data.md shows a description of every format.")
CANNOT_READ = _code("cannot_read", "config", "error",
    "The dataset, or one of its splits, cannot be read",
    "`boxwright check datasets/helmet` where the folder is `datasets/helmets`",
    "Correct what the message names; `boxwright audit` says which of the three above it is.")
SPLIT_UNREADABLE = _code("split_unreadable", "config", "error",
    "A split is named but cannot be listed", "`val: images/valid` where the folder is `images/val`",
    "Correct the path of the split; relative ones start at `path`, or at the file that holds them.")
NO_IMAGES = _code("no_images", "config", "error",
    "A split has no images", "`train: labels/train` instead of `images/train`",
    "Name the folder that holds the images, not the labels.")
NO_USABLE_IMAGE = _code("no_usable_image", "config", "error",
    "None of the images of a split can be used", "All files of `images/val` are web pages",
    "Look at the findings about image files; they say why each was refused.")
NO_OBJECTS = _code("no_objects", "config", "error",
    "A split has no object at all", "The labels folder is called `annotations`, not `labels`",
    "Put `labels` beside `images`; if it is meant so, set data.allow_empty=true.")
NO_TRAIN_SPLIT = _code("no_train_split", "config", "warning",
    "There is no file for training", "Only `instances_val2017.json` lies in the folder",
    "Add the file of the train split, or name a folder that has one.")
NO_VAL_SPLIT = _code("no_val_split", "config", "warning",
    "Nothing tells train from val: the same images are used as both", "A single COCO file with all images",
    "Make two files, and no image in both.")
TEST_AS_VAL = _code("test_as_val", "config", "warning",
    "There is no val split; the test split stands in for it", "`train.json` and `test.json` only",
    "Keep a part of the training images for validation, and test images for the end.")
TRAINVAL_USED = _code("trainval_used", "config", "warning",
    "There is no list of training images; trainval is used", "Only `ImageSets/Main/trainval.txt`",
    "Write `train.txt` and `val.txt`.")
PATH_MISSING = _code("path_missing", "config", "warning",
    "The folder that `path` names does not exist; the file's own folder is used", "`path: /content/drive/cats`",
    "Correct or remove `path`.")
DUPLICATE_NAME = _code("duplicate_name", "config", "warning",
    "Two classes have the same name", "`names: [car, truck, car]`",
    "Rename one, or join both and change the labels of the other.")
NAME_NOT_TEXT = _code("name_not_text", "config", "warning",
    "A class name is no text in YAML", "`names: [yes, no]`, which YAML reads as true and false",
    'Put it in quotes: `names: ["yes", "no"]`.')
CHANNELS_IGNORED = _code("channels_ignored", "config", "warning",
    "`channels` is not used", "`channels: 1`", "Remove it; images are read as three colours.")
DOWNLOAD_IGNORED = _code("download_ignored", "config", "warning",
    "`download` is never run", "`download: https://...`", "Fetch and unpack the data yourself.")
SPLIT_IGNORED = _code("split_ignored", "config", "warning",
    "A split is not used", "`minival: ...`", "Name it train, val or test.")
KEYPOINTS_DIFFER = _code("keypoints_differ", "config", "warning",
    "Categories have different keypoints; none are read", "person has 17 keypoints, dog has 12",
    "Make a dataset for each, or remove the others' keypoints.")
CLASS_FOLDER_MISSING = _code("class_folder_missing", "config", "warning",
    "A split lacks the folder of a class", "`val/` has no folder `rust`",
    "Add the folder and some images of that class.")
NAMES_MISSING = _code("names_missing", "config", "note",
    "Classes have no names; some were made up", "No data.yaml beside the images", "Write a data.yaml with `names`.")
CLASS_IDS_WITH_GAPS = _code("class_ids_with_gaps", "config", "note",
    "Class ids are not 0, 1, 2, ...; indices follow their order", "COCO's 80 classes have ids 1 to 90",
    "Nothing to do; outputs keep the dataset's own ids.")
LINK_AS_TEXT = _code("link_as_text", "config", "note",
    "A link was checked out as a text file; it is followed all the same", "`images` is a file that holds `../images`",
    "Check the repository out with links, or make the link anew.")

# -- files --------------------------------------------------------------------------------------------------------

IMAGE_MISSING = _code("image_missing", "files", "warning",
    "An image is listed, but there is no such file", "`train.txt` names `12.jpg`, now removed",
    "Restore the file or remove its line.")
LABELS_MISSING = _code("labels_missing", "files", "warning",
    "Images without a label file count as background", "`images/a.jpg` without `labels/a.txt`",
    "Label them, move them away, or put an empty label file beside those that hold no object.")
ORPHAN_LABEL = _code("orphan_label", "files", "warning",
    "A label file has no image", "`labels/b.txt` without `images/b.jpg`", "Restore the image, or remove the label.")
IMAGE_UNSUPPORTED = _code("image_unsupported", "files", "warning",
    "A file type that is not read for training", "`a.gif`, `b.svg`, HEIC", "Convert it to PNG or JPEG.")
CASE_CLASH = _code("case_clash", "files", "warning",
    "Two file names differ only by case", "`Cat.jpg` and `cat.jpg`",
    "Rename one: such files overwrite each other on Windows and macOS.")
SAME_STEM = _code("same_stem", "files", "warning",
    "Two images share one label file", "`a.jpg` and `a.png` beside `labels/a.txt`", "Rename one image and its label.")
DUPLICATE_IMAGE = _code("duplicate_image", "files", "warning",
    "An image is listed twice", "A line of `train.txt` is there twice", "Remove one line.")
DUPLICATE_IMAGE_ID = _code("duplicate_image_id", "files", "warning",
    "Two images of a COCO file have the same id", "`id: 7` is given to two files", "Give each image its own id.")
DUPLICATE_ANNOTATION_ID = _code("duplicate_annotation_id", "files", "warning",
    "Two annotations have the same id", "Two exports pasted together", "Number them anew.")
BAD_IMAGE_ENTRY = _code("bad_image_entry", "files", "warning",
    "An entry of `images` lacks an id or a file name", '`{"id": 3}`', "Complete the entry.")
IMAGE_UNKNOWN = _code("image_unknown", "files", "warning",
    "Annotations name images that are not listed", "`image_id: 99` and no such image",
    "List the image, or remove its annotations.")
BAD_PATH = _code("bad_path", "files", "warning",
    "A path that cannot be used", "`../../etc/a.jpg`, or a zero byte in the path", "Name images inside the dataset.")
LINK_OUTSIDE = _code("link_outside", "files", "warning",
    "A link leads out of the dataset", "`images/a.jpg` -> `/elsewhere/a.jpg`",
    "Copy the file, or set data.follow_links=true.")
LINK_NOT_FOLLOWED = _code("link_not_followed", "files", "warning",
    "A link to a folder is not followed", "`images/more` -> `/data/more`",
    "Copy the folder, or set data.follow_links=true.")
LABEL_UNREADABLE = _code("label_unreadable", "files", "warning",
    "A label file cannot be read", "No permission; a damaged disk", "Restore the file.")
UTF16 = _code("utf16", "files", "warning",
    "A label file is UTF-16", 'Saved by a Windows editor as "Unicode"', "Save it as UTF-8.")
UNDECODABLE = _code("undecodable", "files", "warning",
    "Bytes that are not text", "A binary file named `.txt`", "Export the labels again.")
BAD_XML = _code("bad_xml", "files", "warning",
    "An XML file is damaged", "The file ends in the middle of an object", "Export it again.")
XML_ENTITIES = _code("xml_entities", "files", "warning",
    "An XML file declares entities, which are refused", "`<!ENTITY ...>`", "Remove the document type declaration.")
XML_TOO_LARGE = _code("xml_too_large", "files", "warning",
    "An XML file is too large to be a label", "A file of 200 MB", "Export the labels again.")
BAD_JSON = _code("bad_json", "files", "warning",
    "A line is not JSON", "A cut-off line of an .odgt file", "Restore the line.")
BAD_ENTRY = _code("bad_entry", "files", "warning",
    "An entry cannot be understood", "`gtboxes` is not a list", "Correct the entry.")
BAD_ANNOTATION = _code("bad_annotation", "files", "warning",
    "Annotations that are no objects or lack an image", "`null` among the annotations", "Remove or complete them.")
BAD_COUNT = _code("bad_count", "files", "warning",
    "The number of rows is not the number announced", "WIDER FACE: `3`, then two rows", "Correct the number.")

# -- images -------------------------------------------------------------------------------------------------------

IMAGE_EMPTY = _code("image_empty", "images", "warning",
    "An image file is empty", "A file of 0 bytes after a failed download", "Fetch it again.")
IMAGE_CORRUPT = _code("image_corrupt", "images", "warning",
    "An image cannot be decoded", "A PNG with damaged pixels", "Restore the file.")
IMAGE_TRUNCATED = _code("image_truncated", "images", "warning",
    "A JPEG ends before its last pixels", "An interrupted copy",
    "Restore the file, or set data.image.truncated=allow to use what is there.")
NOT_AN_IMAGE = _code("not_an_image", "images", "warning",
    "A file is not an image", "A web page saved as `a.jpg`", "Fetch the real image.")
IMAGE_UNREADABLE = _code("image_unreadable", "images", "warning",
    "An image file cannot be opened", "No permission", "Change its permissions.")
IMAGE_TOO_SMALL = _code("image_too_small", "images", "warning",
    "An image is too small to use", "A thumbnail of 8 x 8 px", "Remove it, or lower data.image.min_side.")
IMAGE_TOO_LARGE = _code("image_too_large", "images", "warning",
    "An image is too large to decode", "A scan of 40 000 x 40 000 px",
    "Cut it into tiles, or raise data.image.max_pixels.")
IMAGE_16BIT = _code("image_16bit", "images", "warning",
    "Images of 16 bits: only the upper 8 are used", "Thermal or X-ray images",
    "Set data.image.depth16=percentile, or convert them.")
IMAGE_SEVERAL_FRAMES = _code("image_several_frames", "images", "warning",
    "A file holds several frames; the first is used", "An animated PNG, a TIFF stack",
    "Store each frame in a file of its own.")
SIZE_MISMATCH = _code("size_mismatch", "images", "warning",
    "The label states another image size", "XML says 500 x 375, the file has 1000 x 750",
    "Check whether boxes were made for the other size; if so, scale them.")
LABELS_UNROTATED = _code("labels_unrotated", "images", "warning",
    "Boxes fit the image only before its EXIF rotation",
    "A phone's picture, labelled by a tool that ignores its orientation",
    "Turn the pixels and remove the EXIF orientation, or label it again.")
IMAGE_NO_END_MARKER = _code("image_no_end_marker", "images", "note",
    "A JPEG lacks its end marker; its pixels are there", "A camera lost power", "Nothing to do.")
IMAGE_TRAILING_BYTES = _code("image_trailing_bytes", "images", "note",
    "Bytes follow the end of an image", "A phone's video behind a JPEG", "Nothing to do.")
SUFFIX_MISMATCH = _code("suffix_mismatch", "images", "note",
    "The file's suffix is not its type", "A PNG named `a.jpg`", "Rename it when convenient.")

# -- labels -------------------------------------------------------------------------------------------------------

ZERO_AREA = _code("zero_area", "labels", "warning",
    "A box has no area", "`0 0.5 0.5 0 0.1`; VOC xmin = xmax", "Draw the box again or remove it.")
DUPLICATE_ROW = _code("duplicate_row", "labels", "warning",
    "The same object is written twice", "Two equal rows in a label file", "Remove one row.")
BOX_CLIPPED = _code("box_clipped", "labels", "warning",
    "A box leaves its image; the part inside is used", "`0 0.95 0.5 0.2 0.2`",
    "Check how the box was made: corners read as a centre, another image size, swapped sides?")
COORD_CLIPPED = _code("coord_clipped", "labels", "warning",
    "A coordinate lies a little outside 0 to 1", "`1.004`", "Clip it when exporting.")
COORD_OUT_OF_RANGE = _code("coord_out_of_range", "labels", "warning",
    "A coordinate lies outside the image", "`0 320 240 50 50`, which are pixels",
    "Numbers in pixels: divide by the image's width and height. Otherwise draw the object again, inside.")
CORNERS_SWAPPED = _code("corners_swapped", "labels", "warning",
    "A box has its corners the wrong way round", "VOC xmin 200, xmax 100", "Swap them; they are read so.")
CLASS_OUT_OF_RANGE = _code("class_out_of_range", "labels", "warning",
    "A class index that the dataset does not name", "`7 ...` with 5 names", "Add the name or correct the row.")
CLASS_EQUALS_COUNT = _code("class_equals_count", "labels", "warning",
    "A class index just beyond the last", "`5 ...` with 5 names: counted from 1",
    "Subtract 1 from every class index, or add the name.")
CLASS_NEGATIVE = _code("class_negative", "labels", "warning",
    "A class index below 0", "`-1 ...`", "Correct the row.")
CLASS_NOT_INTEGER = _code("class_not_integer", "labels", "warning",
    "A class index that is not whole", "`1.5 ...`", "Correct the row.")
CLASS_NOT_A_NUMBER = _code("class_not_a_number", "labels", "warning",
    "A class that is neither an index nor a known name", "`cat ...`", "Write the index of the class.")
CLASS_UNKNOWN = _code("class_unknown", "labels", "warning",
    "A class name or id that the dataset does not have", "`Catt`; category_id 91",
    "Correct the name, or add the class.")
CLASS_MISSING = _code("class_missing", "labels", "warning",
    "An object without a class", "`<object>` without `<name>`", "Add the class.")
BOX_MISSING = _code("box_missing", "labels", "warning",
    "An object without a box", "`<object>` without `<bndbox>`", "Draw the box.")
BOX_INCOMPLETE = _code("box_incomplete", "labels", "warning",
    "A box lacks a side", "`<bndbox>` without `<ymax>`", "Complete the box.")
BAD_BOX = _code("bad_box", "labels", "warning",
    "A box that is not four numbers", '`"bbox": [1, 2, 3]`', "Correct the box.")
BAD_COLUMN_COUNT = _code("bad_column_count", "labels", "warning",
    "A row has the wrong number of fields", "`0 0.5 0.5 0.2`", "Write class, centre x, centre y, width, height.")
LOOKS_LIKE_PREDICTIONS = _code("looks_like_predictions", "labels", "warning",
    "Rows with a confidence: predictions, not labels", "`0 0.5 0.5 0.2 0.2 0.87`",
    "Set data.drop_confidence=true if a person has checked them.")
NOT_A_NUMBER = _code("not_a_number", "labels", "warning",
    "A field is not a number", "`0 0.5 abc 0.2 0.2`", "Correct the field.")
NOT_FINITE = _code("not_finite", "labels", "warning",
    "A coordinate is not a finite number", "`nan`, `inf`", "Correct the field.")
COMMA_SEPARATED = _code("comma_separated", "labels", "warning",
    "Fields are separated by commas", "`0,0.5,0.5,0.2,0.2`", "Separate them by spaces.")
DECIMAL_COMMA = _code("decimal_comma", "labels", "warning",
    "Decimal commas", "`0 0,5 0,5 0,2 0,2`", "Write decimal points.")
ODD_POLYGON = _code("odd_polygon", "labels", "warning",
    "An outline has an odd number of coordinates", "`0 0.1 0.1 0.2 0.1 0.2`", "Export it again.")
POLYGON_TOO_SHORT = _code("polygon_too_short", "labels", "warning",
    "An outline has fewer than three points", "`0 0.1 0.1 0.2 0.2` as an outline", "Draw the outline again.")
BAD_POLYGON = _code("bad_polygon", "labels", "warning",
    "An outline cannot be used; the box is", "Two points", "Draw the outline again.")
BAD_MASK = _code("bad_mask", "labels", "warning",
    "A mask cannot be decoded", "Run lengths that exceed the image", "Export it again.")
BAD_KEYPOINTS = _code("bad_keypoints", "labels", "warning",
    "Keypoints cannot be used; the box is", "50 numbers instead of 51", "Export them again.")
KEYPOINT_OUT_OF_RANGE = _code("keypoint_out_of_range", "labels", "warning",
    "A keypoint lies outside the image; it counts as not labelled", "x of 1.2",
    "Move it into the image, or mark it as not labelled.")
BAD_VISIBILITY = _code("bad_visibility", "labels", "warning",
    "The visibility of a keypoint is not 0, 1 or 2", "0.5", "Write 0, 1 or 2.")
BAD_ATTRIBUTE = _code("bad_attribute", "labels", "warning",
    "An attribute has an unknown value", "`colour: gren`", "Correct the value.")
TOO_MANY_OBJECTS = _code("too_many_objects", "labels", "warning",
    "An image has more objects than are kept", "12 000 rows", "Raise data.max_objects, or cut the image into tiles.")
OUTLINE_MISSING = _code("outline_missing", "labels", "warning",
    "Boxes without an outline in a set for segmentation", "Rows of 5 numbers among outlines",
    "Draw their outlines; as boxes they teach filled rectangles.")
ANGLE_MISSING = _code("angle_missing", "labels", "warning",
    "Upright boxes in a set for oriented boxes", "Rows of 5 numbers among corners", "Draw their corners.")
CORNERS_NOT_RECTANGLE = _code("corners_not_rectangle", "labels", "warning",
    "Four corners that are no rectangle", "A trapezoid", "Nothing to do if the smallest rectangle around it is meant.")
POLYGON_CROSSES_ITSELF = _code("polygon_crosses_itself", "labels", "note",
    "An outline crosses itself", "A figure of eight", "Draw it again if it is wrong.")
CORNERS_CROSSED = _code("corners_crossed", "labels", "note",
    "Corners are not in order around the object; they are put in order", "Corners 1, 3, 2, 4", "Nothing to do.")
DIFFICULT = _code("difficult", "labels", "note",
    "Objects marked difficult are left out", "VOC `<difficult>1</difficult>`",
    "Set data.skip_difficult=false to train on them.")

# -- between splits -----------------------------------------------------------------------------------------------

SPLITS_SHARE_FILES = _code("splits_share_files", "splits", "warning",
    "Two splits hold the same image", "`a.jpg` in train.txt and in val.txt",
    "Take it out of one of them; measured quality is too good otherwise.")
SPLITS_SHARE_CONTENT = _code("splits_share_content", "splits", "warning",
    "Two splits hold equal files", "`train/a.jpg` is a copy of `val/b.jpg`", "Remove one of them.")

# -- balance ------------------------------------------------------------------------------------------------------

CLASS_WITHOUT_OBJECTS = _code("class_without_objects", "balance", "note",
    "A class has no object to learn from", "80 names, objects of 34 of them",
    "Remove the name, or add images of it; a warning where another split has some.")
# fmt: on


# -- all of them ---------------------------------------------------------------------------------------------------

CODES: Mapping[Code, CodeFacts] = _FACTS
