# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest

from boxwright.presets.scaling import Scale


@pytest.mark.parametrize(
    ("width", "widest", "base", "expected"),
    [(0.25, None, 64, 16), (0.25, None, 6, 8), (0.75, 768, 1024, 576), (1.25, 512, 1024, 640), (0.125, None, 96, 16)],
)
def test_widths_round_up_to_a_multiple_of_8(width, widest, base, expected):
    scale = Scale(depth=1.0, width=width, widest=widest)

    assert scale.channels(base) == expected
    assert scale.widths(base, 8) == (expected, scale.channels(8))


def test_repeats_round_half_to_even_and_stay_at_least_one():
    scale = Scale(depth=0.5, width=1.0)

    assert scale.depths(1, 2, 3, 5, 6) == (1, 1, 2, 2, 3)
    assert Scale(depth=0.1, width=1.0).repeats(3) == 1
    assert Scale(depth=1.33, width=1.0).repeats(1) == 1
