# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

from pathlib import Path

import numpy as np
import pytest

from boxwright.datasets.sample import Instances, Record
from boxwright.errors import ConfigError
from boxwright.loading.autoanchor import (
    AnchorFit,
    best_possible_recall,
    check_anchors,
    fit_anchors,
    flat,
    label_sizes,
)

ANCHORS = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)


def sizes_around(mean: float, count: int = 400, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(np.log(mean), 0.5, (count, 2)))


def test_recall_counts_labels_whose_sides_differ_by_less_than_the_ratio():
    one = (((20.0, 20.0),),)

    assert best_possible_recall(np.array([[20.0, 20.0], [79.0, 6.0], [80.0, 20.0], [20.0, 5.0]]), one) == (0.5, 0.5)
    assert best_possible_recall(np.array([[79.0, 20.0]]), one, ratio=3.9).recall == 0


def test_recall_equals_a_loop_over_labels_and_anchors():
    sizes, above = sizes_around(60), []
    for width, height in sizes.tolist():
        near = 0
        for w, h in flat(ANCHORS).tolist():
            worst = min(width / w, w / width, height / h, h / height)
            near += worst > 1 / 4
        above.append(near)

    found = best_possible_recall(sizes, ANCHORS)

    assert found.recall == pytest.approx(np.mean([near > 0 for near in above]), abs=1e-12)
    assert found.above == pytest.approx(np.mean(above), abs=1e-12)


def test_fitting_anchors_stay():
    report = check_anchors(sizes_around(60), ANCHORS)

    assert report.anchors is ANCHORS
    assert not report.changed
    assert report.after == report.before
    assert report.before.recall > 0.98
    assert report.summary().startswith(f"anchors: best possible recall {report.before.recall:.4f} (")


def test_misfitting_anchors_are_fitted_anew():
    sizes = sizes_around(5)

    report = check_anchors(sizes, ANCHORS)

    assert report.changed
    assert report.before == best_possible_recall(sizes, ANCHORS)
    assert report.after == best_possible_recall(sizes, report.anchors)
    assert report.after.recall > 0.98 > report.before.recall
    assert [len(level) for level in report.anchors] == [3, 3, 3]
    areas = [width * height for level in report.anchors for width, height in level]
    assert areas == sorted(areas)
    assert flat(report.anchors).min() >= 2
    assert "fitted anew" in report.summary()
    assert "have a side below 3 px" in report.summary()


def test_a_seed_decides_the_result():
    sizes = sizes_around(900)

    first, again, other = (fit_anchors(sizes, 3, 3, seed=seed, generations=50) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_generations_only_improve_the_mean_fit():
    sizes = sizes_around(300)

    def fitness(anchors) -> float:
        share = sizes[:, None] / flat(anchors)
        best = np.minimum(share, 1 / share).min(2).max(1)
        return float(np.where(best > 0.25, best, 0).mean())

    start, end = (fitness(fit_anchors(sizes, 3, 3, generations=count)) for count in (0, 200))

    assert end > start + 0.005


@pytest.mark.parametrize(
    "sizes",
    [
        np.zeros((0, 2)),
        np.zeros((3, 2)),
        np.full((4, 2), 1.0),
        np.full((50, 2), 1700.0),
        np.array([[5.0, 900.0]]),
        np.array([[0.0, 50.0], [1.0, 900.0]]),
    ],
    ids=["none", "no area", "tiny", "all equal", "one", "flat"],
)
def test_few_or_odd_labels_never_end_in_an_error(sizes):
    report = check_anchors(sizes, ANCHORS)

    assert report.labels == int((sizes > 0).all(1).sum())
    assert np.isfinite(flat(report.anchors)).all()
    assert report.changed == (report.after is not None and report.after.recall > report.before.recall)
    assert report.summary()


def test_without_labels_nothing_is_claimed():
    report = check_anchors(np.zeros((0, 2)), ANCHORS)

    assert (report.anchors, report.before, report.after) == (ANCHORS, None, None)
    assert report.summary() == "anchors: no labels to compare with; kept as they are"
    with pytest.raises(ConfigError, match="expected at least one label"):
        best_possible_recall(np.zeros((0, 2)), ANCHORS)
    with pytest.raises(ConfigError, match="a side of at least 2 px"):
        fit_anchors(np.ones((3, 2)), 3, 3)


def test_what_is_fitted_but_no_better_is_not_taken():
    report = check_anchors(np.full((5, 2), 30.0), (((30.0, 30.0),),), threshold=1.0)  # nothing is above 1

    assert not report.changed
    assert report.rejected == AnchorFit(1.0, 1.0)
    assert "fitting found no better ones" in report.summary()


def test_labels_are_measured_with_the_long_side_at_imgsz():
    boxes = np.array([[0, 0, 40, 20], [10, 10, 20, 110]], np.float32)
    records = [
        Record(Path("a.jpg"), (200, 400), Instances(boxes, np.zeros(2, np.int64))),
        Record(Path("b.jpg"), (500, 100), Instances.empty()),
        Record(Path("c.jpg"), (400, 200), Instances(boxes[:1], np.zeros(1, np.int64))),
    ]

    found = label_sizes(records, 800, seed=3)

    factors = found[:, 0] / [80, 20, 80]
    np.testing.assert_allclose(found, np.array([[80, 40], [20, 200], [80, 40]]) * factors[:, None], rtol=1e-12)
    assert factors[0] == pytest.approx(factors[1])  # one factor for each image
    assert factors[0] != pytest.approx(factors[2])
    assert ((factors > 0.9) & (factors < 1.1)).all()
    assert label_sizes([], 640).shape == (0, 2)
    np.testing.assert_array_equal(found, label_sizes(records, 800, seed=3))
