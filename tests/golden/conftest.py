# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""After the golden tests: how many cases of each criterion ran, and its worst errors."""

from collections import defaultdict
from typing import Any

COLUMNS = [(dtype, kind) for dtype in ("float64", "float32") for kind in ("value", "gradient")]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    cases: dict[str, int] = defaultdict(int)
    worst: dict[tuple[str, str, str], float] = defaultdict(float)
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "golden":
                criterion, kind, dtype, error = value
                cases[criterion] += (dtype, kind) == COLUMNS[0]
                worst[criterion, dtype, kind] = max(worst[criterion, dtype, kind], error)
    if not cases:
        return
    terminalreporter.section("golden criteria: worst error, values relative, gradients to their norm")
    terminalreporter.write_line(f"{'criterion':18}{'cases':>6}" + "".join(f"{d + ' ' + k:>18}" for d, k in COLUMNS))
    for criterion in sorted(cases):
        numbers = "".join(f"{worst[criterion, dtype, kind]:18.1e}" for dtype, kind in COLUMNS)
        terminalreporter.write_line(f"{criterion:18}{cases[criterion]:>6}{numbers}")
