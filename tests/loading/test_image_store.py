# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Images by index: sizes, resizing, and the caches in memory and on disk."""

import multiprocessing
import os
import pickle

import cv2
import numpy as np
import pytest

from boxwright.datasets.dataset import DataConfig
from boxwright.datasets.images import read_image
from boxwright.errors import DataError
from boxwright.loading import image_store as module
from boxwright.loading.image_store import ImageStore

GOOD = "1 0.25 0.25 0.1 0.1\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def decodes(monkeypatch):
    """Names of the files that were decoded."""
    names = []

    def counting(path, *rest):
        names.append(path.name)
        return read_image(path, *rest)

    monkeypatch.setattr(module, "read_image", counting)
    return names


@pytest.fixture
def records(yolo):
    return yolo.write({f"{index}.jpg": GOOD for index in range(4)}).scan()


@pytest.mark.parametrize(
    ("size", "imgsz", "wanted"),
    [
        ((480, 640), 320, (240, 320)),
        ((427, 640), 320, (214, 320)),
        ((20, 30), 60, (40, 60)),
        ((641, 10), 640, (640, 10)),
    ],
)
def test_long_side_becomes_imgsz_and_the_other_is_rounded_up(size, imgsz, wanted):
    assert module.resized_size(size, imgsz) == wanted


@pytest.mark.parametrize(
    ("size", "imgsz"), [((40, 60), 60), ((40, 60), 90), ((40, 60), 45), ((400, 600), 90), ((60, 40), 20)]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_resized_matches_opencv(size, imgsz, kind, yolo, encode, make_picture):
    yolo.write({}, val={"v.jpg": GOOD}).image("train/a.jpg", encode(make_picture(*size), kind))
    yolo.label("train/a.txt", GOOD)
    store = ImageStore(yolo.scan(), DataConfig(imgsz=imgsz))

    result = store.resized(0)

    shrinks = max(size) > 2 * imgsz
    height, width = module.resized_size(size, imgsz)
    method = cv2.INTER_AREA if shrinks or (kind == "JPEG" and max(size) == 2 * imgsz) else cv2.INTER_LINEAR
    wanted = cv2.resize(store.image(0), (width, height), interpolation=method)
    assert result.shape == (height, width, 3)
    if kind == "JPEG" and shrinks:
        assert cv2.PSNR(result, wanted) > 35  # the decoder averages a part of the way
    else:
        assert np.abs(result.astype(int) - wanted).max() <= (3 if max(size) == 2 * imgsz else 0)
    assert store.size(0) == size


def test_memory_cache_decodes_once(records, decodes):
    seen = []
    store = ImageStore(records, DataConfig(imgsz=30, cache="ram"), lambda done, total: seen.append((done, total)))
    assert (sorted(decodes), seen[-1]) == (["0.jpg", "1.jpg", "2.jpg", "3.jpg"], (4, 4))
    decodes.clear()

    plain = ImageStore(records, DataConfig(imgsz=30))
    for index in range(4):
        np.testing.assert_array_equal(store.resized(index), plain.resized(index))
    assert len(decodes) == 4  # those of the plain store
    assert not store.resized(0).flags.writeable
    assert store.messages[0].startswith("train: 4 of 4 images cached (memory, 0.00 of ")


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_what_does_not_fit_stays_uncached_and_is_said(kind, records, decodes):
    one = 20 * 30 * 3
    store = ImageStore(records, DataConfig(imgsz=30, cache=kind, cache_limit_gb=2.5 * one / 1e9))
    decodes.clear()

    shapes = [store.resized(index).shape for index in range(4)]

    assert shapes == [(20, 30, 3)] * 4
    assert decodes == ["2.jpg", "3.jpg"]
    assert "2 of 4 images cached" in store.messages[0]
    assert "2 do not fit and are decoded each time" in store.messages[0]


def test_limits_of_the_machine_are_respected(records, decodes, monkeypatch):
    monkeypatch.setattr(module, "_free_memory", lambda: 20 * 30 * 3 * 1.5)

    assert "1 of 4 images cached" in ImageStore(records, DataConfig(imgsz=30, cache="ram")).messages[0]
    nothing = ImageStore(records, DataConfig(imgsz=30, cache="ram", cache_limit_gb=0.0))
    assert "0 of 4 images cached" in nothing.messages[0]
    assert nothing.resized(0).shape == (20, 30, 3)


def _read_all(store, queue):
    module.read_image = None  # any decoding fails
    queue.put([store.resized(index).sum().item() for index in range(len(store))])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_workers_share_the_cache(method, kind, records):
    store = ImageStore(records, DataConfig(imgsz=30, cache=kind))
    wanted = [store.resized(index).sum().item() for index in range(4)]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_read_all, args=(store, queue))
    process.start()
    try:
        assert queue.get(timeout=60) == wanted
    finally:
        process.join()
    queue.close()
    queue.join_thread()


def test_a_store_that_outlives_its_owner_decodes(records, decodes):
    store = ImageStore(records, DataConfig(imgsz=30, cache="ram"))
    data = pickle.dumps(store).replace(
        f"/proc/{os.getpid()}/".encode(), f"/proc/{'9' * len(str(os.getpid()))}/".encode()
    )
    decodes.clear()

    assert pickle.loads(data).resized(1).shape == (20, 30, 3)
    assert decodes == ["1.jpg"]


def test_disk_cache_survives_and_follows_changes(yolo, records, decodes, folder, encode, make_picture):
    config = DataConfig(imgsz=30, cache="disk")
    first = ImageStore(records, config)
    (place,) = folder.iterdir()
    assert len(list(place.glob("*.npy"))) == 4
    decodes.clear()

    before = first.resized(2).copy()
    second = ImageStore(yolo.scan(), config)
    np.testing.assert_array_equal(second.resized(2), before)
    assert decodes == []

    yolo.image("train/2.jpg", encode(make_picture(seed=77)))
    third = ImageStore(yolo.scan(), config)
    assert decodes == ["2.jpg"]
    assert (third.resized(2) != before).any()
    assert len(list(place.glob("*.npy"))) == 4  # the entry of the old picture is gone


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00v\x00{'descr'", b"x" * 1928])
def test_damaged_disk_entries_are_made_again(records, decodes, folder, damage):
    store = ImageStore(records, DataConfig(imgsz=30, cache="disk"))
    wanted = store.resized(0).copy()
    (place,) = folder.iterdir()
    for file in place.glob("*.npy"):
        file.write_bytes(damage)
    decodes.clear()

    np.testing.assert_array_equal(store.resized(0), wanted)
    assert decodes == ["0.jpg"]
    np.testing.assert_array_equal(store.resized(0), wanted)
    assert decodes == ["0.jpg"]


def test_disk_cache_that_cannot_be_written_is_said_and_not_used(records, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BOXWRIGHT_CACHE", str(tmp_path / "file" / "cache"))

    store = ImageStore(records, DataConfig(imgsz=30, cache="disk"))

    assert store.messages == ("images are not cached: the cache folder cannot be written",)
    assert store.resized(0).shape == (20, 30, 3)


def test_images_that_change_after_the_check_are_errors(yolo, records, encode, make_picture):
    store = ImageStore(records, DataConfig(imgsz=30))
    yolo.image("train/0.jpg", encode(make_picture(50, 60)))
    (yolo.root / "images/train/1.jpg").unlink()

    with pytest.raises(DataError, match=r"0.jpg: was 60 x 40 px when it was checked, is 60 x 50 now"):
        store.resized(0)
    with pytest.raises(DataError, match=r"1.jpg: cannot be read"):
        store.image(1)
