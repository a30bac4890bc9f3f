# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Tiles: where they lie, which objects they hold, what is clipped, counted and refused."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from boxwright.cli.app import app
from boxwright.datasets.dataset import DataConfig, scan_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.images import read_image
from boxwright.datasets.raster import outline_pixels
from boxwright.datasets.sample import Instances
from boxwright.datasets.tiles import Tiling, objects_inside, tile_areas, tile_dataset
from boxwright.errors import DataError

AREA = (40, 20, 140, 120)  # a tile of 100 px


def read(source, task, split="train", dropped=0):
    config = DataConfig(task=task, keep="all", allow_empty=True, allow_missing=True)
    records = scan_split(open_dataset(source), split, config)
    assert records.report.rows_dropped == dropped
    return {record.image.stem: record for record in records.records}


def instances(*boxes, **more):
    return Instances(np.array(boxes, np.float32).reshape(-1, 4), np.arange(len(boxes)), **more)


def turned(cx, cy, w, h, degrees):
    return cv2.boxPoints(((cx, cy), (w, h), degrees))


@pytest.mark.parametrize(
    ("size", "tiling", "lefts", "tops"),
    [
        ((100, 100), Tiling(100, 20), [0], [0]),
        ((100, 101), Tiling(100, 20), [0, 1], [0]),
        ((50, 260), Tiling(100, 20), [0, 80, 160], [0]),
        ((261, 60), Tiling(100, 20), [0], [0, 80, 160, 161]),
        ((300, 200), Tiling(100, 0), [0, 100], [0, 100, 200]),
    ],
)
def test_tiles_cover_the_image_and_the_last_ones_end_with_it(size, tiling, lefts, tops):
    areas = list(tile_areas(size, tiling))

    assert [(area[0], area[1]) for area in areas] == [(left, top) for top in tops for left in lefts]
    covered = np.zeros(size, bool)
    for x1, y1, x2, y2 in areas:
        assert (x2 - x1, y2 - y1) == (min(tiling.size, size[1]), min(tiling.size, size[0]))
        covered[y1:y2, x1:x2] = True
    assert covered.all()


def test_an_object_cut_by_a_tile_that_is_smaller_than_the_gap_is_whole_in_another():
    tiling, rng = Tiling(100, 30), np.random.default_rng(0)
    for x, y in rng.uniform(0, 370, (50, 2)):
        objects = instances((x, y, x + 30, y + 30))
        held = [objects_inside(objects, area, 1.0)[0] for area in tile_areas((400, 400), tiling)]
        assert any(len(part) for part in held), (x, y)


def test_boxes_below_the_share_are_dropped_and_the_others_clipped():
    objects = instances((50, 30, 60, 40), (30, 30, 60, 40), (34, 30, 54, 40), (200, 30, 210, 40), (0, 0, 300, 300))

    part, kept, touched = objects_inside(objects, AREA, 0.7)

    assert (kept.tolist(), touched) == ([0, 2], 4)  # 1 has 2/3 inside, 2 has 0.7, 3 is elsewhere, 4 is larger
    assert part.boxes.tolist() == [[10, 10, 20, 20], [0, 10, 14, 20]]
    assert part.labels.tolist() == [0, 2]
    assert objects_inside(objects, AREA, 0.66)[1].tolist() == [0, 1, 2]


def test_oriented_boxes_are_fitted_again_to_what_is_left():
    straight = turned(40, 70, 40, 10, 0)  # half of it is outside
    upright = np.array([(34, 30), (54, 30), (54, 40), (34, 40)], np.float32)  # 70 % inside
    slanted = turned(46, 70, 30, 10, 45)
    inside = turned(90, 70, 40, 10, 30)
    corners = np.stack([straight, upright, slanted, inside]).astype(np.float32)
    objects = instances(*[(*one.min(0), *one.max(0)) for one in corners], corners=corners)

    part, kept, touched = objects_inside(objects, AREA, 0.7)

    assert (kept.tolist(), touched) == ([1, 2, 3], 4)
    again, cut, whole = part.corners
    assert sorted(again.round(3).tolist()) == [[0, 10], [0, 20], [14, 10], [14, 20]]
    np.testing.assert_allclose(whole, inside - (40, 20), atol=1e-4)
    # What is left of the slanted one, drawn pixel by pixel, lies inside its new rectangle and touches all four sides.
    canvas = np.zeros((1000, 1000), np.uint8)
    cv2.fillPoly(canvas, [np.round((slanted - (40, 20)) * 10).astype(np.int32)], 1)
    y, x = np.nonzero(canvas)
    points = np.stack([x, y], 1) / 10
    origin, along, across = cut[0], cut[1] - cut[0], cut[3] - cut[0]
    for side in (along, across):
        share = (points - origin) @ side / (side @ side)
        length = np.linalg.norm(side)
        np.testing.assert_allclose((share.min() * length, (share.max() - 1) * length), 0, atol=0.2)  # two pixels drawn
    assert part.boxes[1].min() >= 0


def test_an_oriented_box_that_labels_could_not_hold_is_not_kept():
    """Half of it is inside, and the rectangle around that lies to 62 % inside."""
    corners = (turned(34.4, 99.5, 50.1, 30.7, 158.4) + AREA[:2]).astype(np.float32)[None]
    objects = instances((*corners[0].min(0), *corners[0].max(0)), corners=corners)

    assert len(objects_inside(objects, AREA, 0.5)[0]) == 0
    upright = replace(objects, corners=None, polygons=((corners[0],),))
    assert len(objects_inside(upright, AREA, 0.5)[0]) == 1  # as an outline it can be held


def test_outlines_are_clipped_and_their_boxes_drawn_anew():
    corner = np.array([(20, 30), (60, 30), (60, 110), (50, 110), (50, 40), (20, 40)], np.float32)  # an angle
    far = np.array([(0, 0), (9, 0), (9, 9)], np.float32)
    areas = np.array([1100.0, 40.0], np.float32)
    objects = instances((20, 30, 60, 110), (0, 0, 45, 25), polygons=((corner,), (far,)), areas=areas)

    part, kept, touched = objects_inside(objects, AREA, 0.7)

    assert (kept.tolist(), touched) == ([0], 1)  # the second has a box here but not itself
    assert part.boxes.tolist() == [[0, 10, 20, 90]]
    (outline,) = part.polygons[0]
    mask = np.zeros((100, 100), bool)
    patch = outline_pixels([outline], (100, 100))
    mask[patch.window] = patch.pixels
    expected = np.zeros((100, 100), bool)
    expected[10:20, 0:20] = True
    expected[20:90, 10:20] = True
    np.testing.assert_array_equal(mask, expected)
    assert part.areas.tolist() == pytest.approx([900.0])  # what is left of the stated area


def test_keypoints_outside_become_unlabelled_and_regions_are_clipped_with_their_shapes():
    points = np.array([[(50, 30, 2), (38, 40, 2), (0, 0, 0)]], np.float32)
    triangle, elsewhere = np.array([[(30, 50), (60, 50), (60, 80)], [(0, 0), (39, 0), (39, 39)]], np.float32)
    objects = instances(
        (38, 30, 58, 50), keypoints=points,
        ignore=np.array([(30, 50, 60, 80), (0, 0, 45, 39), (100, 100, 300, 300), (0, 0, 9, 9)], np.float32),
        ignore_labels=np.array([0, 1, 2, -1]), ignore_outlines=((triangle,), (elsewhere,), (), ()),
    )  # fmt: skip

    part, _, _ = objects_inside(objects, AREA, 0.7)

    assert part.keypoints.tolist() == [[[10, 10, 2], [0, 0, 0], [0, 0, 0]]]
    assert part.ignore.tolist() == [[0, 30, 20, 60], [60, 80, 100, 100]]
    assert part.ignore_labels.tolist() == [0, 2]
    (shape,), none = part.ignore_outlines
    assert none == ()
    assert sorted(shape.tolist()) == [[0, 30], [0, 40], [20, 30], [20, 60]]


# -- whole datasets ------------------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path, make_picture):
    """One DOTA image of 160 x 120 px with three objects, and one that fits a tile."""
    root = tmp_path / "large"
    for name, size, rows in (
        ("a", (120, 160), ["10 5 30 5 30 20 10 20 ship 0", "85 50 105 50 105 60 85 60 plane 0",
                           "0 0 160 0 160 120 0 120 harbor 0"]),
        ("b", (60, 80), ["10 5 30 5 30 20 10 20 ship 0"]),
    ):  # fmt: skip
        for place in ("images", "labelTxt"):
            (root / place).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / f"images/{name}.png"), make_picture(*size))
        (root / f"labelTxt/{name}.txt").write_text("".join(f"{row}\n" for row in rows))
    return root


def test_a_dataset_of_large_images_becomes_one_of_tiles(large, tmp_path, tree_hash):
    before = tree_hash(large)

    report = tile_dataset(large, tmp_path / "new", Tiling(100, 40))

    assert tree_hash(large) == before
    tiles = read(report.written.destination, "obb")
    assert sorted(tiles) == ["a__0_0", "a__0_20", "a__60_0", "a__60_20", "b"]
    pixels = read_image(large / "images/a.png")
    np.testing.assert_array_equal(read_image(tiles["a__60_20"].image), pixels[20:120, 60:160])
    assert (tmp_path / "new/images/b.png").read_bytes() == (large / "images/b.png").read_bytes()
    names = open_dataset(report.written.destination).names
    found = {stem: [names[label] for label in record.instances.labels] for stem, record in tiles.items()}
    assert found == {
        "a__0_0": ["ship", "plane"],  # three quarters of the plane
        "a__0_20": ["plane"],
        "a__60_0": ["plane"],
        "a__60_20": ["plane"],
        "b": ["ship"],
    }
    np.testing.assert_allclose(tiles["a__60_20"].instances.boxes, [[25, 30, 45, 40]], atol=1e-3)
    np.testing.assert_allclose(tiles["a__0_20"].instances.boxes, [[85, 30, 100, 40]], atol=1e-3)
    assert (report.sources, report.tiles, report.whole, report.in_no_tile, report.written.objects) == (2, 5, 1, 1, 6)
    assert report.parts_dropped == 4  # the harbour in every tile; what of the ship is in others is none of it
    assert dict(report.written.lost) == {}
    assert "objects that are labelled in no tile (none holds 70 % of them): 1" in report.lines()


@pytest.mark.parametrize("to", ["yolo", "coco", "voc"])
def test_tiles_in_every_format(large, tmp_path, to):
    report = tile_dataset(large, tmp_path / "new", Tiling(100, 40), to=to, task="detect")

    tiles = read(report.written.destination, "detect")
    assert len(tiles) == 5
    np.testing.assert_allclose(tiles["a__60_20"].instances.boxes, [[25, 30, 45, 40]], atol=1e-3)


def test_a_format_that_cannot_be_written_becomes_coco_and_crowds_stay(tmp_path, make_picture, encode):
    root = tmp_path / "crowd/CrowdHuman_train/Images"
    root.mkdir(parents=True)
    (root / "a.jpg").write_bytes(encode(make_picture(100, 150)))
    person = {"tag": "person", "fbox": [5, 5, 20, 40], "vbox": [5, 5, 20, 30]}
    mask = {"tag": "mask", "fbox": [40, 0, 70, 30], "extra": {"ignore": 1}}
    (tmp_path / "crowd/annotation_train.odgt").write_text(json.dumps({"ID": "a", "gtboxes": [person, mask]}))

    report = tile_dataset(tmp_path / "crowd", tmp_path / "new", Tiling(100, 50))

    assert report.written.to == "coco"
    assert dict(report.written.lost) == {"visible boxes": 1}
    tiles = read(report.written.destination, "detect")
    assert tiles["a__0_0"].instances.ignore.tolist() == [[40, 0, 100, 30]]
    assert tiles["a__50_0"].instances.ignore.tolist() == [[0, 0, 60, 30]]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"size": 20}, "size: expected at least 32 px, got 20"),
        ({"gap": 1024}, r"gap: expected 0 to 1023 px \(less than the size\), got 1024"),
        ({"keep": 0.0}, "keep: expected more than 0 and at most 1, got 0"),
    ],
)
def test_tilings_that_cut_nothing_are_refused(choices, words):
    with pytest.raises(DataError, match=words):
        Tiling(**choices)


def test_labels_of_whole_images_are_refused(tmp_path, encode, make_picture):
    for number, name in enumerate(("train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/b/3.jpg")):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(make_picture(seed=number)))

    with pytest.raises(DataError, match="a label of a whole image says nothing about its parts"):
        tile_dataset(tmp_path / "set", tmp_path / "new", Tiling())
    assert not (tmp_path / "new").exists()


def test_command_line(large, tmp_path):
    words = ["data", "tile", str(large), str(tmp_path / "new"), "--size", "100", "--gap", "40"]

    result = CliRunner().invoke(app, words)

    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "2 images, 1 of them not larger than a tile, became 5 images of at most 100 px that share 40 px" in text
    assert "labelled in no tile (none holds 70 % of them): 1" in text
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 1
    assert "expected a new or empty folder" in str(again.exception)


def test_real_dota_images_are_cut(shared_data, tmp_path):
    source = shared_data("dota-mini")
    report = tile_dataset(source, tmp_path / "new", Tiling(512, 100))

    tiles = read(report.written.destination, "obb")
    assert len(tiles) == report.written.images["train"]
    whole = sum(len(record.instances) for record in read(source, "obb", dropped=3).values())
    labelled = sum(len(record.instances) for record in tiles.values())
    assert labelled + report.in_no_tile >= whole  # every object is somewhere or was counted
    assert all(max(record.size) <= 512 for record in tiles.values())
