# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import sys

import numpy as np
import pytest
import torch

from boxwright import viz
from boxwright.errors import ShapeError
from boxwright.results import Detections, GroundTruth
from boxwright.structures import Targets

NAMES = ("cat", "dog", "bird")


def grey(height=240, width=320):
    return np.full((height, width, 3), 128, np.uint8)


def found(boxes, scores, labels, names=NAMES):
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), names, (240, 320))


def covered(picture, colour):
    return (picture == np.array(colour, np.uint8)).all(axis=2)


def test_a_box_is_outlined_in_the_colour_of_its_class_and_the_image_is_left_alone():
    image = grey()

    picture = viz.draw(image, found([[100.0, 100, 200, 180]], [0.9], [1]))

    mask = covered(picture, viz.colour(1))
    assert mask[100, 110:190].all()
    assert mask[110:170, 200].all()
    assert not mask[110:170, 110:190].any()
    assert (image == 128).all()
    assert picture.shape == image.shape


def test_a_label_has_a_filled_strip_above_its_box_or_inside_at_the_border():
    for y1, strip in ((100, slice(86, 99)), (0, slice(2, 15))):
        picture = viz.draw(grey(), found([[100.0, y1, 200, 180]], [0.9], [0]))
        area = picture[strip, 101:130].reshape(-1, 3)
        paint = covered(area[None], viz.colour(0)).mean()
        assert 0.4 < paint < 0.95  # the rest is letters
        assert (area.astype(int).sum(axis=1) > 700).any()  # white ones


def test_text_at_every_border_stays_inside_the_image():
    boxes = [[-20.0, -20, 10, 10], [310, 230, 400, 300], [0, 0, 320, 240], [300, 0, 319, 5]]

    picture = viz.draw(grey(), found(boxes, [0.9, 0.8, 0.7, 0.6], [0, 1, 2, 0]))

    assert covered(picture, viz.colour(1)).sum() > 200


def test_weak_detections_are_left_out_and_the_best_is_on_top():
    box = [[100.0, 100, 200, 180]] * 2

    both = viz.draw(grey(), found(box, [0.9, 0.4], [0, 2]))
    strong = viz.draw(grey(), found(box, [0.9, 0.4], [0, 2]), min_score=0.5)

    assert np.array_equal(both[110:170, 95:105], strong[110:170, 95:105])
    assert not covered(strong, viz.colour(2)).any()


@pytest.mark.parametrize("side", [32, 128, 640, 3000])
def test_letters_and_lines_grow_with_the_image(side):
    image = np.zeros((side, side, 3), np.uint8)
    box = [[side * 0.25, side * 0.5, side * 0.75, side * 0.9]]

    picture = viz.draw(image, found(box, [0.5], [0]))

    row = covered(picture, viz.colour(0))[:, side // 2]
    line = np.flatnonzero(row & (np.arange(side) > side * 0.8))
    wanted = max(1, round(side / 320))
    assert wanted <= len(line) <= wanted + 2  # OpenCV rounds thick lines up


def test_signs_the_font_lacks_and_empty_names_do_not_fail():
    picture = viz.draw(grey(), found([[50.0, 50, 90, 90]], [0.5], [0], ("日本 ü", "", "x")))
    assert covered(picture, viz.colour(0)).any()
    viz.draw(grey(), found([[50.0, 50, 90, 90]], [0.5], [1], ("a", "", "x")), scores=False)


def test_ground_truth_shows_names_where_given():
    truth = GroundTruth(torch.tensor([[100.0, 100, 200, 180]]), torch.tensor([1]), (240, 320))

    named, numbered = viz.draw(grey(), truth, NAMES), viz.draw(grey(), truth)

    assert not np.array_equal(named, numbered)
    assert covered(numbered, viz.colour(1))[100, 110:190].all()


def test_colours_of_neighbouring_classes_are_far_apart():
    colours = np.array([viz.colour(label) for label in range(12)], int)
    distance = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 1000 * np.eye(12, dtype=int)

    assert distance.min() > 40
    assert viz.colour(3) == viz.colour(3)


def test_side_by_side_has_labels_on_the_left_and_predictions_on_the_right():
    truth = GroundTruth(torch.tensor([[100.0, 100, 200, 180]]), torch.tensor([1]), (240, 320))
    guess = found([[100.0, 100, 200, 180], [0, 0, 50, 50]], [0.9, 0.1], [2, 0])

    picture = viz.side_by_side(grey(), truth, guess)

    left, right = picture[:, :320], picture[:, -320:]
    assert covered(left, viz.colour(1)).any()
    assert not covered(left, viz.colour(2)).any()
    assert covered(right, viz.colour(2)).any()
    assert not covered(right, viz.colour(0)).any()  # below the least score


def test_grid_fits_images_of_all_sizes():
    images = [
        np.full((50, 100, 3), 10, np.uint8),
        np.full((200, 100, 3), 20, np.uint8),
        np.full((8, 8, 3), 30, np.uint8),
    ]

    picture = viz.grid(images, columns=2, cell=80)

    gap = 2
    assert picture[gap, gap].tolist() == [10] * 3
    assert (covered(picture, (10,) * 3).sum(), covered(picture, (20,) * 3).sum()) == (40 * 80, 80 * 40)
    assert covered(picture, (30,) * 3).sum() == 80 * 80
    with pytest.raises(ShapeError, match="at least one image"):
        viz.grid([])


def test_a_training_batch_is_drawn_with_its_valid_targets_only():
    images = torch.full((3, 3, 64, 64), 128, dtype=torch.uint8)
    targets = Targets(
        labels=torch.tensor([[1, 0], [2, 0], [0, 0]]),
        boxes=torch.tensor([[[8.0, 24, 56, 56], [0, 0, 0, 0]]]).expand(3, 2, 4).contiguous(),
        valid=torch.tensor([[True, False], [True, False], [False, False]]),
    )

    picture = viz.draw_batch(images, targets, NAMES, limit=3, cell=128)

    assert covered(picture, viz.colour(1)).any()
    assert covered(picture, viz.colour(2)).any()
    assert not covered(picture, viz.colour(0)).any()
    assert viz.draw_batch(images, targets, NAMES, limit=1, cell=128).shape < picture.shape


def test_class_counts_draws_bars_in_proportion():
    picture = viz.class_counts(["a", "b$_{2}$"], {"train": [100, 50]})

    blue = covered(picture, (31, 119, 180))  # C0
    rows = np.flatnonzero(blue.any(axis=1))
    first, second = blue[rows[0] + 3].sum(), blue[rows[-1] - 3].sum()
    assert second / first == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ShapeError, match="expected 2 counts for val, got 1"):
        viz.class_counts(["a", "b"], {"val": [1]})
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
