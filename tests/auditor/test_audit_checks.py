# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every check of the list: a dataset that triggers it, and an ordinary one that triggers none."""

from dataclasses import replace

import numpy as np
import pytest
from tests.auditor.builders import audited_of, labels_of, ordinary, photograph, pictures_of

from boxwright.auditor.checks import CHECKS, OWN, run_checks
from boxwright.auditor.learnable import PriorRule
from boxwright.auditor.scene import GROUPS, RowKinds
from boxwright.datasets.sample import Problem, Report


def with_rows(*rows, split="train", **options):
    """Ordinary labels and some odd ones, in images of their own."""
    usual = ordinary(split=split)
    columns = np.concatenate((usual.image[:, None], usual.labels[:, None], usual.boxes), axis=1)
    more = [(40 + image, *rest) for image, *rest in rows]
    return labels_of(np.concatenate((columns, np.array(more))), split=split, **options)


def report(rows, *codes):
    problems = tuple(Problem("a.txt", line, code, "odd", "none") for line, code in enumerate(codes, 1))
    return {"train": Report(rows=rows, problems=problems)}


def turned(labels):
    boxes = labels.boxes.copy()
    wide = boxes[:, 0] + 2.5 * (boxes[:, 2] - boxes[:, 0])
    return replace(labels, boxes=np.stack((boxes[:, 0], boxes[:, 1], wide, boxes[:, 3]), axis=1))


def tall(labels):
    boxes = labels.boxes.copy()
    low = boxes[:, 1] + 2.5 * (boxes[:, 3] - boxes[:, 1])
    return replace(labels, boxes=np.stack((boxes[:, 0], boxes[:, 1], boxes[:, 2], low), axis=1))


def renamed(labels, *names):
    return replace(labels, names=names)


ANCHORS = (((10.0, 13.0),), ((30.0, 61.0),), ((116.0, 90.0),))
LONG = [(image, 0, 20, 20 + 3 * image, 300 + 5 * image, 28 + 3 * image + image % 5) for image in range(60)]
VAL = ordinary(split="val", seed=1)

# Code -> labels and more that trigger it.
TRIGGERS = {
    "split_missing": lambda folder: audited_of(ordinary()),
    "names_alike": lambda folder: audited_of(renamed(ordinary(), "Traffic light", "traffic_lights"), VAL),
    "image_undecodable": lambda folder: with_pictures(folder, [b"<html>", *map(photograph, range(39))]),
    "image_copies": lambda folder: with_pictures(folder, [photograph(0), *map(photograph, range(39))]),
    "image_near_copies": lambda folder: with_pictures(
        folder, [photograph(0, 240, 320), *map(photograph, range(39))]
    ),
    "image_rotated": lambda folder: rotated(folder),
    "image_mode": lambda folder: with_pictures(folder, [photograph(77)[..., 0], *map(photograph, range(39))]),
    "image_uniform": lambda folder: with_pictures(
        folder, [np.full((50, 60, 3), 9, np.uint8), *map(photograph, range(39))]
    ),
    "image_small": lambda folder: audited_of(replace(ordinary(), sizes=np.full((40, 2), 100)), VAL),
    "image_extreme_shape": lambda folder: audited_of(replace(ordinary(), sizes=np.tile([480, 2000], (40, 1))), VAL),
    "boxes_unscaled": lambda folder: audited_of(
        ordinary(), VAL, reports=report(10, *["coord_out_of_range"] * 9)
    ),
    "boxes_misread": lambda folder: audited_of(ordinary(), VAL, reports=report(20, *["box_clipped"] * 9)),
    "sides_swapped": lambda folder: audited_of(tall(ordinary()), turned(VAL)),
    "labelled_twice": lambda folder: audited_of(with_rows((0, 0, 10, 10, 110, 110), (0, 0, 12, 11, 111, 110)), VAL),
    "labelled_as_two_classes": lambda folder: audited_of(
        with_rows((0, 0, 10, 10, 110, 110), (0, 1, 12, 11, 111, 110)), VAL
    ),
    "box_huge": lambda folder: audited_of(with_rows((0, 0, 0, 0, 640, 480)), VAL),
    "box_tiny": lambda folder: audited_of(with_rows((0, 0, 50, 50, 52, 51.5)), VAL),
    "box_extreme_aspect": lambda folder: audited_of(with_rows((0, 0, 20, 20, 600, 28)), VAL),
    "box_size_outlier": lambda folder: audited_of(with_rows((0, 0, 50, 50, 60, 60)), VAL),
    "box_shape_outlier": lambda folder: audited_of(with_rows((0, 0, 20, 50, 400, 70)), VAL),
    "identical_labels": lambda folder: audited_of(
        with_rows(*((image, k % 2, 50 + 150 * k, 60, 150 + 150 * k, 160) for image in (0, 1) for k in range(3))), VAL
    ),
    "image_crowded": lambda folder: audited_of(
        with_rows(*((0, k % 2, 20 * (k % 30), 20 * (k // 30), 20 * (k % 30) + 18, 20 * (k // 30) + 18)
                    for k in range(301))), VAL),
    "outline_rows": lambda folder: audited_of(
        ordinary(), VAL, row_kinds={"train": RowKinds(files=3, boxes=4, outlines=2, examples=("a.txt",))}
    ),
    "near_leak": lambda folder: leaking(folder),
    "class_missing_in_split": lambda folder: audited_of(ordinary(), replace(VAL, labels=np.zeros_like(VAL.labels))),
    "split_skew": lambda folder: audited_of(
        ordinary(), replace(VAL, labels=(np.arange(len(VAL)) % 10 == 0).astype(np.int64))
    ),
    "size_shift": lambda folder: audited_of(
        ordinary(), replace(VAL, boxes=np.concatenate((VAL.boxes[:, :2], VAL.boxes[:, :2] + 30), axis=1))
    ),
    "class_without_objects": lambda folder: audited_of(
        renamed(ordinary(), "cat", "dog", "emu"), renamed(VAL, "cat", "dog", "emu")
    ),
    "class_rare": lambda folder: audited_of(with_rows((0, 2, 10, 10, 110, 110), names=("cat", "dog", "emu")),
                                            renamed(VAL, "cat", "dog", "emu")),
    "class_imbalance": lambda folder: audited_of(
        replace(ordinary(), labels=(np.arange(120) % 12 == 0).astype(np.int64)), VAL
    ),
    "images_empty": lambda folder: audited_of(with_rows((5, 0, 10, 10, 110, 110)), VAL),
    "no_candidate": lambda folder: audited_of(with_rows((0, 0, 29, 29, 35, 35)), VAL),
    "few_candidates": lambda folder: audited_of(with_rows((0, 0, 29, 29, 45, 45)), VAL),
    "anchors_misfit": lambda folder: audited_of(
        labels_of(LONG), VAL, rule=PriorRule(strides=(8, 16, 32), anchors=ANCHORS)
    ),
}  # fmt: skip


def with_pictures(folder, images):
    return audited_of(ordinary(), VAL, pictures={"train": pictures_of(folder, images)})


def rotated(folder):
    pictures = pictures_of(folder, [*map(photograph, range(40))])
    pictures = replace(pictures, orientation=np.where(np.arange(40) == 3, 6, 1))
    return audited_of(ordinary(), VAL, pictures={"train": pictures})


def leaking(folder):
    train = pictures_of(folder, [*map(photograph, range(40))])
    val = pictures_of(folder, [photograph(7, 240, 320), *map(photograph, range(100, 139))], "val")
    return audited_of(ordinary(), VAL, pictures={"train": train, "val": val})


def test_every_check_has_a_trigger():
    assert set(TRIGGERS) == {check.code for check in OWN}


@pytest.mark.parametrize("code", TRIGGERS)
def test_a_check_finds_what_it_is_for(code, tmp_path):
    findings = [finding for finding in run_checks(TRIGGERS[code](tmp_path)) if finding.code == code]
    assert findings
    for finding in findings:
        assert finding.count >= 1
        assert finding.message
        assert finding.fix
        assert all(str(example) for example in finding.examples)


def test_ordinary_labels_trigger_nothing(tmp_path):
    pictures = {
        "train": pictures_of(tmp_path, [*map(photograph, range(40))]),
        "val": pictures_of(tmp_path, [*map(photograph, range(100, 140))], "val"),
    }
    reports = {"train": Report(rows=120), "val": Report(rows=120)}
    assert run_checks(audited_of(ordinary(), VAL, pictures=pictures, reports=reports)) == []


def test_nothing_breaks_where_there_is_nothing():
    for nothing in (labels_of([], images=0), labels_of([], images=4), labels_of([], images=2, names=())):
        codes = {finding.code for finding in run_checks(audited_of(nothing))}
        assert codes <= {"split_missing", "images_empty", "image_small"}


def test_details_of_a_double_label():
    labels = with_rows((0, 0, 10, 10, 110, 110), (0, 0, 12, 11, 111, 110))
    (finding,) = (one for one in run_checks(audited_of(labels, VAL)) if one.code == "labelled_twice")
    assert (finding.count, finding.splits, finding.severity) == (1, ("train",), "warning")
    overlap = 98 * 99 / (100 * 100 + 99 * 99 - 98 * 99)
    assert str(finding.examples[0]) == (
        f"train/40.jpg: cat at x 10..110, y 10..110: again cat at x 12..111, y 11..110, overlap {overlap:.2f}"
    )


def test_outliers_at_the_border_are_cut_off_and_not_odd():
    labels = with_rows((0, 0, 0, 50, 20, 150))
    codes = {finding.code for finding in run_checks(audited_of(labels, VAL))}
    assert not codes & {"box_shape_outlier", "box_size_outlier"}


def test_small_splits_are_not_skewed_by_chance():
    names = tuple("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN")
    rng = np.random.default_rng(0)
    train, val = (
        replace(ordinary(split=split), names=names, labels=rng.integers(0, 40, 120)) for split in ("train", "val")
    )
    assert "split_skew" not in {finding.code for finding in run_checks(audited_of(train, val))}


def test_the_list_is_complete_and_in_order():
    codes = [check.code for check in CHECKS]
    assert len(codes) == len(set(codes))
    assert {check.group for check in CHECKS} == set(GROUPS)
    for check in CHECKS:
        assert check.what
        assert check.example
        assert check.fix
        assert not check.what.endswith(".")


@pytest.mark.parametrize(("height", "found"), [(456.5, 1), (455.5, 0)])
def test_a_box_is_huge_from_95_percent_of_the_image_on(height, found):
    """Of 480 rows: 0.951 and 0.949 of the image."""
    labels = with_rows((0, 0, 0, 0, 640, height))

    assert [one.count for one in run_checks(audited_of(labels, VAL)) if one.code == "box_huge"] == [1] * found
