# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Drawings of masks, keypoints, oriented boxes, attributes and classes of whole images, looked at pixel by pixel."""

import math

import numpy as np
import torch

from boxwright import viz
from boxwright.results import Classification, Detections, GroundTruth, ImageTruth, InstanceMask
from boxwright.structures import ImageTargets, Targets
from boxwright.vocabulary import AttributeSpec, KeypointSpec

NAMES = ("cat", "dog", "bird")
GREY = np.full((240, 320, 3), 128, np.uint8)
SMOOTH = 14  # lines are drawn with soft edges, which take a little of the colour from their middle
SPEC = KeypointSpec(count=3, skeleton=((0, 1), (1, 2)))
BLEND = [round(128 * 0.55 + value * 0.45) for value in viz.colour(1)]


def near(picture, colour, tolerance=1):
    return (np.abs(picture.astype(int) - np.array(colour)) <= tolerance).all(axis=2)


def found(boxes=((100.0, 100, 200, 180),), **parts):
    return Detections(torch.tensor(boxes), torch.tensor([0.9]), torch.tensor([1]), NAMES, (240, 320), **parts)


def test_a_mask_covers_its_pixels_translucently():
    pixels = np.zeros((40, 60), bool)
    pixels[10:30, 10:50] = True

    picture = viz.draw(GREY, found(masks=(InstanceMask(120, 120, pixels),)))

    assert near(picture, BLEND)[132:148, 132:168].all()
    assert near(picture, (128,) * 3)[122:128, 122:176].all()


def test_outlines_of_labels_are_filled_with_all_their_parts():
    parts = tuple(np.array([[x, 120], [x + 20, 120], [x + 20, 160], [x, 160]], np.float32) for x in (110, 160, 165))
    truth = GroundTruth(torch.tensor([[100.0, 100, 200, 180]]), torch.tensor([1]), (240, 320), outlines=(parts,))

    blended = near(viz.draw(GREY, truth), BLEND)

    assert blended[125:155, 115:125].all()
    assert blended[125:155, 168:178].all()  # where two parts overlap there is no hole
    assert not blended[125:155, 135:155].any()


def test_masks_and_outlines_beyond_the_image_are_cut_off():
    mask = InstanceMask(300, 220, np.ones((60, 60), bool))
    assert near(viz.draw(GREY, found(masks=(mask,))), BLEND)[225:238, 305:318].all()
    away = np.array([[-50, -50], [-10, -50], [-10, -10]], np.float32)
    truth = GroundTruth(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([1]), (240, 320), outlines=((away,),))
    assert not near(viz.draw(GREY, truth), BLEND).any()


def test_seen_keypoints_are_dots_and_the_skeleton_joins_only_those():
    keypoints = torch.tensor([[[110.0, 110, 0.9], [110, 170, 0.8], [190, 170, 0.2]]])

    picture = viz.draw(GREY, found(keypoints=keypoints, keypoint_spec=SPEC))

    assert near(picture, viz.colour(0))[110, 110]
    assert near(picture, viz.colour(1), SMOOTH)[125:155, 110].all()  # the bone
    assert not near(picture, viz.colour(2))[160:180, 180:198].any()
    assert near(picture, (128,) * 3)[165:175, 130:180].all()


def test_a_box_turned_by_a_quarter_is_as_high_as_it_was_wide():
    picture = viz.draw(GREY, found(boxes=((160.0, 140, 80, 20, math.pi / 2),)))

    line = near(picture, viz.colour(1), SMOOTH)
    assert line[110:170, 150].all()
    assert line[110:170, 170].all()
    assert not line[140, 155:165].any()


def test_attributes_are_written_behind_the_class():
    colour = AttributeSpec(name="colour", values=("red", "blue"))
    plain = viz.draw(GREY, found())
    told = viz.draw(GREY, found(attributes={"colour": torch.tensor([[0.1, 0.9]])}, attribute_specs=(colour,)))
    other = viz.draw(GREY, found(attributes={"colour": torch.tensor([[0.9, 0.1]])}, attribute_specs=(colour,)))

    strip = [near(picture, viz.colour(1))[88:98].any(axis=0).sum() for picture in (plain, told, other)]
    assert strip[0] < strip[2] < strip[1]  # "red" is shorter than "blue"

    truth = GroundTruth(found().boxes, torch.tensor([1]), (240, 320), attributes={"colour": torch.tensor([-1])})
    assert np.array_equal(
        viz.draw(GREY, truth, NAMES, attributes=(colour,)),
        viz.draw(GREY, GroundTruth(truth.boxes, truth.labels, (240, 320)), NAMES),
    )


def test_classes_of_an_image_stand_in_its_corner_best_first():
    said = Classification(torch.tensor([0.2, 0.795, 0.005]), NAMES, (240, 320))

    picture = viz.draw(GREY, said)

    rows = [np.flatnonzero(near(picture, viz.colour(label)).any(axis=1)) for label in range(3)]
    assert rows[1].max() < rows[0].min() < 60
    assert len(rows[2]) == 0  # less than a hundredth
    label = viz.draw(GREY, ImageTruth(2), NAMES)
    assert near(label, viz.colour(2))[:30, :40].any()


def test_enlarged_drawings_keep_everything_in_place():
    keypoints = torch.tensor([[[110.0, 110, 1], [110, 170, 1], [190, 170, 1]]])
    mask = InstanceMask(120, 120, np.ones((20, 40), bool))

    picture = viz.draw(GREY, found(masks=(mask,), keypoints=keypoints, keypoint_spec=SPEC), enlarge=2.0)

    assert picture.shape == (480, 640, 3)
    assert near(picture, BLEND)[250:270, 250:310].all()
    assert near(picture, viz.colour(0))[220, 220]


def test_labels_beside_predictions_of_every_kind():
    keypoints = torch.tensor([[[110.0, 110, 2], [110, 170, 1], [0, 0, 0]]])
    truth = GroundTruth(found().boxes, torch.tensor([1]), (240, 320), keypoints=keypoints)

    picture = viz.side_by_side(GREY, truth, found(keypoints=keypoints, keypoint_spec=SPEC))

    for half in (picture[-240:, :320], picture[-240:, -320:]):
        assert near(half, viz.colour(1), SMOOTH)[125:155, 110].all()
    images = viz.side_by_side(GREY, ImageTruth(0), Classification(torch.tensor([0.9, 0.1, 0]), NAMES, (240, 320)))
    assert images.shape[1] > 640


def batch_targets(**parts):
    return Targets(
        labels=torch.tensor([[1, 2]]),
        boxes=torch.tensor([[[8.0, 8, 40, 40], [40, 40, 60, 60]]]),
        valid=torch.tensor([[True, True]]),
        **parts,
    )


def test_a_training_batch_shows_masks_and_keypoints():
    images = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    instance_map = torch.zeros(1, 16, 16, dtype=torch.int32)
    instance_map[0, 3:9, 3:9] = 1
    masks = torch.zeros(1, 2, 16, 16, dtype=torch.bool)
    masks[0, 0, 3:9, 3:9] = True
    keypoints = torch.zeros(1, 2, 3, 3)
    keypoints[0, 1] = torch.tensor([[44.0, 44, 2], [44, 56, 2], [56, 56, 2]])

    by_map = viz.draw_batch(images, batch_targets(instance_map=instance_map), NAMES, cell=256)
    by_masks = viz.draw_batch(images, batch_targets(masks=masks), NAMES, cell=256)
    posed = viz.draw_batch(images, batch_targets(keypoints=keypoints), NAMES, cell=256, keypoints=SPEC)

    gap = 3
    assert near(by_map, BLEND)[gap + 75 : gap + 125, gap + 75 : gap + 125].all()  # 12..36 px, four times as large
    assert np.array_equal(by_map, by_masks)
    assert near(posed, viz.colour(2), SMOOTH)[gap + 190 : gap + 210, gap + 176].all()


def test_a_training_batch_of_whole_images_shows_their_classes():
    images = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)

    single = viz.draw_batch(images, ImageTargets(torch.tensor([0, 2])), NAMES, cell=128)
    mixed = viz.draw_batch(images, ImageTargets(torch.tensor([[0.7, 0.3, 0], [0, 0, 1.0]])), NAMES, cell=128)

    for picture in (single, mixed):
        assert near(picture, viz.colour(0))[:, :128].any()
        assert near(picture, viz.colour(2))[:, -128:].any()
    assert near(mixed, viz.colour(1))[:, :128].any()
