# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Overlays: marks where candidates are, in the colour of their fate."""

import cv2
import numpy as np
import pytest
from tests.inspector.scenes import SIZE, inspected, pictures

from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.assign.trace import FATES
from boxwright.reports.legend import SIGNS
from boxwright.reports.overlay import LONELY, LONGEST, SUSPECT, draw_background, draw_candidates, save_overlays

FACTOR = LONGEST // SIZE
BLANK = np.full((SIZE, SIZE, 3), 60, np.uint8)


def near(canvas, x, y, colour, reach=6):
    part = canvas[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1].astype(int)
    return bool((np.abs(part - colour).max(axis=-1) < 12).any())


def test_every_positive_has_a_disc_of_its_colour():
    inspection = inspected()
    drawn = draw_candidates(BLANK, inspection, 2)

    rows = inspection.candidates.take(
        (inspection.candidates["image"] == 2) & (inspection.candidates["fate"] == "positive")
    )
    assert len(rows) > 5
    for row in rows.rows():
        x, y = round(row["x"] * FACTOR), round(row["y"] * FACTOR)
        assert drawn[y, x].tolist() == list(SIGNS["positive"].colour)


def test_a_stride_alone_shows_only_its_candidates_on_its_grid():
    inspection = inspected()
    mine = inspection.candidates.take(inspection.candidates["image"] == 0)
    drawn = draw_candidates(BLANK, inspection, 0, stride=16, fates=("positive", "outside_topk"))

    kept = mine.take((mine["stride"] == 16) & (mine["fate"] == "outside_topk"))
    gone = mine.take((mine["stride"] == 8) & (mine["fate"] == "positive"))
    assert len(kept)
    assert all(near(drawn, round(r["x"] * FACTOR), round(r["y"] * FACTOR), SIGNS["outside_topk"].colour, 12)
               for r in kept.rows())  # fmt: skip
    positive = SIGNS["positive"].colour
    assert not any(
        drawn[round(r["y"] * FACTOR), round(r["x"] * FACTOR)].tolist() == list(positive) for r in gone.rows()
    )
    line = drawn[5, 16 * FACTOR].tolist()
    assert line == [60 // 2 + 64] * 3


def test_an_object_that_learns_nothing_is_outlined_in_red_and_its_candidates_can_be_shown_alone():
    inspection = inspected()
    lonely = inspection.objects.take((inspection.objects["image"] == 1) & (inspection.objects["positives"] == 0))
    slot = int(lonely["object"][0])
    drawn = draw_candidates(BLANK, inspection, 1, objects=[slot])

    assert near(drawn, 61 * FACTOR, 62 * FACTOR, LONELY)
    assert not near(drawn[: SIZE * FACTOR], 30, 30, SIGNS["positive"].colour, 2000)


def test_the_legend_names_what_is_drawn():
    inspection = inspected()
    fates = set(inspection.candidates.take(inspection.candidates["image"] == 0)["fate"].tolist())
    drawn, none = draw_candidates(BLANK, inspection, 0), draw_candidates(BLANK, inspection, 0, fates=())

    assert none.shape[0] == SIZE * FACTOR
    strip = drawn[SIZE * FACTOR :]
    for fate in FATES:
        assert near(strip, 0, 0, SIGNS[fate].colour, 4000) == (fate in fates), fate


def test_background_shows_the_box_that_costs_most():
    inspection = inspected()
    row = next(inspection.background.rows())
    drawn = draw_background(BLANK, inspection, row["image"], count=1)

    inside = [(x, y) for x in ("x1", "x2") for y in ("y1", "y2")]
    corners = [(round(row[x] * FACTOR), round(row[y] * FACTOR)) for x, y in inside]
    visible = [(x, y) for x, y in corners if 0 <= x < SIZE * FACTOR and 0 <= y < SIZE * FACTOR]
    assert visible, "the made-up box is outside the image: choose another seed"
    assert all(near(drawn, x, y, SUSPECT) for x, y in visible)


def test_files_of_the_costliest_images(tmp_path):
    inspection, told = inspected(), []
    files = save_overlays(tmp_path / "new", inspection, pictures(), most=2, on_progress=lambda *n: told.append(n))

    dear = np.sort(np.argsort(-inspection.images["loss"])[:2])
    strides = sorted(set(inspection.candidates["stride"].tolist()))
    names = ["all", *(f"stride{stride}" for stride in strides), "background"]
    assert [file.name for file in files] == [f"{number:06d}_{name}.png" for number in dear for name in names]
    assert told == [(1, 2), (2, 2)]
    picture = cv2.imread(str(files[-1]))
    assert picture.shape == (SIZE * FACTOR, SIZE * FACTOR, 3)


def test_another_image_number_and_another_type_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="image 9: the inspection is of images 0 to 5"):
        draw_candidates(BLANK, inspected(), 9)
    with pytest.raises(ShapeError, match="uint8"):
        save_overlays(tmp_path, inspected(), lambda row: np.zeros((8, 8, 3)))
