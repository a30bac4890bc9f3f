# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
from pathlib import Path

import cv2
import numpy as np
import pytest

from boxwright.config import from_dict, override, to_dict
from boxwright.datasets.sample import DatasetHeader, Instances, Sample
from boxwright.errors import ConfigError
from boxwright.loading.augment.pipeline import AugmentConfig, build_sample, pose_flip_message, sample_generator
from boxwright.ops.letterbox import FILL
from boxwright.vocabulary import KeypointSpec

STILL = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "translate": 0.0, "scale": 0.0, "fliplr": 0.0, "mosaic": 0.0}
SIZE = 128


def load(index):
    rng = np.random.default_rng(index)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (128, 96))
    image.setflags(write=False)  # as if it were the cache itself
    return Sample(image, Instances(np.array([[10, 20, 60, 70]], np.float32), np.array([index])), index)


def draw(index=0, seed=0, epoch=0, closed=False, **changes):
    config = AugmentConfig(**{**STILL, **changes})
    rng = sample_generator(seed, epoch, index)
    return build_sample(load, index, imgsz=SIZE, config=config, rng=rng, partners=range(9), mosaic=not closed)


def same(a, b):
    return np.array_equal(a.image, b.image) and np.array_equal(a.instances.boxes, b.instances.boxes)


def test_defaults_are_the_recipes():
    assert to_dict(AugmentConfig()) == {
        "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "degrees": 0.0, "translate": 0.1, "scale": 0.5, "shear": 0.0,
        "perspective": 0.0, "flipud": 0.0, "fliplr": 0.5, "mosaic": 1.0, "mixup": 0.0, "cutmix": 0.0, "copy_paste": 0.0,
        "copy_paste_mode": "flip", "bgr": 0.0, "close_mosaic": 10, "auto_augment": "randaugment", "erasing": 0.4,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "wrong"), [
    ("hsv_h", 1.5), ("hsv_s", -0.1), ("degrees", 181.0), ("translate", 2.0), ("scale", 1.0), ("shear", 90.0),
    ("perspective", 0.01), ("flipud", 2.0), ("fliplr", -1.0), ("mosaic", 1.1), ("mixup", -0.5), ("close_mosaic", -1),
    ("cutmix", 1.1), ("copy_paste", -0.1), ("bgr", 2.0), ("erasing", 1.5),
    ("hsv_v", float("nan")),
])  # fmt: skip
def test_values_out_of_range_name_the_field(name, wrong):
    with pytest.raises(ConfigError, match=f"augment.{name}: expected .* got {wrong}"):
        AugmentConfig(**{name: wrong})
    with pytest.raises(ConfigError, match=f"augment.{name}: expected .* got {wrong}"):
        from_dict(AugmentConfig, {name: wrong}, "augment")


def test_settings_are_overridden_and_checked():
    assert override(AugmentConfig(), ["mosaic=0", "close_mosaic=3"]) == AugmentConfig(mosaic=0.0, close_mosaic=3)
    with pytest.raises(ConfigError, match="mosiac: unknown key; did you mean 'mosaic'"):
        override(AugmentConfig(), ["mosiac=1"])


@pytest.mark.parametrize(("epoch", "epochs", "closed"), [(89, 100, False), (90, 100, True), (0, 5, True)])
def test_mosaic_closes_for_the_last_epochs(epoch, epochs, closed):
    assert AugmentConfig().mosaic_closed(epoch, epochs) is closed
    assert AugmentConfig(close_mosaic=0).mosaic_closed(epoch, epochs) is False


def test_nothing_on_is_the_letterboxed_image():
    sample = draw(3)

    np.testing.assert_array_equal(sample.image[16:112], load(3).image)
    assert (sample.image[:16] == FILL).all()
    assert sample.instances.boxes.tolist() == [[10, 36, 60, 86]]
    assert sample.instances.labels.tolist() == [3]
    assert sample.index == 3


@pytest.mark.parametrize("changes", [
    {},
    {"mosaic": 1.0, "scale": 0.5, "translate": 0.1, "hsv_s": 0.7, "fliplr": 0.5},
    {"mosaic": 1.0, "mixup": 1.0, "degrees": 20.0, "shear": 3.0, "perspective": 0.0003, "flipud": 0.5},
])  # fmt: skip
def test_sample_follows_from_seed_epoch_and_index(changes):
    sample = draw(4, seed=1, epoch=2, **changes)

    assert same(sample, draw(4, seed=1, epoch=2, **changes))
    assert sample.image.shape == (SIZE, SIZE, 3)
    assert sample.instances.boxes.dtype == np.float32
    assert sample.instances.boxes.min(initial=0) >= 0
    assert sample.instances.boxes.max(initial=0) <= SIZE
    if changes:
        assert not same(sample, draw(4, seed=2, epoch=2, **changes))
        assert not same(sample, draw(4, seed=1, epoch=3, **changes))
        assert not same(sample, draw(5, seed=1, epoch=2, **changes))


def test_mosaic_shows_four_images_unless_closed():
    drawn = [set(draw(5, epoch=epoch, mosaic=1.0).instances.labels.tolist()) for epoch in range(40)]

    assert max(len(labels) for labels in drawn) == 4
    assert any(5 in labels for labels in drawn)
    assert same(draw(5, closed=True, mosaic=1.0, mixup=1.0), draw(5))


def test_mosaic_probability_is_a_share_of_samples():
    still = draw(5)
    hits = sum(not same(draw(5, epoch=epoch, mosaic=0.3), still) for epoch in range(300))

    assert abs(hits / 300 - 0.3) < 3 * (0.3 * 0.7 / 300) ** 0.5


def test_mixup_blends_two_samples():
    sample = draw(5, mixup=1.0)

    first, second = sample.instances.labels.tolist()
    assert first == 5
    # Beta(32, 32) stays near one half.
    blend = (load(5).image.astype(float) + load(second).image) / 2
    assert np.abs(sample.image[16:112] - blend).max() < 0.25 * 255
    assert second in range(9)


def test_flips_move_pixels_and_boxes():
    plain, mirrored, upside = draw(3), draw(3, fliplr=1.0), draw(3, flipud=1.0)
    both = draw(3, fliplr=1.0, flipud=1.0)

    np.testing.assert_array_equal(mirrored.image, plain.image[:, ::-1])
    np.testing.assert_array_equal(upside.image, plain.image[::-1])
    np.testing.assert_array_equal(both.image, plain.image[::-1, ::-1])
    assert mirrored.instances.boxes.tolist() == [[68, 36, 118, 86]]
    assert upside.instances.boxes.tolist() == [[10, 42, 60, 92]]
    assert both.instances.boxes.tolist() == [[68, 42, 118, 92]]


def test_images_without_objects_pass():
    config = AugmentConfig(mixup=1.0, degrees=5.0)
    empty = Sample(np.zeros((96, 128, 3), np.uint8), Instances.empty(), 0)
    rng = sample_generator(0, 0, 0)

    sample = build_sample(lambda i: empty, 0, imgsz=SIZE, config=config, rng=rng, partners=[0])

    assert sample.instances.boxes.shape == (0, 4)
    assert sample.instances.labels.dtype == np.int64


def outlined(index):
    """One square at the left with an outline and two keypoints."""
    image = np.full((128, 128, 3), 10 * index, np.uint8)
    image[20:40, 10:30] = 200
    outline = (np.array([(10, 20), (30, 20), (30, 40), (10, 40)], np.float32),)
    keypoints = np.array([[[12, 30, 2], [28, 30, 2]]], np.float32)
    return Sample(
        image,
        Instances(np.array([[10, 20, 30, 40]], np.float32), np.array([index]), (outline,), keypoints=keypoints),
        index,
    )


def draw_outlined(spec=None, closed=False, **changes):
    config = AugmentConfig(**{**STILL, **changes})
    rng = sample_generator(0, 0, 3)
    return build_sample(
        outlined, 3, imgsz=SIZE, config=config, rng=rng, partners=[5], mosaic=not closed, keypoints=spec
    )


PAIRS, NO_PAIRS = KeypointSpec(count=2, flip=(1, 0)), KeypointSpec(count=2)


def test_mirrored_keypoints_change_names():
    assert draw_outlined(PAIRS, fliplr=1.0).instances.keypoints.tolist() == [[[100, 30, 2], [116, 30, 2]]]


def test_without_pairs_nothing_is_mirrored():
    sample = draw_outlined(NO_PAIRS, fliplr=1.0, copy_paste=1.0)

    assert sample.instances.boxes.tolist() == [[10, 20, 30, 40]]
    np.testing.assert_array_equal(sample.image, outlined(3).image)


def test_copy_paste_shows_an_object_again():
    mirrored = draw_outlined(PAIRS, copy_paste=1.0)
    mixed = draw_outlined(copy_paste=1.0, copy_paste_mode="mixup")

    assert mirrored.instances.boxes.tolist() == [[10, 20, 30, 40], [98, 20, 118, 40]]
    assert mirrored.instances.keypoints[1].tolist() == [[100, 30, 2], [116, 30, 2]]
    assert (mirrored.image[20:40, 98:118] == 200).all()
    assert mixed.instances.labels.tolist() == [3]  # the other one lies exactly on this one


def test_cutmix_shows_another_image():
    config = AugmentConfig(**{**STILL, "cutmix": 1.0})
    shown = [
        build_sample(outlined, 3, imgsz=SIZE, config=config, rng=sample_generator(0, epoch, 3), partners=[5])
        for epoch in range(20)
    ]

    assert any((sample.image == 50).any() for sample in shown)
    for sample in shown:
        assert (sample.image[20:40, 10:30] == 200).all()  # never over an object


def test_closing_rests_all_mixing():
    changes = {"copy_paste": 1.0, "cutmix": 1.0, "mixup": 1.0, "mosaic": 1.0}

    np.testing.assert_array_equal(draw_outlined(closed=True, **changes).image, outlined(3).image)
    assert draw_outlined(closed=True, **changes).instances.boxes.tolist() == [[10, 20, 30, 40]]


def test_channels_change_places():
    image = draw(3).image

    np.testing.assert_array_equal(draw(3, bgr=1.0).image, image[..., ::-1])


def test_missing_pairs_are_told_once_it_matters():
    header = DatasetHeader("yolo", Path(), Path("data.yaml"), ("a",), (0,), {}, keypoints=NO_PAIRS)
    paired = DatasetHeader("yolo", Path(), Path("data.yaml"), ("a",), (0,), {}, keypoints=PAIRS)

    assert "data.yaml does not say which keypoints are left-right pairs" in pose_flip_message(header, AugmentConfig())
    assert pose_flip_message(header, AugmentConfig(fliplr=0.0)) is None
    assert pose_flip_message(header, AugmentConfig(), "detect") is None
    assert pose_flip_message(paired, AugmentConfig()) is None
