# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The books that are kept while the entries of one image are read: what counts as mended, dropped, repeated."""

import numpy as np
import pytest

from boxwright.datasets import codes
from boxwright.datasets.dataset import DataConfig
from boxwright.datasets.formats.collect import Collector, EntryError, clip_entry, lost_area
from boxwright.datasets.formats.objects import ReadObject, Remark, Wanted

SIZE = (40, 60)
INSIDE = (10.0, 10.0, 20.0, 20.0)
MENDED = Remark(codes.COORD_CLIPPED, "a little outside", "clipped")


def collector(**choices):
    config = DataConfig(**choices)
    return Collector("a.txt", SIZE, config, Wanted.of(config, None, ()))


def test_every_mended_row_counts_once():
    found = collector()
    for line in (1, 2, 3):
        found.remark("", MENDED, line)
        found.remark("", MENDED, line)
        found.add(ReadObject(0, INSIDE), (line,), "", line)
    found.remark("", Remark(codes.POLYGON_CROSSES_ITSELF, "only said", severity="note"), 4)
    labels = found.labels(4)
    assert (labels.fixed, len(labels.problems)) == (3, 7)


def test_an_entry_whose_object_is_not_used_is_not_mended():
    found = collector(max_objects=1)
    for line, key in ((1, "first"), (2, "first"), (3, "third")):  # the second repeats the first, the third is over
        found.remark("", MENDED, line)
        assert found.add(ReadObject(0, INSIDE), (key,), "", line) == (line != 2)
    found.remark("", MENDED, 4)
    found.drop("", EntryError(codes.ZERO_AREA, "flat"), 4)

    labels = found.labels(4)

    assert (labels.fixed, labels.dropped, labels.duplicates, len(labels.instances)) == (1, 2, 1, 1)
    assert [problem.action for problem in labels.problems if problem.code != codes.COORD_CLIPPED] == [
        "row dropped", "row dropped", "1 rows dropped",
    ]  # fmt: skip


def test_the_limit_is_said_once():
    found = collector(max_objects=2)
    for line in range(5):
        found.add(ReadObject(0, INSIDE), (line,), "", line)
    assert len(found.limit()) == len(found.limit()) == 2
    labels = found.labels(5)
    assert [problem.code for problem in labels.problems] == [codes.TOO_MANY_OBJECTS]
    assert labels.dropped == 3


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10.0, 10.0, 10.0, 20.0), "the box has zero area: width 0, height 10"),
        ((20.0, 10.0, 10.0, 20.0), "the box has zero area: width -10, height 10"),
        ((70.0, 10.0, 80.0, 20.0), "nothing of the box lies inside the image"),
        ((-5.0, 10.0, 0.0, 20.0), "nothing of the box lies inside the image"),
        ((10.0, 10.0, 10.0 + 1e-9, 20.0), "the box has zero area in pixels of its image"),
    ],
)
def test_a_box_without_area_says_why(box, message):
    with pytest.raises(EntryError) as error:
        clip_entry(box, SIZE, ": as written")
    assert (str(error.value), error.value.code) == (f"{message}: as written", codes.ZERO_AREA)


def test_what_a_box_loses_is_said_beyond_rounding():
    clipped, kept = clip_entry((-10.0, 0.0, 30.0, 50.0), SIZE)
    np.testing.assert_allclose((*clipped, kept), (0, 0, 30, 40, 0.6))
    assert lost_area(kept) == "40 % of the box lies outside the image"
    assert lost_area(0.99) is None
    assert lost_area(0.9899) == "1 % of the box lies outside the image"
