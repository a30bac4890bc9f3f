# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Fingerprints of pictures: copies are found, different pictures are not, damage is told."""

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.auditor.builders import photograph, pictures_of

from boxwright.auditor.images import close_hashes, color_mode, near_duplicates, same_bytes


def test_close_hashes_are_those_of_comparing_all_with_all():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 60, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in rng.choice(64, size=int(rng.integers(1, 12)), replace=False)) for _ in base]
    hashes = np.unique(np.concatenate((base, base ^ np.array(flips, np.uint64))))
    rng.shuffle(hashes)
    wanted = [
        (a, b)
        for a in range(len(hashes))
        for b in range(a + 1, len(hashes))
        if int(hashes[a] ^ hashes[b]).bit_count() <= 7
    ]
    assert 10 < len(wanted) < 60
    assert close_hashes(hashes) == wanted


def test_equal_hashes_make_a_chain():
    assert close_hashes(np.array([5, 5, 5], np.uint64)) == [(0, 1), (1, 2)]
    assert close_hashes(np.zeros(0, np.uint64)) == []


def test_resized_and_recompressed_pictures_are_near_and_others_are_not(tmp_path):
    whole = photograph(0)
    smaller = cv2.resize(whole, (100, 75), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", whole, [cv2.IMWRITE_JPEG_QUALITY, 40])
    brighter = cv2.convertScaleAbs(whole, alpha=0.9, beta=20)
    train = pictures_of(tmp_path, [whole, *(photograph(seed) for seed in range(1, 30))])
    val = pictures_of(tmp_path, [smaller, jpeg.tobytes(), brighter, photograph(99)], "val")
    near = near_duplicates({"train": train, "val": val}, 2.0)
    groups = {place for pair in near for place in (pair.first, pair.second)}
    assert groups == {("train", 0), ("val", 0), ("val", 1), ("val", 2)}


def test_copies_are_equal_bytes_and_not_near(tmp_path):
    train = pictures_of(tmp_path, [photograph(0), photograph(1), photograph(0)])
    assert same_bytes(train) == [[0, 2]]
    assert near_duplicates({"train": train}, 2.0) == []


def test_damage_is_told_and_nothing_is_raised(tmp_path):
    _, png = cv2.imencode(".png", photograph(0))
    train = pictures_of(tmp_path, [png.tobytes()[:3000], b"<html>", photograph(1)])
    assert sorted(train.fault) == [0, 1]
    assert "damaged" in train.fault[0]


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [("RGB", "PNG", ""), ("L", "PNG", "grey"), ("P", "PNG", "palette"), ("RGBA", "PNG", "transparency"),
     ("LA", "PNG", "grey with transparency"), ("RGB", "JPEG", ""), ("L", "JPEG", "grey"), ("CMYK", "JPEG", "CMYK")],
)  # fmt: skip
def test_how_colours_are_stored(mode, kind, words, tmp_path):
    path = tmp_path / "a"
    Image.fromarray(photograph(0)).convert(mode).save(path, kind)
    assert color_mode(path.read_bytes(), kind.lower(), 8) == words
