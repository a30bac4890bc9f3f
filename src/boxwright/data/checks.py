# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright check`: everything a person should know about a dataset before training on it. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from boxwright.data.policy import DataConfig
from boxwright.data.sample import DatasetHeader, Problem, Report, Split


@dataclass(frozen=True, slots=True)
class SplitStatistics:
    """Numbers of one split that are worth a look."""

    images: int
    backgrounds: int  # images without objects
    boxes: int
    class_counts: tuple[int, ...]  # by compact class index
    image_sizes: Mapping[tuple[int, int], int]  # (height, width) px -> images
    boxes_per_image: tuple[float, int]  # mean, maximum
    box_sides: tuple[float, float, float]  # px, 10 %, 50 % and 90 % quantile of sqrt(width * height)


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """The result of checking every split of a dataset."""

    source: Path
    header: DatasetHeader | None  # None when the dataset cannot be opened
    reports: Mapping[Split, Report]
    statistics: Mapping[Split, SplitStatistics]
    problems: tuple[Problem, ...]  # all of them, of header, splits and between splits

    @property
    def ok(self) -> bool:
        """No problem is an error."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """The machine-readable report: plain values only."""
        raise NotImplementedError


def check_dataset(
    source: str | Path,
    config: DataConfig = DataConfig(),  # noqa: B008
    on_progress: Callable[[Split, int, int], None] | None = None,
) -> DatasetCheck:
    """Read and check every split; findings are returned, never raised."""
    raise NotImplementedError


def class_table(check: DatasetCheck) -> tuple[tuple[str, ...], Mapping[Split, Int64[np.ndarray, " classes"]]]:
    """Class names and the number of boxes of each class in each split: the numbers of a class-count plot."""
    raise NotImplementedError
