# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What checks look at, and what they answer with. Imports no torch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np

from boxwright.auditor.images import SplitImages
from boxwright.auditor.labels import SplitLabels, Spot
from boxwright.auditor.learnable import Learnable
from boxwright.auditor.pairs import Pairs
from boxwright.datasets.codes import Group, Severity
from boxwright.datasets.sample import Report, Split

SHOWN = 10  # examples of a finding

GROUPS: tuple[Group, ...] = get_args(Group)


@dataclass(frozen=True, slots=True)
class RowKinds:
    """What the rows of some label files are, of a dataset that does not say what it is made for."""

    files: int  # looked at
    boxes: int  # rows
    outlines: int  # rows
    examples: tuple[str, ...]  # files with outlines


@dataclass(frozen=True, slots=True)
class Audited:
    """Everything checks may look at."""

    names: tuple[str, ...]
    root: Path
    splits: Mapping[Split, SplitLabels]
    pairs: Mapping[Split, Pairs] = field(default_factory=dict)  # of boxes that overlap almost wholly
    learnable: Mapping[Split, Learnable] = field(default_factory=dict)
    pictures: Mapping[Split, SplitImages] = field(default_factory=dict)
    reports: Mapping[Split, Report] = field(default_factory=dict)  # of the readers
    row_kinds: Mapping[Split, RowKinds] = field(default_factory=dict)  # where label files hold rows of several kinds


@dataclass(frozen=True, slots=True)
class Hit:
    """What a check found; `count` cases, of which some are shown."""

    splits: tuple[Split, ...]
    count: int
    message: str
    spots: tuple[Spot, ...] = ()
    severity: Severity | None = None  # None: that of the check


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing an audit looks for; the page docs/audit.md is made of these."""

    code: str
    group: Group
    severity: Severity
    what: str  # one line
    example: str
    fix: str
    find: Callable[[Audited], Iterable[Hit]] | None = None  # None: the readers of datasets report it


@dataclass(frozen=True, slots=True)
class Example:
    """One case, as a person finds it."""

    file: str
    line: int | None
    text: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{where}: {self.text}" if self.text else where


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault or oddity in one split, or between splits; `code` is stable and explained in docs/audit.md."""

    code: str
    group: Group
    severity: Severity
    splits: tuple[str, ...]  # () for the dataset as a whole
    count: int
    message: str
    fix: str
    examples: tuple[Example, ...] = ()


def object_spots(labels: SplitLabels, rows: Sequence[int] | np.ndarray, texts: Sequence[str] = ()) -> tuple[Spot, ...]:
    """The first few objects, in words."""
    shown = [int(row) for row in rows[:SHOWN]]
    more = [*texts[:SHOWN], *[""] * (len(shown) - len(texts))]
    return tuple(
        Spot(labels.split, int(labels.image[row]), row, f"{labels.says(row)}{': ' if text else ''}{text}")
        for row, text in zip(shown, more, strict=True)
    )


def image_spots(labels: SplitLabels, rows: Sequence[int] | np.ndarray, texts: Sequence[str] = ()) -> tuple[Spot, ...]:
    """The first few images."""
    shown = [int(row) for row in rows[:SHOWN]]
    more = [*texts[:SHOWN], *[""] * (len(shown) - len(texts))]
    return tuple(Spot(labels.split, row, -1, text) for row, text in zip(shown, more, strict=True))


def counted(count: int, one: str, many: str = "") -> str:
    """A number and its noun.

    >>> counted(1, "box", "boxes"), counted(2, "object")
    ('1 box', '2 objects')
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str:
    """A part and what it is of.

    >>> share(1, 3), share(1, 5000)
    ('1 of 3 (33 %)', '1 of 5000 (0.02 %)')
    """
    percent = 100 * part / max(whole, 1)
    return f"{part} of {whole} ({percent:.{0 if percent >= 10 or not part else 2 if percent < 0.1 else 1}f} %)"
