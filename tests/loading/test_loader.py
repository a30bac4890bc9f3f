# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from boxwright.datasets.dataset import DataConfig, read_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.sample import DatasetHeader, Instances, Record, Records, Report
from boxwright.drawn.synthetic import draw_dataset, draw_scene
from boxwright.errors import ConfigError, DataError
from boxwright.loading.augment.pipeline import AugmentConfig
from boxwright.loading.loader import train_loader, val_loader
from boxwright.loading.targets import oriented_boxes
from boxwright.results import ImageTruth

SIZE = 64
DATA = DataConfig(imgsz=SIZE)


def records_of(sizes):
    header = DatasetHeader("yolo", Path(), Path(), ("a", "b"), (0, 1), {})
    rows = []
    for index, (height, width) in enumerate(sizes):
        boxes = np.array([[1, 2, width - 3, height - 4], [5, 5, 25, 25]], np.float32)[: index % 3]
        rows.append(
            Record(Path(f"{index}.jpg"), (height, width), Instances(boxes, np.arange(len(boxes), dtype=np.int64)))
        )
    return Records(header, "train", tuple(rows), Report())


class Store:
    """Random pixels instead of files, resized as the real store does; counts what it is asked for."""

    def __init__(self, records, broken=None):
        self.records, self.broken, self.loads = records, broken, 0

    def resized(self, index):
        self.loads += 1
        if index == self.broken:
            raise ValueError("bad pixels")
        height, width = self.records.records[index].size
        ratio = SIZE / max(height, width)
        size = min(int(np.ceil(width * ratio)), SIZE), min(int(np.ceil(height * ratio)), SIZE)
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return cv2.resize(pixels, size)


SIZES = [(40 + 3 * k, 90 - 2 * k) for k in range(22)]
RECORDS = records_of(SIZES)


@pytest.fixture
def records():
    return RECORDS


def train(records, *, images=None, epoch=0, **options):
    settings = {"batch": 4, "seed": 0, "workers": 0, "epochs": 3} | options
    augment = settings.pop("augment", AugmentConfig(close_mosaic=1))
    loader = train_loader(records, DATA, augment, images=images or Store(records), **settings)
    loader.set_epoch(epoch)
    return loader


def equal(first, second):
    assert first.indices == second.indices
    assert first.paths == second.paths
    assert torch.equal(first.images, second.images)
    for name in ("labels", "boxes", "valid"):
        assert torch.equal(getattr(first.targets, name), getattr(second.targets, name))


def test_an_epoch_holds_every_image_once_in_a_new_order(records):
    loader = train(records)
    first = [i for batch in loader for i in batch.indices]
    loader.set_epoch(1)
    second = [i for batch in loader for i in batch.indices]

    assert len(loader) == 6
    assert sorted(first) == sorted(second) == list(range(22))
    assert first != second
    assert first != list(range(22))


def test_batches_hold_what_the_contract_says(records):
    batch = next(iter(train(records)))

    assert batch.images.shape == (4, 3, SIZE, SIZE)
    assert batch.paths == tuple(f"{index}.jpg" for index in batch.indices)
    assert batch.targets.boxes[batch.targets.valid].min() >= 0
    assert batch.targets.boxes[batch.targets.valid].max() <= SIZE


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_workers_deliver_the_same_batches_in_the_same_order(records, epoch):
    alone = list(train(records, epoch=epoch))
    several = list(train(records, epoch=epoch, workers=3))

    for one, other in zip(alone, several, strict=True):
        equal(one, other)


def test_workers_survive_epochs_and_equal_a_fresh_loader(records):
    loader = train(records, workers=2)
    list(loader)
    loader.set_epoch(2)
    for one, other in zip(loader, train(records, epoch=2), strict=True):
        equal(one, other)


def test_leaving_an_epoch_early_does_not_leak_into_the_next(records):
    loader = train(records, workers=2)
    next(iter(loader))
    loader.set_epoch(1)

    for one, other in zip(loader, train(records, epoch=1), strict=True):
        equal(one, other)


def test_a_resumed_epoch_starts_in_its_middle(records):
    whole = list(train(records, epoch=1))
    loader = train(records)
    loader.set_epoch(1, start=4)

    for one, other in zip(loader, whole[4:], strict=True):
        equal(one, other)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_see_the_batches_of_one(records, world):
    alone = list(train(records, batch=7))
    ranks = [list(train(records, batch=7, rank=rank, world=world)) for rank in range(world)]

    if world == 2:  # 22 = 3 * 7 + 1: the last image joins the batch before it
        assert [sum(len(rank[k]) for rank in ranks) for k in range(3)] == [7, 7, 8]
    for k, parts in enumerate(zip(*ranks, strict=True)):
        together = [index for part in parts for index in part.indices]
        images = torch.cat([part.images for part in parts])
        assert tuple(together[:7]) == alone[k].indices
        assert torch.equal(images[:7], alone[k].images)


def test_mosaic_rests_in_the_last_epochs(records):
    plain = AugmentConfig(
        hsv_h=0.0, hsv_s=0.0, hsv_v=0.0, scale=0.0, translate=0.0, fliplr=0.0, mixup=1.0, close_mosaic=1
    )
    last = list(train(records, augment=plain, epoch=2))
    before = list(train(records, augment=plain, epoch=1))

    for batch in last:
        for index, valid in zip(batch.indices, batch.targets.valid, strict=True):
            assert int(valid.sum()) == index % 3
    assert sum(int(batch.targets.valid.sum()) for batch in before) != sum(index % 3 for index in range(22))


def test_images_are_read_about_once_per_epoch(records):
    store = Store(records)

    list(train(records, images=store))

    assert store.loads == len(records.records)


def test_seed_changes_order_and_pixels(records):
    first, second = next(iter(train(records))), next(iter(train(records, seed=1)))

    assert first.indices != second.indices


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["train", "val"])
def test_an_image_that_fails_is_named(records, kind, workers):
    store = Store(records, broken=13)
    loader = (
        train(records, images=store, workers=workers)
        if kind == "train"
        else val_loader(records, DATA, batch=4, workers=workers, images=store)
    )

    with pytest.raises(DataError, match=r"^13\.jpg: cannot be loaded: ValueError: bad pixels") as caught:
        list(loader)
    if workers:
        assert "in a loader process" in caught.value.__notes__[0]


def test_loading_leaves_the_global_random_state_alone(records):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)

    list(train(records, workers=1))

    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_batches_are_rectangles_with_a_way_back(records, workers):
    store = Store(records)
    batches = list(val_loader(records, DATA, batch=4, workers=workers, images=store))

    aspects = [records.records[i].size[0] / records.records[i].size[1] for batch in batches for i in batch.indices]
    assert aspects == sorted(aspects)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(22))
    for batch in batches:
        assert batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0
        for k, index in enumerate(batch.indices):
            record, box = records.records[index], batch.letterboxes[k]
            assert batch.truths[k].boxes.tolist() == record.instances.boxes.tolist()
            assert batch.truths[k].image_size == box.source == record.size
            assert box.target == tuple(batch.images.shape[2:])
            found = batch.targets.boxes[k][batch.targets.valid[k]]
            np.testing.assert_allclose(box.to_original(found), record.instances.boxes, atol=1e-4)
            height, width = box.resized
            pixels = batch.images[k].permute(1, 2, 0).numpy()
            inside = pixels[box.top : box.top + height, box.left : box.left + width]
            np.testing.assert_array_equal(inside, store.resized(index))
            assert (pixels[: box.top] == 114).all()
            assert (pixels[:, box.left + width :] == 114).all()


def test_validation_ranks_share_the_same_rectangles(records):
    alone = list(val_loader(records, DATA, batch=5, workers=0, images=Store(records)))
    ranks = [
        list(val_loader(records, DATA, batch=5, workers=0, images=Store(records), rank=rank, world=2))
        for rank in range(2)
    ]

    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert sum((part.indices for part in parts), ()) == whole.indices


@pytest.mark.parametrize("workers", [0, 1])
def test_drawn_files_reach_the_batches(tmp_path, workers):
    path = draw_dataset(tmp_path / "shapes", train=5, val=3, imgsz=64, seed=1)
    header, config = open_dataset(path), DataConfig(source=str(path), imgsz=SIZE)
    training, held_out = (read_split(header, split, config) for split in ("train", "val"))

    batches = list(val_loader(held_out, config, batch=2, workers=workers))
    loader = train_loader(training, config, AugmentConfig(), batch=2, seed=0, workers=workers, epochs=20)

    assert sum(len(batch) for batch in loader) == 5
    for batch in batches:
        for k, index in enumerate(batch.indices):
            scene = draw_scene(64, 1, "val", index)
            np.testing.assert_allclose(batch.truths[k].boxes, scene.instances.boxes, atol=1e-3)
            assert batch.truths[k].labels.tolist() == scene.instances.labels.tolist()
            box = batch.letterboxes[k]
            inside = batch.images[k, :, box.top : box.top + 64, box.left : box.left + 64].permute(1, 2, 0).numpy()
            assert np.abs(inside.astype(int) - scene.image).mean() < 4  # JPEG of quality 95


TASKS = ("segment", "pose", "obb", "classify")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A few scenes of every task, read back: (records of train, records of val, settings)."""
    sets = {}
    for task in TASKS:
        path = draw_dataset(tmp_path_factory.mktemp("drawn") / task, train=6, val=4, imgsz=96, seed=2, task=task)
        fit = "crop" if task == "classify" else "letterbox"
        config = DataConfig(source=str(path), imgsz=96, task=task, fit=fit)
        header = open_dataset(path)
        sets[task] = *(read_split(header, split, config) for split in ("train", "val")), config
    return sets


def parts_of(batch):
    """Every tensor of a batch's targets, by name."""
    held = {}
    for name in batch.targets.__dataclass_fields__:
        value = getattr(batch.targets, name)
        held |= value if isinstance(value, dict) else {name: value}
    return {name: value for name, value in held.items() if value is not None}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_the_same_with_workers_and_again(drawn, task):
    records, _, config = drawn[task]
    augment = AugmentConfig(degrees=20.0, mixup=0.5, copy_paste=0.5, cutmix=0.5)
    runs = []
    for workers in (0, 2, 0):
        loader = train_loader(records, config, augment, batch=3, seed=0, workers=workers, epochs=20)
        loader.set_epoch(3)
        runs.append(list(loader))

    for batches in runs[1:]:
        for one, other in zip(runs[0], batches, strict=True):
            assert torch.equal(one.images, other.images)
            first, second = parts_of(one), parts_of(other)
            assert first.keys() == second.keys()
            assert all(torch.equal(first[name], second[name]) for name in first)


def test_segment_batches_hold_an_instance_map(drawn):
    records, held_out, config = drawn["segment"]
    loader = train_loader(records, config, AugmentConfig(), batch=3, seed=0, workers=0, epochs=20)
    for batch in loader:
        assert batch.targets.instance_map.shape == (3, 24, 24)
        assert batch.targets.instance_map.dtype == torch.int32
        for shown, valid in zip(batch.targets.instance_map, batch.targets.valid, strict=True):
            assert set(shown.unique().tolist()) - {0} <= set((valid.nonzero()[:, 0] + 1).tolist())
    batch = next(iter(val_loader(held_out, config, batch=4, workers=0)))
    for truth, index in zip(batch.truths, batch.indices, strict=True):
        assert len(truth.outlines) == len(truth.labels)
        assert truth.outlines[0][0] is held_out.records[index].instances.polygons[0][0]


def test_the_map_shows_what_is_seen(drawn):
    """Without augmentation nine of ten mask pixels agree with the pixels of the drawing, where one object is."""
    _, held_out, config = drawn["segment"]
    batch = next(iter(val_loader(held_out, config, batch=4, workers=0)))
    for k, index in enumerate(batch.indices):
        scene, box = draw_scene(96, 2, "val", index), batch.letterboxes[k]
        assert (box.top, box.left) == (16, 16)  # 96 px in 128
        shown = batch.targets.instance_map[k, 4:28, 4:28].numpy()
        alone = scene.masks.sum(0) == 1
        centres = (slice(2, None, 4), slice(2, None, 4))
        wanted = np.where(alone, scene.masks.argmax(0) + 1, 0)[centres]
        assert (shown == wanted)[alone[centres]].mean() > 0.9


def test_pose_batches_hold_keypoints_on_their_figures(drawn):
    records, held_out, config = drawn["pose"]
    loader = train_loader(records, config, AugmentConfig(degrees=10.0), batch=3, seed=0, workers=0, epochs=20)
    for batch in loader:
        assert batch.targets.keypoints.shape[2:] == (5, 3)
        seen = batch.targets.keypoints[..., 2] > 0
        assert not batch.targets.keypoints[~seen].any()
        x, y = batch.targets.keypoints[..., 0], batch.targets.keypoints[..., 1]
        x1, y1, x2, y2 = (side[..., None] for side in batch.targets.boxes.unbind(-1))
        # The box of a turned figure goes around the corners of its upright one.
        assert ((x >= x1 - 1) & (x <= x2 + 1) & (y >= y1 - 1) & (y <= y2 + 1))[seen].all()
    batch = next(iter(val_loader(held_out, config, batch=4, workers=0)))
    for k, index in enumerate(batch.indices):
        scene = draw_scene(96, 2, "val", index, task="pose")
        np.testing.assert_allclose(batch.truths[k].keypoints, scene.instances.keypoints, atol=1e-3)
        placed = batch.letterboxes[k].points_to_network(scene.instances.keypoints[..., :2])
        count = len(scene.instances)
        np.testing.assert_allclose(batch.targets.keypoints[k, :count, :, :2], placed, atol=1e-3)


def test_oriented_batches_hold_five_numbers(drawn):
    records, held_out, config = drawn["obb"]
    loader = train_loader(records, config, AugmentConfig(degrees=90.0), batch=3, seed=0, workers=0, epochs=20)
    for batch in loader:
        assert batch.targets.oriented
        assert batch.targets.boxes[batch.targets.valid][:, 2:4].min() > 0
    batch = next(iter(val_loader(held_out, config, batch=4, workers=0)))
    for k, index in enumerate(batch.indices):
        scene = draw_scene(96, 2, "val", index, task="obb")
        wanted = oriented_boxes(scene.instances)
        np.testing.assert_allclose(batch.truths[k].boxes, wanted, atol=2e-3)
        back = batch.letterboxes[k].oriented_to_original(batch.targets.boxes[k, : len(wanted)])
        np.testing.assert_allclose(back, wanted, atol=2e-3)


def test_classification_batches_hold_a_class_for_each_image(drawn):
    records, held_out, config = drawn["classify"]
    loader = train_loader(records, config, AugmentConfig(), batch=3, seed=0, workers=0, epochs=20)
    for batch in loader:
        assert batch.images.shape == (3, 3, 96, 96)
        assert batch.targets.labels.tolist() == [records.records[i].image_label for i in batch.indices]
    batch = next(iter(val_loader(held_out, config, batch=4, workers=0)))
    assert batch.truths == tuple(ImageTruth(held_out.records[i].image_label) for i in batch.indices)
    assert batch.letterboxes[0].resized == (96, 96)


def test_an_image_without_a_class_is_named(records):
    config = DataConfig(imgsz=SIZE, task="classify", fit="stretch")
    with pytest.raises(DataError, match=r"^0\.jpg: has no class"):
        list(val_loader(records, config, batch=4, workers=0, images=Store(records)))


def test_stretched_batches_are_squares_in_order(records):
    config = DataConfig(imgsz=SIZE, fit="stretch")
    batches = list(val_loader(records, config, batch=4, workers=0, images=Store(records)))

    assert [i for batch in batches for i in batch.indices] == list(range(22))
    for batch in batches:
        assert batch.images.shape[2:] == (SIZE, SIZE)
        for k, index in enumerate(batch.indices):
            found = batch.targets.boxes[k][batch.targets.valid[k]]
            height, width = records.records[index].size
            wanted = records.records[index].instances.boxes * np.array([SIZE / width, SIZE / height] * 2)
            np.testing.assert_allclose(found, wanted, atol=1e-4)
            assert batch.letterboxes[k].gain == (SIZE / height, SIZE / width)
            np.testing.assert_allclose(
                batch.letterboxes[k].to_original(found), records.records[index].instances.boxes, atol=1e-4
            )


def test_cropping_is_for_whole_image_labels(records):
    config = DataConfig(imgsz=SIZE, fit="crop")
    with pytest.raises(ConfigError, match=r"data\.fit: 'crop' cuts objects off"):
        val_loader(records, config, batch=4, workers=0, images=Store(records))
    with pytest.raises(ConfigError, match=r"data\.fit: 'crop' cuts objects off"):
        train_loader(records, config, AugmentConfig(), batch=4, seed=0, workers=0, epochs=1, images=Store(records))


SCRIPT = """
    import os, sys
    sys.path.insert(0, {here!r})
    import test_loader as t
    loader = t.train(t.RECORDS, workers=2, epochs=1000)
    iterator = iter(loader)
    next(iterator)
    import multiprocessing
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    sys.stdin.read()
"""


def start_with_workers():
    code = textwrap.dedent(SCRIPT).format(here=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to see processes")
def test_workers_end_when_their_parent_is_killed():
    parent = start_with_workers()
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)

    parent.kill()
    parent.communicate()

    deadline = time.monotonic() + 30  # torch's watchdog looks every 5 seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(alive(pid) for pid in pids)


def test_workers_leave_interrupts_to_the_parent(records):
    loader = train(records, workers=1)
    iterator = iter(loader)
    next(iterator)
    import multiprocessing

    for child in multiprocessing.active_children():
        os.kill(child.pid, 2)

    assert len(list(iterator)) == len(loader) - 1
