# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""COCO JSON: layouts, declarations, annotations, and spec/datasets cases 63 to 68."""

import json

import numpy as np
import pytest
from pycocotools import mask as coder

from boxwright.datasets.checks import check_dataset
from boxwright.datasets.dataset import DataConfig, read_split, scan_split
from boxwright.datasets.formats import FORMATS, coco_file, open_dataset
from boxwright.datasets.formats.coco_objects import attribute_value
from boxwright.datasets.raster import outline_pixels
from boxwright.errors import DataError
from boxwright.vocabulary import AttributeSpec

BOX = [10, 5, 20, 15]
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def annotation(number=1, image=1, category=3, bbox=BOX, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **more}


class CocoSet:
    """Builds `annotations/instances_<split>.json` and `images/<split>`; every image is 60 x 40 px."""

    def __init__(self, root, encode, make_picture):
        self.root, self.encode, self.make_picture = root, encode, make_picture

    def image(self, name, seed=0):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.encode(self.make_picture(seed=seed)))

    def write(
        self, annotations, *, categories=CATEGORIES, images=None, name="annotations/instances_train.json", **more
    ):
        images = [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}] if images is None else images
        content = {"images": images, "annotations": annotations, "categories": categories, **more}
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return self

    def scan(self, split="train", **choices):
        return scan_split(open_dataset(self.root), split, DataConfig(**choices))


@pytest.fixture
def coco(tmp_path, encode, make_picture):
    made = CocoSet(tmp_path / "coco", encode, make_picture)
    made.image("images/train/a.jpg")
    made.image("images/val/b.jpg", seed=1)
    val = [{"id": 1, "file_name": "b.jpg", "width": 60, "height": 40}]
    made.write([annotation()], images=val, name="annotations/instances_val.json")
    return made.write([annotation()])


def found(records):
    return [problem.code for problem in records.report.problems]


def test_classes_are_ranked_by_id_and_boxes_are_pixels(coco):
    coco.write([annotation(), annotation(2, category=7, bbox=[0.5, 0, 4.25, 8])])

    header, records = open_dataset(coco.root), coco.scan()

    assert (header.names, header.class_ids, header.format) == (("cat", "dog"), (3, 7), "coco")
    assert [problem.code for problem in header.problems] == ["class_ids_with_gaps"]
    assert records.records[0].instances.labels.tolist() == [0, 1]
    assert records.records[0].instances.boxes.tolist() == [[10, 5, 30, 20], [0.5, 0, 4.75, 8]]
    assert records.records[0].instances.areas is None
    assert coco.scan("val").records[0].image.name == "b.jpg"


def test_crowds_become_ignore_regions_and_areas_are_kept(coco):
    coco.write([annotation(area=250.5), annotation(2, category=7, bbox=[0, 0, 9, 9], iscrowd=1, area=81)])

    instances = coco.scan(task="segment").records[0].instances

    assert (len(instances), instances.areas.tolist()) == (1, [250.5])
    assert (instances.ignore.tolist(), instances.ignore_labels.tolist()) == ([[0, 0, 9, 9]], [1])


def run_lengths(mask):
    """Uncompressed, as a COCO file has a crowd."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    return {"size": list(mask.shape), "counts": np.diff(edges, prepend=0, append=flat.size).tolist()}


def crowd_mask():
    """Two lumps, one with a hole."""
    mask = np.zeros((40, 60), bool)
    mask[5:20, 10:30] = True
    mask[8:11, 15:18] = False
    mask[25:30, 40:44] = True
    return mask


def painted(outline, size=(40, 60)):
    patch = outline_pixels(outline, size)
    mask = np.zeros(size, bool)
    mask[patch.window] = patch.pixels
    return mask


def test_crowds_keep_the_pixels_of_their_run_lengths(coco):
    rle, mask = run_lengths(crowd_mask()), crowd_mask()
    packed = coder.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    crowd = {"category": 7, "iscrowd": 1}
    coco.write(
        [
            annotation(1),
            annotation(2, bbox=[10, 5, 34, 25], segmentation=rle, **crowd),
            annotation(3, bbox=[9, 5, 35, 25], segmentation={"size": [40, 60], "counts": packed}, **crowd),
            annotation(4, bbox=[0, 0, 9, 9], segmentation=[[0, 0, 9, 0, 9, 9]], **crowd),
            annotation(5, bbox=[1, 1, 9, 9], **crowd),
        ]
    )

    records = coco.scan(task="segment")

    instances = records.records[0].instances
    runs, same, triangle, box = instances.ignore_outlines
    np.testing.assert_array_equal(painted(runs), mask)
    np.testing.assert_array_equal(painted(same), mask)
    assert triangle[0].tolist() == [[0, 0], [9, 0], [9, 9]]
    assert box == ()
    assert (found(records), dict(records.report.left_out)) == ([], {})  # nothing of a crowd is lost
    assert coco.scan(task="detect").records[0].instances.ignore_outlines is None


def test_a_damaged_crowd_is_its_box_and_that_is_said(coco):
    crowd = annotation(2, bbox=[0, 0, 9, 9], iscrowd=1, segmentation={"size": [40, 60], "counts": [5]})

    records = coco.write([annotation(), crowd]).scan(task="segment")

    assert [(p.code, p.action) for p in records.report.problems] == [("bad_mask", "the crowd's box is used")]
    assert records.records[0].instances.ignore.tolist() == [[0, 0, 9, 9]]
    assert records.records[0].instances.ignore_outlines is None


def test_masks_that_became_outlines_and_their_holes_are_left_out(coco):
    coco.write([annotation(1, bbox=[10, 5, 34, 25], segmentation=run_lengths(crowd_mask())), annotation(2, image=1)])

    assert dict(coco.scan(task="segment").report.left_out) == {
        "run lengths of objects' masks (became outlines)": 1,
        "holes of objects' masks (joined to the outline by a line)": 1,
    }
    assert dict(coco.scan(task="detect").report.left_out) == {}  # nobody asked for masks


def test_outlines_of_every_kind(coco):
    ring = np.ones((40, 60), int)
    ring[10, 10] = 0
    flat = ring.T.ravel()
    first = int(np.flatnonzero(flat == 0)[0])
    counts = [0, first, 1, 40 * 60 - first - 1]
    coco.write(
        [
            annotation(1, segmentation=[[10, 5, 30, 5, 30, 20], [10, 5, 10, 20, 12, 20]]),
            annotation(2, bbox=[0, 0, 60, 40], segmentation={"size": [40, 60], "counts": counts}),
            annotation(3, bbox=[1, 1, 5, 5]),
        ]
    )

    polygons = coco.scan(task="segment").records[0].instances.polygons

    assert [len(parts) for parts in polygons] == [2, 1, 0]
    assert polygons[0][1].tolist() == [[10, 5], [10, 20], [12, 20]]
    assert coco.scan(task="detect").records[0].instances.polygons is None


def test_outlines_are_oriented_boxes_for_obb(coco):
    coco.write([annotation(segmentation=[[10, 5, 30, 5, 30, 20, 10, 20]]), annotation(2, bbox=[1, 1, 5, 5])])

    instances = coco.scan(task="obb").records[0].instances

    assert instances.corners[0].tolist() == [[10, 5], [30, 5], [30, 20], [10, 20]]
    assert instances.corners[1].tolist() == [[1, 1], [6, 1], [6, 6], [1, 6]]


PERSON = [{"id": 1, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2], [1, 3]]}]


def test_keypoints_names_skeleton_and_pairs(coco):
    given = annotation(category=1, keypoints=[12, 6, 2, 14, 7, 1, 5, 5, 0])
    for name in ("train", "val"):
        images = [{"id": 1, "file_name": {"train": "a.jpg", "val": "b.jpg"}[name]}]
        coco.write([given], categories=PERSON, images=images, name=f"annotations/instances_{name}.json")

    header, records = open_dataset(coco.root), coco.scan(task="pose")

    assert (header.task, header.keypoints.count, header.keypoints.flip) == ("pose", 3, (0, 2, 1))
    assert header.keypoints.skeleton == ((0, 1), (0, 2))
    assert records.records[0].instances.keypoints.tolist() == [[[12, 6, 2], [14, 7, 1], [0, 0, 0]]]
    assert records.report.problems == ()


def test_bad_keypoints_are_named_and_the_object_kept(coco):
    coco.write(
        [
            annotation(1, category=1, keypoints=[12, 6, 2]),
            annotation(2, category=1, bbox=[1, 1, 5, 5], keypoints=[70, 6, 2, 14, 7, 5, 0, 0, 0]),
        ],
        categories=PERSON,
    )

    records = coco.scan(task="pose")

    assert found(records) == ["bad_keypoints", "bad_visibility", "keypoint_out_of_range"]
    assert records.records[0].instances.keypoints[:, :, 2].tolist() == [[0, 0, 0], [0, 2, 0]]


def test_attributes_are_declared_at_the_top_or_in_info(coco):
    declared = {"colour": ["red", "blue"], "marks": {"values": ["dot", "bar"], "multi_label": True}}
    labels = [
        annotation(1, attributes={"colour": "blue", "marks": ["bar"], "occluded": True}),
        annotation(2, bbox=[1, 1, 5, 5], attributes={"colour": "green", "marks": [0, -1]}),
        annotation(3, bbox=[2, 2, 5, 5]),
    ]
    for where in ({"attributes": declared}, {"info": {"attributes": declared}}):
        coco.write(labels, **where)
        records = coco.scan()
        attributes = records.records[0].instances.attributes
        assert attributes["colour"].tolist() == [1, -1, -1]
        assert attributes["marks"].tolist() == [[0, 1], [0, -1], [-1, -1]]
        assert found(records) == ["bad_attribute"]
    coco.write(labels, attributes=["colour"])
    with pytest.raises(DataError, match="attributes: expected a mapping"):
        open_dataset(coco.root)


def test_attribute_values_by_name_index_or_flags():
    one = AttributeSpec(name="c", values=("a", "b"))
    many = AttributeSpec(name="m", values=("a", "b"), multi_label=True)
    assert [attribute_value(one, value) for value in ("b", 1, 2, "x", True, [1])] == [1, 1, None, None, None, None]
    assert [attribute_value(many, v) for v in (["b"], [], [1, 0], [True, False], [1], ["x"], "a")] == [
        (0, 1), (0, 0), (1, 0), (1, 0), None, None, None
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bbox", "code"),
    [
        ([1, 1, 0, 5], "zero_area"),
        ([1, 1, 5, -5], "zero_area"),
        ([1, 1, float("nan"), 5], "bad_box"),
        ([1, 1, "5", 5], "bad_box"),
        ([1, 1, 5], "bad_box"),
        (None, "bad_box"),
        ([100, 100, 5, 5], "zero_area"),
    ],
)
def test_case63_bad_boxes_are_skipped_and_named(coco, bbox, code):
    coco.write([annotation(9, bbox=bbox), annotation(10)])

    records = coco.scan()

    assert found(records) == [code]
    assert "a.jpg: annotation id 9" in records.report.problems[0].message
    assert (len(records.records[0].instances), records.report.rows_dropped) == (1, 1)


def test_boxes_leaving_the_image_are_clipped(coco):
    records = coco.write([annotation(bbox=[50, 5, 20, 10])]).scan()

    assert records.records[0].instances.boxes.tolist() == [[50, 5, 60, 15]]
    assert (found(records), records.report.rows_fixed) == (["box_clipped"], 1)


def test_case64_unknown_images_and_categories_are_skipped(coco):
    coco.write([annotation(), annotation(2, image=9), annotation(3, category=5), annotation(4, category=[1])])

    records = coco.scan()

    assert sorted(found(records)) == ["class_unknown", "class_unknown", "image_unknown"]
    assert len(records.records[0].instances) == 1


def test_case65_duplicate_ids_are_errors(coco):
    twice = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "c.jpg"}]
    coco.write([annotation(), annotation()], images=twice)

    with pytest.raises(DataError, match=r"image ids are given twice: 1(.|\n)*annotation ids are given twice: 1"):
        read_split(open_dataset(coco.root), "train", DataConfig())


def test_duplicate_objects_are_dropped_and_other_classes_kept(coco):
    records = coco.write([annotation(1), annotation(2), annotation(3, category=7)]).scan()

    assert (found(records), records.report.duplicates) == (["duplicate_row"], 1)
    assert len(records.records[0].instances) == 2


def test_case66_bad_masks_and_outlines(coco):
    coco.write(
        [
            annotation(1, segmentation={"size": [4, 6], "counts": [24]}),
            annotation(2, bbox=[1, 1, 5, 5], segmentation=[[1, 2, 3, 4], [1, 1, 5, 1, 5, 5]]),
        ]
    )

    records = coco.scan(task="segment")

    assert found(records) == ["bad_mask", "bad_polygon"]
    assert [len(parts) for parts in records.records[0].instances.polygons] == [1]


def test_case67_the_images_own_size_counts(coco):
    coco.write([annotation()], images=[{"id": 1, "file_name": "a.jpg", "width": 40, "height": 60}])
    assert found(coco.scan()) == ["size_mismatch"]
    coco.write([annotation()], images=[{"id": 1, "file_name": "a.jpg"}])
    assert coco.scan().records[0].size == (40, 60)
    assert found(coco.scan()) == []


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "C:\\a.jpg", "..\\a.jpg", ""])
def test_case68_unsafe_file_names_are_refused(coco, name):
    coco.write([annotation(), annotation(2, 2)], images=[{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": name}])

    records = coco.scan()

    assert [(p.code, p.severity) for p in records.report.problems] == [("bad_path", "error")]
    assert len(records.records) == 1


def test_missing_images_are_dropped_with_a_report(coco):
    coco.write([annotation()], images=[{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "gone.jpg"}])

    records = coco.scan()

    assert found(records) == ["image_missing"]
    assert records.report.corrupt == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"images": [', "not valid JSON"),
        ('{"images": [], "categories": 3}', "categories: missing; expected a list"),
        ('{"images": [], "categories": []}', "categories: empty"),
        ('{"images": [], "categories": [{"id": "1", "name": "a"}]}', r"categories\[0\]: expected an object"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "id 1 is given twice"),
        ('{"images": [], "annotations": {}, "categories": []}', "annotations: expected a list"),
        (
            '{"images": [], "categories": [{"id": 1, "name": "a", "keypoints": ["n"], "skeleton": [[0, 1]]}]}',
            "skeleton",
        ),
    ],
)
def test_damaged_files_are_explained(coco, content, words):
    (coco.root / "annotations/instances_train.json").write_text(content)

    with pytest.raises(DataError, match=words):
        open_dataset(coco.root)
    assert not check_dataset(coco.root).ok


def test_splits_must_agree_on_classes(coco):
    coco.write([annotation()], categories=[*CATEGORIES, {"id": 9, "name": "cow"}])

    with pytest.raises(DataError, match=r"instances_val.json: categories: .* id 9 is None here and 'cow' there"):
        coco.scan("val")


def test_layouts(coco, tmp_path):
    """A file beside its sibling, one file alone, a YAML file, and a folder for each split."""
    header = open_dataset(coco.root / "annotations/instances_train.json")
    assert [path.name for paths in header.splits.values() for path in paths] == [
        "instances_train.json",
        "instances_val.json",
    ]
    assert len(scan_split(header, "val", DataConfig()).records) == 1

    alone = CocoSet(tmp_path / "alone", coco.encode, coco.make_picture).write([annotation()], name="labels.json")
    alone.image("a.jpg")
    header = open_dataset(alone.root)
    assert list(header.splits) == ["train", "val"]
    assert "no_val_split" in [problem.code for problem in header.problems]
    assert len(alone.scan("val").records) == 1

    yaml = coco.root / "data.yaml"
    yaml.write_text("train: annotations/instances_val.json\nval: annotations/instances_train.json\n")
    for source in (yaml, coco.root):
        header = open_dataset(source)
        assert (header.format, header.splits["train"][0].name) == ("coco", "instances_val.json")
    yaml.write_text("train: annotations/instances_val.json\n")
    with pytest.raises(DataError, match="val: missing"):
        open_dataset(yaml)

    service = CocoSet(tmp_path / "service", coco.encode, coco.make_picture)
    for split in ("train", "valid"):
        service.write([annotation()], name=f"{split}/_annotations.coco.json")
        service.image(f"{split}/a.jpg")
    assert [len(service.scan(split).records) for split in ("train", "val")] == [1, 1]


def test_other_datasets_are_not_taken_for_coco(coco, yolo, voc, make_object):
    yolo.write({"a.jpg": "0 .5 .5 .2 .2"})
    (yolo.root / "notes.json").write_text('{"a": 1}')
    voc.write({"a": make_object()})
    (coco.root / "notes.json").write_text("[1]")

    claimed = {name: [form.name for form in FORMATS if form.detect(place)] for name, place in
               (("yolo", yolo.root), ("voc", voc.root), ("coco", coco.root))}  # fmt: skip
    assert {name: names[0] for name, names in claimed.items()} == {"yolo": "yolo", "voc": "voc", "coco": "coco"}


def test_a_file_is_parsed_once_from_opening_to_reading(coco, monkeypatch):
    parsed = []
    original = coco_file._parse
    monkeypatch.setattr(coco_file, "_parse", lambda path: parsed.append(path.name) or original(path))

    header = open_dataset(coco.root)
    scan_split(header, "train", DataConfig())

    assert parsed == ["instances_train.json"]
    assert coco_file._parsed == {}


def test_real_coco_keypoints_open_as_they_lie(shared_data):
    header = open_dataset(shared_data("coco-keypoints"))

    records = scan_split(header, "train", DataConfig(task="pose"))

    assert (len(records.records), sum(len(record.instances) for record in records.records)) == (4, 14)
    assert header.keypoints.flip == (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
    assert records.report.problems == ()
    outlined = scan_split(header, "val", DataConfig(task="segment"))
    assert all(all(record.instances.polygons) for record in outlined.records)
