# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import numpy as np
import pytest

from boxwright.datasets.sample import Instances, Sample
from boxwright.loading.augment.classify import build_image_sample, draw_crop, erase
from boxwright.loading.augment.pipeline import AugmentConfig

STILL = AugmentConfig(fliplr=0.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0, auto_augment="none", erasing=0.0)


def sample(height=60, width=90):
    image = np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)
    image.setflags(write=False)
    return Sample(image, Instances.empty(), 4, 2)


def test_crops_cover_what_they_should():
    rng = np.random.default_rng(0)
    crops = np.array([draw_crop(rng, (80, 100), 0.5) for _ in range(2000)])
    top, left, height, width = crops.T
    shares, ratios = height * width / 8000, width / height

    assert top.min() == 0
    assert (top + height).max() == 80
    assert (left + width).max() == 100
    assert shares.min() > 0.48
    assert ratios.min() > 0.73
    assert ratios.max() < 1.36


def test_an_image_without_room_for_a_crop_gives_its_middle():
    # 0.9 of the area of 20 x 200 px is never 4:3.
    assert draw_crop(np.random.default_rng(0), (20, 200), 0.9) == (0, 86, 20, 27)


@pytest.mark.parametrize("fit", ["crop", "letterbox", "stretch"])
def test_samples_are_squares_with_their_class(fit):
    found = build_image_sample(sample(), imgsz=32, config=AugmentConfig(), rng=np.random.default_rng(0), fit=fit)
    again = build_image_sample(sample(), imgsz=32, config=AugmentConfig(), rng=np.random.default_rng(0), fit=fit)

    assert found.image.shape == (32, 32, 3)
    assert found.image_label == 2
    assert found.index == 4
    np.testing.assert_array_equal(found.image, again.image)


def test_letterboxed_images_are_whole():
    found = build_image_sample(sample(), imgsz=90, config=STILL, rng=np.random.default_rng(0), fit="letterbox")

    np.testing.assert_array_equal(found.image[15:75], sample().image)
    assert (found.image[:15] == 114).all()


def test_flips_are_flips():
    config = AugmentConfig(fliplr=1.0, flipud=1.0, auto_augment="none", erasing=0.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0)
    found = build_image_sample(sample(90, 90), imgsz=90, config=config, rng=np.random.default_rng(0), fit="stretch")

    np.testing.assert_array_equal(found.image, sample(90, 90).image[::-1, ::-1])


def test_erasing_blackens_one_rectangle():
    image = sample(100, 100).image
    shares = []
    for seed in range(200):
        erased = (erase(image, np.random.default_rng(seed)) == 0).all(2)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        assert erased.sum() == len(rows) * len(columns)
        shares.append(erased.mean())
    assert min(shares) > 0.015
    assert max(shares) < 0.35
    assert abs(np.mean(shares) - (0.02 + 1 / 3) / 2) < 0.03
