# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import hashlib
import inspect

import cv2
import numpy as np
import pytest
import yaml

from boxwright.datasets.dataset import DataConfig, read_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.raster import outline_pixels
from boxwright.drawn.drawn_shapes import ATTRIBUTES, FIGURE, LONG_NAMES, STYLES
from boxwright.drawn.synthetic import MIN_SHOWN, NAMES, draw_dataset, draw_scene
from boxwright.errors import ConfigError, DataError
from boxwright.loading.targets import oriented_boxes

SIDE = 192


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(SIDE, 0, "val", index) for index in range(120)]


def all_boxes(scenes):
    return np.concatenate([scene.instances.boxes for scene in scenes])


def test_boxes_are_the_extent_of_the_drawn_masks(scenes):
    for scene in scenes:
        assert len(scene.masks) == len(scene.instances)
        for mask, box in zip(scene.masks, scene.instances.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_masks_are_what_is_seen_except_where_a_later_object_hides_it(scenes):
    for scene in scenes:
        expected = np.full((SIDE, SIDE), -1)
        for place, mask in enumerate(scene.masks):
            expected[mask] = place
        np.testing.assert_array_equal(scene.owner, expected)


def test_objects_stand_out_from_what_they_are_painted_on(scenes):
    for scene in scenes[:30]:
        for place, mask in enumerate(scene.masks):
            seen = (scene.owner == place) & cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            ring = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & (scene.owner == -1)
            if seen.sum() > 20 and ring.sum() > 20:
                inside, outside = scene.image[seen].astype(float), scene.image[ring].astype(float)
                assert inside.std(0).max() < 45  # one shaded colour
                assert np.linalg.norm(inside.mean(0) - outside.mean(0)) > 20


def test_scenes_have_two_to_eight_objects_of_nine_to_thirty_five_percent(scenes):
    counts = [len(scene.instances) for scene in scenes]
    boxes = all_boxes(scenes)
    sizes = (boxes[:, 2:] - boxes[:, :2]).max(1) / SIDE

    assert set(counts) == set(range(2, 9))
    assert sizes.min() >= 0.09
    assert sizes.max() <= 0.35
    assert sizes.min() < 0.11
    assert sizes.max() > 0.33
    assert boxes.min() >= 0
    assert boxes.max() <= SIDE


def test_at_least_four_classes_equally_often(scenes):
    labels = np.concatenate([scene.instances.labels for scene in scenes])
    share = np.bincount(labels, minlength=len(NAMES)) / len(labels)

    assert len(NAMES) >= 4
    assert np.abs(share - 1 / len(NAMES)).max() < 0.06


def test_classes_differ_by_shape_only(scenes):
    """Neither colour nor size tells the class: their class means differ by no more than chance allows."""
    colours, sizes, labels, fills = [], [], [], []
    for scene in scenes:
        for place, (mask, label) in enumerate(zip(scene.masks, scene.instances.labels, strict=True)):
            colours.append(scene.image[(scene.owner == place) & mask].mean(0))
            x1, y1, x2, y2 = scene.instances.boxes[place]
            sizes.append(max(x2 - x1, y2 - y1))
            fills.append(mask.sum() / ((x2 - x1) * (y2 - y1)))
            labels.append(label)
    labels, features = np.array(labels), np.column_stack([colours, sizes])
    for feature in features.T:
        between = [feature[labels == k].mean() for k in range(len(NAMES))]
        standard_error = feature.std() / (len(labels) / len(NAMES)) ** 0.5
        assert np.abs(between - feature.mean()).max() < 3.3 * standard_error
    # The shapes themselves do: a circle always fills pi / 4 of its box, a cross far less than that.
    fills = np.array(fills)
    assert np.abs(fills[labels == NAMES.index("circle")] - np.pi / 4).max() < 0.06
    assert fills[labels == NAMES.index("cross")].max() < 0.6


def test_objects_overlap_but_none_is_hidden(scenes):
    overlapping, shares = 0, []
    for scene in scenes:
        overlapping += bool((scene.masks.sum(0) > 1).any())
        shares += [(scene.owner == place).sum() / mask.sum() for place, mask in enumerate(scene.masks)]

    assert overlapping / len(scenes) > 0.4
    assert min(shares) >= MIN_SHOWN
    assert np.mean(np.array(shares) < 0.95) > 0.1


def test_backgrounds_are_textured(scenes):
    for scene in scenes:
        background = scene.owner < 0
        grey = cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY).astype(float)
        assert grey[background].std() > 5
        steps = np.abs(np.diff(grey, axis=1))[background[:, 1:] & background[:, :-1]]
        assert steps.mean() > 2


def test_scenes_depend_on_seed_split_and_index_only():
    scene = draw_scene(SIDE, 3, "train", 7)
    again = draw_scene(SIDE, 3, "train", 7)

    np.testing.assert_array_equal(scene.image, again.image)
    np.testing.assert_array_equal(scene.instances.boxes, again.instances.boxes)
    for other in (draw_scene(SIDE, 4, "train", 7), draw_scene(SIDE, 3, "val", 7), draw_scene(SIDE, 3, "train", 8)):
        assert not np.array_equal(scene.image, other.image)


def test_dataset_is_written_in_yolo_layout(tmp_path):
    seen = []
    path = draw_dataset(
        tmp_path / "shapes", train=3, val=2, imgsz=96, seed=5, on_progress=lambda done, n: seen.append((done, n))
    )

    assert path == tmp_path / "shapes" / "data.yaml"
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    described = yaml.safe_load(path.read_text())
    assert described["names"] == dict(enumerate(NAMES))
    assert sorted(p.name for p in (path.parent / described["train"]).iterdir()) == [
        "000000.jpg", "000001.jpg", "000002.jpg",
    ]  # fmt: skip
    scene = draw_scene(96, 5, "val", 1)
    rows = np.loadtxt(path.parent / "labels" / "val" / "000001.txt", ndmin=2)
    assert rows[:, 0].tolist() == scene.instances.labels.tolist()
    centre, size = rows[:, 1:3] * 96, rows[:, 3:5] * 96
    np.testing.assert_allclose(np.hstack([centre - size / 2, centre + size / 2]), scene.instances.boxes, atol=1e-4)
    picture = cv2.imread(str(path.parent / "images" / "val" / "000001.jpg"), cv2.IMREAD_COLOR_RGB)
    assert np.abs(picture.astype(int) - scene.image).mean() < 4  # JPEG of quality 95
    assert [p.name for p in tmp_path.iterdir()] == ["shapes"]


def test_default_dataset_holds_out_at_least_a_hundred_scenes():
    assert inspect.signature(draw_dataset).parameters["val"].default >= 100


def test_same_dataset_is_kept_and_anything_else_is_refused(tmp_path):
    path = draw_dataset(tmp_path / "shapes", train=1, val=1, imgsz=64, seed=0)
    stamp = path.stat().st_mtime_ns

    assert draw_dataset(tmp_path / "shapes", train=1, val=1, imgsz=64, seed=0) == path
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="expected a new or empty folder"):
        draw_dataset(tmp_path / "shapes", train=2, val=1, imgsz=64, seed=0)
    with pytest.raises(ConfigError, match="at least 64 px"):
        draw_dataset(tmp_path / "small", train=1, val=1, imgsz=32, seed=0)


def test_interrupted_drawing_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path / "shapes", train=2, val=1, imgsz=64, seed=0, on_progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_detection_scenes_stay_what_they_were(tmp_path):
    """Numbers of runs on drawn data stay comparable: labels and pixels before encoding are pinned."""
    scene = draw_scene(128, 3, "train", 0)
    path = draw_dataset(tmp_path / "shapes", train=2, val=1, imgsz=128, seed=3)
    rows = (path.parent / "labels" / "train" / "000000.txt").read_bytes()

    assert hashlib.sha256(rows).hexdigest()[:16] == "e130687aa9439918"
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] == "3b1357553c7e3046"
    assert scene.instances.polygons is None


def test_segment_scenes_are_the_same_with_outlines():
    shifts = []
    for index in range(12):
        plain, outlined = draw_scene(SIDE, 0, "val", index), draw_scene(SIDE, 0, "val", index, task="segment")
        np.testing.assert_array_equal(plain.image, outlined.image)
        for mask, outline in zip(outlined.masks, outlined.instances.polygons, strict=True):
            patch = outline_pixels(outline, mask.shape)
            found = np.zeros_like(mask)
            found[patch.window] = patch.pixels
            # Whole, also where hidden. OpenCV fills 1/8 px more all around: 6 % of the smallest cross.
            assert (found & mask).sum() / (found | mask).sum() > 0.9
            shifts.append(np.argwhere(found).mean(0) - np.argwhere(mask).mean(0))
    # A side on the edge between two pixels moves one object's middle, but no direction is preferred.
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.05


def test_figures_carry_keypoints_on_their_pixels():
    states = []
    for index in range(40):
        scene = draw_scene(SIDE, 0, "val", index, task="pose")
        for place, keypoints in enumerate(scene.instances.keypoints):
            for x, y, seen in keypoints.tolist():
                assert scene.masks[place, int(y), int(x)]
                assert seen == (2 if scene.owner[int(y), int(x)] == place else 1)
                states.append(seen)
            head, left_hand, right_hand, left_foot, right_foot = keypoints[:, :2]
            # Seen from the front: its left is to the right of the line from head to feet.
            down = (left_foot + right_foot) / 2 - head
            for left, right in ((left_hand, right_hand), (left_foot, right_foot)):
                assert down[0] * (left - right)[1] - down[1] * (left - right)[0] < 0
    assert 0.01 < np.mean(np.array(states) == 1) < 0.3


def test_long_shapes_lie_in_their_smallest_rectangle_at_any_angle():
    angles, labels = [], []
    for index in range(60):
        scene = draw_scene(SIDE, 0, "val", index, task="obb")
        corners = scene.instances.corners
        assert corners.min() >= 0
        assert corners.max() <= SIDE
        boxes = oriented_boxes(scene.instances)
        for mask, box, label in zip(scene.masks, boxes, scene.instances.labels, strict=True):
            points = np.argwhere(mask)[:, ::-1].astype(np.float32) + 0.5
            _, (w, h), _ = cv2.minAreaRect(points)
            # Pixel centres: up to a pixel less than the outline on each side.
            assert abs(max(w, h) - max(box[2:4])) < 2.5
            assert abs(min(w, h) - min(box[2:4])) < 2.5
            assert max(box[2:4]) > 1.9 * min(box[2:4])
            labels.append(label)
        edges = corners[:, 1] - corners[:, 0]
        angles += np.arctan2(edges[:, 1], edges[:, 0]).tolist()
    assert set(labels) == set(range(len(LONG_NAMES)))
    counts = np.histogram(angles, 8, (-np.pi, np.pi))[0]
    assert counts.min() > 0.5 * counts.mean()


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_drawn_files_read_back_as_they_were_drawn(tmp_path, task):
    path = draw_dataset(tmp_path / task, train=2, val=3, imgsz=96, seed=1, task=task)
    header = open_dataset(path)
    records = read_split(header, "val", DataConfig(source=str(path), task=task))

    assert header.task == task
    assert header.names == STYLES[task].names
    assert records.report.problems == ()
    for index, record in enumerate(records.records):
        drawn, read = draw_scene(96, 1, "val", index, task=task).instances, record.instances
        assert read.labels.tolist() == drawn.labels.tolist()
        if task == "segment":
            for ours, theirs in zip(drawn.polygons, read.polygons, strict=True):
                np.testing.assert_allclose(theirs[0], ours[0].clip(0, 96), atol=1e-3)
        elif task == "obb":
            np.testing.assert_allclose(read.corners, drawn.corners, atol=1e-3)
        else:
            np.testing.assert_allclose(read.boxes, drawn.boxes, atol=1e-3)
            np.testing.assert_allclose(read.keypoints, drawn.keypoints, atol=1e-3)
    if task == "pose":
        for name in ("count", "dims", "names", "flip", "skeleton"):
            assert getattr(header.keypoints, name) == getattr(FIGURE, name)


def test_attributes_are_drawn_and_read_back(tmp_path):
    path = draw_dataset(tmp_path / "set", train=1, val=8, imgsz=128, seed=1, attributes=True)
    header = open_dataset(path)
    records = read_split(header, "val", DataConfig(source=str(path)))

    assert header.attributes == ATTRIBUTES
    colours, marks = [], []
    for index, record in enumerate(records.records):
        scene = draw_scene(128, 1, "val", index, attributes=True)
        for name, wanted in scene.instances.attributes.items():
            assert record.instances.attributes[name].tolist() == wanted.tolist()
        for place, mask in enumerate(scene.masks):
            seen = scene.image[(scene.owner == place) & mask].astype(int)
            spread = np.ptp(seen, axis=1)
            colours.append(np.median(seen[spread > 60], axis=0).argmax() == scene.instances.attributes["colour"][place])
            bright, dark = (seen.min(1) > 225).mean(), (seen.max(1) < 30).mean()
            if (scene.owner == place).sum() == mask.sum():
                marks.append((bright > 0.01, dark > 0.03) == tuple(scene.instances.attributes["marks"][place] > 0))
    assert np.mean(colours) == 1
    assert np.mean(marks) == 1
    assert len(marks) > 15
    with pytest.raises(ConfigError, match="attributes belong to objects"):
        draw_dataset(tmp_path / "other", train=1, val=1, task="classify", attributes=True)


def test_classification_is_a_folder_for_each_class(tmp_path):
    folder = draw_dataset(tmp_path / "shapes", train=8, val=4, imgsz=64, seed=0, task="classify")

    assert folder == tmp_path / "shapes"
    for split, count in (("train", 2), ("val", 1)):
        assert sorted(place.name for place in (folder / split).iterdir()) == sorted(NAMES)
        assert all(len(list(place.iterdir())) == count for place in (folder / split).iterdir())
    assert draw_dataset(folder, train=8, val=4, imgsz=64, seed=0, task="classify") == folder
    records = read_split(open_dataset(folder), "val", DataConfig(source=str(folder), task="classify"))
    assert sorted(record.image_label for record in records.records) == [0, 1, 2, 3]
    for record in records.records:
        assert record.image.parent.name == records.header.names[record.image_label]
