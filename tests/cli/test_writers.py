# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import importlib.util
import json
import math

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import torch

from boxwright.cli.writers import FORMATS, USUAL, ResultFolder, table_rows, yolo_rows
from boxwright.datasets.formats.rle import decode_rle
from boxwright.errors import ConfigError, DataError
from boxwright.results import Classification, Detections, InstanceMask
from boxwright.vocabulary import AttributeSpec, KeypointSpec

NAMES = ("cat", "dog")
IMAGE = np.full((100, 200, 3), 90, np.uint8)


def found(path="a/000000000139.jpg", boxes=((20.0, 10, 60, 50),), **parts):
    return Detections(
        torch.tensor(boxes), torch.tensor([0.5]), torch.tensor([1]), NAMES, (100, 200), (3, 7), path, **parts
    )


SAID = Classification(torch.tensor([0.25, 0.75]), NAMES, (100, 200), (3, 7), "b.jpg")


def numbers(text):
    return [[float(value) for value in line.split()] for line in text.splitlines()]


def test_boxes_are_class_centre_size_and_score_in_fractions():
    assert numbers(yolo_rows(found())) == [[7, 0.2, 0.3, 0.2, 0.4, 0.5]]


def test_keypoints_follow_the_box():
    keypoints = torch.tensor([[[20.0, 10, 1], [60, 50, 0.25]]])
    assert numbers(yolo_rows(found(keypoints=keypoints, keypoint_spec=KeypointSpec(count=2)))) == [
        [7, 0.2, 0.3, 0.2, 0.4, 0.1, 0.1, 1, 0.3, 0.5, 0.25, 0.5]
    ]


def test_oriented_boxes_are_their_corners():
    one = found(boxes=((50.0, 40, 20, 10, math.pi / 2),))
    (row,) = numbers(yolo_rows(one))
    assert row[0] == 7
    assert row[1:9] == pytest.approx([0.225, 0.5, 0.275, 0.5, 0.275, 0.3, 0.225, 0.3], abs=1e-6)
    assert row[9] == 0.5


def test_masks_are_outlines_that_give_the_mask_back():
    pixels = np.zeros((30, 40), bool)
    pixels[2:14, 3:20] = True
    pixels[20:28, 25:38] = True  # two parts
    pixels[6:9, 8:12] = False  # and a hole

    (row,) = numbers(yolo_rows(found(masks=(InstanceMask(50, 60, pixels),))))

    polygon = np.array(row[1:-1]).reshape(-1, 2) * (200, 100)
    big = np.zeros((1000, 2000), np.uint8)  # ten times as large: edges of pixels are lines of pixels there
    cv2.fillPoly(big, [np.round(polygon * 10).astype(np.int32)], 1)
    centres = big[5::10, 5::10] > 0
    wanted = np.zeros((100, 200), bool)
    wanted[60:90, 50:90] = pixels
    assert np.array_equal(centres, wanted)


def test_classifications_are_class_and_score():
    assert numbers(yolo_rows(SAID)) == [[7, 0.75], [3, 0.25]]


def test_a_folder_holds_what_is_wanted(tmp_path):
    folder = ResultFolder(tmp_path / "out", [*USUAL, "coco"])
    masks = (InstanceMask(50, 60, np.ones((4, 5), bool)),)
    folder.add(IMAGE, found(masks=masks))
    folder.add(IMAGE, found(path="b/000000000139.jpg", masks=masks))  # the same name again
    folder.add(IMAGE, found(path="c/house.png", masks=masks))
    folder.close()

    out = tmp_path / "out"
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        "000000000139-2.jpg", "000000000139.jpg", "house.jpg",
    ]  # fmt: skip
    assert cv2.imread(str(out / "pictures" / "house.jpg")).shape == IMAGE.shape
    assert len(numbers((out / "labels" / "house.txt").read_text())) == 1
    told = json.loads((out / "detections.json").read_text())
    assert [row["path"] for row in told] == ["a/000000000139.jpg", "b/000000000139.jpg", "c/house.png"]
    assert told[0]["detections"][0]["name"] == "dog"
    rows = json.loads((out / "coco_results.json").read_text())
    assert [row["image_id"] for row in rows] == [139, 139, "house.png"]
    assert decode_rle(rows[0]["segmentation"], (100, 200)).sum() == 20
    assert not (out / "detections.parquet").exists()


def test_classifications_are_written_too(tmp_path):
    folder = ResultFolder(tmp_path, USUAL)
    folder.add(IMAGE, SAID)
    folder.close()
    assert json.loads((tmp_path / "detections.json").read_text())[0]["classes"][0]["name"] == "dog"
    assert (tmp_path / "pictures" / "b.jpg").exists()
    with pytest.raises(ConfigError, match="COCO results hold objects, got a classification"):
        ResultFolder(tmp_path, ["coco"]).add(IMAGE, SAID)


def test_table_rows_are_flat():
    colour = AttributeSpec(name="colour", values=("red", "blue"))
    wears = AttributeSpec(name="wears", values=("hat", "scarf"), multi_label=True)
    one = found(
        keypoints=torch.tensor([[[1.0, 2, 1]]]),
        keypoint_spec=KeypointSpec(count=1),
        attributes={"colour": torch.tensor([[0.25, 0.75]]), "wears": torch.tensor([[0.75, 0.75]])},
        attribute_specs=(colour, wears),
    )
    (row,) = table_rows(one)
    assert row == {
        "path": "a/000000000139.jpg", "width": 200, "height": 100, "name": "dog", "label": 1, "class_id": 7,
        "score": 0.5, "x1": 20, "y1": 10, "x2": 60, "y2": 50, "keypoints": [1, 2, 1], "attribute_colour": "blue",
        "attribute_wears": "hat|scarf",
    }  # fmt: skip


def test_parquet_reads_back_and_has_columns_without_a_row(tmp_path):
    masks = (InstanceMask(50, 60, np.ones((4, 5), bool)),)
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), NAMES, (100, 200), masks=())
    for name, one in (("full", found(masks=masks)), ("empty", none), ("classes", SAID)):
        folder = ResultFolder(tmp_path / name, ["parquet"])
        folder.add(IMAGE, one)
        folder.close()

    full = pyarrow.parquet.read_table(tmp_path / "full" / "detections.parquet")
    assert full.to_pylist()[0] | {"mask": ""} == table_rows(found(masks=masks))[0] | {"mask": ""}
    assert pyarrow.parquet.read_table(tmp_path / "empty" / "detections.parquet").schema.equals(full.schema)
    assert pyarrow.parquet.read_table(tmp_path / "classes" / "detections.parquet").num_rows == 2


def test_parquet_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    """Before anything is made, also by the formats named before it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package pyarrow.*pip install 'boxwright\[parquet\]'"):
        ResultFolder(tmp_path / "out", ["pictures", "json", "parquet"])
    assert not (tmp_path / "out").exists()


def test_unknown_kinds_and_places_that_cannot_be_made_are_named(tmp_path):
    with pytest.raises(ConfigError, match=f"expected one of {', '.join(FORMATS)}, got 'csv'"):
        ResultFolder(tmp_path, ["csv"])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be made"):
        ResultFolder(tmp_path / "file", ["json"])
